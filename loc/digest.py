"""`loc digest`: one hash over everything a run computed, independent of how it was computed.

Equal digests mean equal keypoints, descriptors, pairs, matches, model and poses, byte for byte.
Times, devices, worker counts, part files and paths are not in it.
"""

from __future__ import annotations

import json
from pathlib import Path

from loc.errors import StoreError
from loc.record import read_record
from loc.sfm.model import model_digest
from loc.stages.artefacts import Pair
from loc.stages.pairs import read_pair_list
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.files import RUN_AGAIN
from loc.stores.fingerprint import digest
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.stores.products import check_product


def run_digest(workdir: Path) -> dict[str, str]:
    """Hash per artefact of the run at ``workdir``, and ``run``, the hash over them.

    Raises:
        DataError: the folder is no run, or (StoreError) has no artefact, or a damaged one.
    """
    record = read_record(workdir)
    out: dict[str, str] = {}
    items: dict[str, ItemKey] = {}
    if "features" in record:
        items = {name: ItemKey(name, content) for name, content in record["features"]["items"].items()}
        out["features"] = FeatureStore(workdir / record["features"]["folder"]).digest(items.values())
    if "keypoints" in record:  # what matches refer to where a matcher finds its own points
        items = {name: ItemKey(name, content) for name, content in record["keypoints"]["items"].items()}
        out["keypoints"] = FeatureStore(workdir / record["keypoints"]["folder"]).digest(items.values())
    if "globals" in record:
        keys = [ItemKey(name, content) for name, content in record["globals"]["items"].items()]
        out["globals"] = GlobalStore(workdir / record["globals"]["folder"]).digest(keys)
    pairs: list[Pair] = []
    for role in ("map", "query"):
        if f"pairs_{role}" in record:
            found = read_pair_list(workdir / record[f"pairs_{role}"])
            out[f"pairs_{role}"] = digest(f"{a}\n{b}" for a, b in found.pairs)
            pairs += found.pairs
    if "matches" in record:
        store = MatchStore(workdir / record["matches"])
        out["matches"] = store.digest(PairKey(items[a], items[b]) for a, b in pairs)
    if "map" in record:
        out["map"] = model_digest(workdir / record["map"] / "model")
    if "poses" in record:
        out["poses"] = _poses_digest(workdir / record["poses"])
    if not out:
        raise StoreError(f"{workdir} holds no artefact: its run stopped before the first", RUN_AGAIN)
    out["run"] = digest(f"{name}={value}" for name, value in sorted(out.items()))
    return out


def _poses_digest(folder: Path) -> str:
    """Hash of the pose file and of every query's result but its times and covariance."""
    check_product(folder)
    rows = []
    for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        row.pop("seconds", None)
        row.pop("covariance", None)  # repeats to 1e-15 only (pycolmap 4.2.1), everything else exactly
        rows.append(json.dumps(row, sort_keys=True))
    return digest([(folder / "poses.txt").read_text(encoding="utf-8"), *rows])
