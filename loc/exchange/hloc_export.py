"""``loc export hloc``: a run as the single files that hloc, pixsfm, LIMAP and nerfstudio read.

``features.h5``, ``global-feats.h5``, ``matches.h5``, ``pairs-map.txt``, ``pairs-query.txt``, ``db.txt``,
``queries_with_intrinsics.txt``, ``sfm/`` (model and ``database.db``), ``results.txt``. hloc's
``*_logs.pkl`` is not written: it is a pickle of pycolmap objects, which executes code when it is read;
what it holds is in the run's ``queries.jsonl``, as JSON.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from loc.errors import DataError
from loc.exchange.hloc_files import check_escapes, write_features, write_matches
from loc.exchange.targets import export_folder, refuse_inside
from loc.layouts.lists import write_names, write_pairs, write_poses
from loc.record import read_record
from loc.stages.pairs import read_pair_list
from loc.stages.poses import Poses
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.files import read_json, require_space, writing
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.types import Camera

FEATURES, GLOBALS, MATCHES = "features.h5", "global-feats.h5", "matches.h5"
Pair = tuple[str, str]
#: HDF5's own bytes for a group with two data sets (measured: 1,700).
_PAIR_BYTES = 2_000


@dataclass
class Exported:
    """What was written: file → number of items, and remarks for people."""

    folder: Path
    items: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "items": self.items, "notes": self.notes}


def export_hloc(run: Path, target: Path, *, matches: bool = True, force: bool = False) -> Exported:
    """Write a run's artefacts as hloc's files; stages that the run has not reached are left out.

    Args:
        run: a run folder, at least with features.
        target: folder to make.
        matches: also write ``matches.h5``.
        force: replace a former export.

    Raises:
        DataError: no run, or two names that hloc's matches file cannot tell apart.
    """
    record = read_record(run)
    refuse_inside(run, target)
    if "features" not in record:
        raise DataError(f"{run} has no features yet", "run it first: loc run CONFIG -o RUN")
    pairs = {role: _pairs(run, record, role) for role in ("map", "query")}
    matches = matches and "matches" in record
    if matches:
        check_escapes(name for listed in pairs.values() for pair in listed for name in pair)
    out = Exported(target)
    about = {"kind": "hloc", "run": run.resolve().name, "keypoint_origin": "centre of the top-left pixel"}
    with export_folder(target, about, force=force) as folder, writing(target.parent):
        writer = _Writer(run, record, folder, out)
        require_space(folder, writer.nbytes(pairs if matches else {}))
        writer.features()
        writer.globals()
        for role, listed in pairs.items():
            if f"pairs_{role}" in record:
                write_pairs(folder / f"pairs-{role}.txt", listed)
                out.items[f"pairs-{role}.txt"] = len(listed)
        if matches:
            writer.matches([*pairs["map"], *pairs["query"]])
        writer.scene()
        writer.map()
        writer.results()
    return out


def _pairs(run: Path, record: dict[str, Any], role: str) -> list[Pair]:
    """Pairs of a role; a query's in rank order, so that its best reference comes first."""
    if f"pairs_{role}" not in record:
        return []
    listed = read_pair_list(run / record[f"pairs_{role}"])
    if role == "map":
        return list(listed.pairs)
    return [(query, name) for query, names in sorted(listed.ranked.items()) for name in names]


@dataclass
class _Writer:
    """Writes one file after another and notes them in ``out``."""

    run: Path
    record: dict[str, Any]
    folder: Path
    out: Exported
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # px, of the images with features

    @property
    def _described(self) -> dict[str, Any]:
        """What matches refer to: the features, or the keypoints of a matcher that finds its own points."""
        found: dict[str, Any] = self.record.get("keypoints", self.record["features"])
        return found

    @property
    def items(self) -> dict[str, ItemKey]:
        listed = self._described["items"]
        return {name: ItemKey(name, content) for name, content in sorted(listed.items())}

    def nbytes(self, pairs: dict[str, list[Pair]]) -> float:
        """About what will be written: `matches0` and its scores are dense, the rest is as in the stores."""
        features = FeatureStore(self.run / self._described["folder"])
        items = self.items
        # uint8 descriptors grow to float16; the store may hold other images too.
        total = 2.0 * features.nbytes * len(items) / max(1, len(features)) + _PAIR_BYTES * len(items)
        for listed in pairs.values():
            total += sum(6.0 * features.count(items[first]) + _PAIR_BYTES for first, _ in listed)
        features.close()
        if "globals" in self.record:
            store = GlobalStore(self.run / self.record["globals"]["folder"])
            total += store.nbytes
            store.close()
        if "map" in self.record:
            folder = self.run / self.record["map"]
            total += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return total

    def features(self) -> None:
        store = FeatureStore(self.run / self._described["folder"])
        with h5py.File(self.folder / FEATURES, "w", locking=False) as file:
            for name, key in self.items.items():
                found = store.get(key)
                write_features(file.create_group(name), found)
                self.sizes[name] = found.image_wh
        store.close()
        self.out.items[FEATURES] = len(self.sizes)

    def globals(self) -> None:
        if "globals" not in self.record:
            return
        store = GlobalStore(self.run / self.record["globals"]["folder"])
        listed = self.record["globals"]["items"]
        if any(store.get(ItemKey(*item)).dtype == np.uint8 for item in sorted(listed.items())[:1]):
            store.close()  # visual words: no vectors that hloc could compare
            return
        with h5py.File(self.folder / GLOBALS, "w", locking=False) as file:
            for name, content in sorted(listed.items()):
                if name not in self.sizes:  # a run that stopped before it had the queries' keypoints
                    continue
                group = file.create_group(name)
                group.create_dataset("global_descriptor", data=store.get(ItemKey(name, content)))
                group.create_dataset("image_size", data=np.array(self.sizes[name], np.int64))
        store.close()
        self.out.items[GLOBALS] = len(listed)

    def matches(self, pairs: list[Pair]) -> None:
        features = FeatureStore(self.run / self._described["folder"])
        store = MatchStore(self.run / self.record["matches"])
        items, lost = self.items, 0
        keys = {PairKey(items[first], items[second]): None for first, second in pairs}
        missing = store.missing(keys)
        if missing:
            raise DataError(
                f"{len(missing)} of {len(keys)} pairs of {self.run} are not matched yet",
                "finish the run first: give its loc run command again",
            )
        with h5py.File(self.folder / MATCHES, "w", locking=False) as file:
            for key, found in store.items(keys):
                counts = features.count(key.first), features.count(key.second)
                lost += write_matches(file, (key.first.name, key.second.name), found, counts)
        store.close()
        features.close()
        self.out.items[MATCHES] = len(keys)
        if lost:
            self.out.notes.append(
                f"{lost} matches are not in {MATCHES}: hloc keeps one match per keypoint of the first image"
            )

    def scene(self) -> None:
        """Lists of database images, and of queries with their intrinsics."""
        scene = read_json(self.run / "scene" / "scene.json")
        cameras = {key: Camera.from_json(camera) for key, camera in scene["cameras"].items()}
        lines: dict[str, list[str]] = {"db": [], "query": []}
        for image in scene["images"]:
            camera = cameras[image["camera_id"]]
            parameters = " ".join(repr(float(value)) for value in camera.params)
            described = f"{image['name']} {camera.model} {camera.width} {camera.height} {parameters}"
            lines[image["role"]].append(described if image["role"] == "query" else image["name"])
        for file, role in (("db.txt", "db"), ("queries_with_intrinsics.txt", "query")):
            if lines[role]:
                write_names(self.folder / file, lines[role])
                self.out.items[file] = len(lines[role])

    def map(self) -> None:
        if "map" not in self.record:
            return
        (self.folder / "sfm").mkdir()
        source = self.run / self.record["map"]
        for path in [*sorted((source / "model").iterdir()), source / "database.db"]:
            if path.is_file():
                shutil.copyfile(path, self.folder / "sfm" / path.name)
        self.out.items["sfm"] = int(read_json(source / "stats.json")["registered"])

    def results(self) -> None:
        """Named by file name, as hloc and benchmarks do, unless two queries share one."""
        if "poses" not in self.record:
            return
        poses = Poses.open(self.run / self.record["poses"]).localized
        names = {name: PurePosixPath(name).name for name in poses}
        twice = sorted(name for name, count in Counter(names.values()).items() if count > 1)
        if twice:
            self.out.notes.append(
                f"results.txt has whole paths: {len(twice)} file names belong to several queries, "
                f"e.g. {twice[0]}"
            )
            names = {name: name for name in poses}
        write_poses(self.folder / "results.txt", {names[name]: pose for name, pose in poses.items()})
        self.out.items["results.txt"] = len(poses)
