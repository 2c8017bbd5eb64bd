"""Stage *pairs*: which images are matched with which; a union of generators."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loc.config import CovisibilityPairs, ListedPairs, PairsConfig, PosePairs, reranks
from loc.layouts.lists import expand_glob, read_pairs, write_pairs
from loc.layouts.reference import images_file
from loc.runtime.images import content_hash
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Globals, PairList
from loc.stages.pair_generators import Described, PairRole
from loc.stages.pair_union import Prediction, generate_pairs, needs_globals, no_generator, predict_pairs
from loc.stages.reranking import LocalSource
from loc.stores.fingerprint import digest, fingerprint
from loc.stores.products import check_product, make_product
from loc.types import Scene

__all__ = [
    "Prediction",
    "generate_pairs",
    "make_pairs",
    "needs_globals",
    "no_generator",
    "pair_fields",
    "pairs_folder",
    "predict_pairs",
    "read_pair_list",
]

#: Raised when this stage changes the pairs.
STAGE_VERSION = 1
#: Readable by hloc; in the order of generation, so that a query's images are in rank order.
FILE = "pairs.txt"


def make_pairs(
    role: PairRole,
    scene: Scene,
    features: Features,
    globals_: Globals | None,
    *,
    config: Sequence[PairsConfig],
    workdir: Path,
    runtime: Runtime,
    among: Collection[str] | None = None,
) -> PairList:
    """The pairs to match for the map, or for the queries.

    Args:
        features: images without features are in no pair.
        globals_: descriptors for retrieval; None where no generator needs them. Images without one (smaller
            than the plug-in takes) are in no pair.
        among: database images that may be paired (query role: those in the map); default all.

    Raises:
        ConfigError, DataError: see :func:`loc.stages.pair_union.generate_pairs`.
    """
    usable = _usable(role, scene, features, globals_, among)
    fields = pair_fields(role, scene, features, globals_, config=config, among=among)
    folder = pairs_folder(role, fields, workdir)

    def build(partial: Path) -> None:
        main = None if globals_ is None else _described(globals_)
        others = {} if globals_ is None else globals_.others
        pairs = generate_pairs(
            role,
            config,
            scene,
            usable,
            None if main is None else main.rows,
            regions=1 if main is None else main.regions,
            own=None if main is None else main.own,
            others={key: _described(each) for key, each in others.items()},
            local=_local_source(role, features, config, runtime),
        )
        write_pairs(partial / FILE, pairs)
        for _ in runtime.track([pairs], f"pairs {role}", 1):
            pass

    make_product(folder, fields, build)
    return replace(read_pair_list(folder), empty_because=no_generator(role, config))


def _local_source(
    role: PairRole, features: Features, config: Sequence[PairsConfig], runtime: Runtime
) -> LocalSource | None:
    if not reranks(config, (role,)):
        return None
    return LocalSource(features.get, lambda names: runtime.track(names, "re-ranking", len(names)))


def _described(globals_: Globals) -> Described:
    return Described(globals_.matrix, globals_.plugin.regions, globals_.plugin.own_ranking)


def pair_fields(
    role: PairRole,
    scene: Scene,
    features: Features,
    globals_: Globals | None,
    *,
    config: Sequence[PairsConfig],
    among: Collection[str] | None = None,
) -> dict[str, Any]:
    """What the fingerprint of a pair list covers; arguments as of :func:`make_pairs`."""
    usable = _usable(role, scene, features, globals_, among)
    others = {} if globals_ is None else globals_.others
    fused = {key: each.store.folder.name for key, each in others.items()}
    return {
        **({"fused": fused} if fused else {}),
        **({"features": features.store.folder.name} if reranks(config, (role,)) else {}),
        "kind": "pairs",
        "stage": STAGE_VERSION,
        "role": role,
        "pairs": [_options(each) for each in config if each.for_ in (role, "both")],
        "database": len(scene.db),  # what `auto` decides by
        "items": digest(part for name in sorted(usable) for part in features.keys[name]),
        "globals": None if globals_ is None else globals_.store.folder.name,
        "inputs": _inputs(role, config, scene),
    }


def pairs_folder(role: PairRole, fields: dict[str, Any], workdir: Path) -> Path:
    return workdir / "pairs" / f"{role}-{fingerprint(fields)}"


def read_pair_list(folder: Path) -> PairList:
    """Read a finished product; a damaged one is a :class:`loc.errors.StoreError`."""
    check_product(folder)
    pairs = read_pairs(folder / FILE)
    ranked: dict[str, list[str]] = {}
    if folder.name.startswith("query-"):
        for query, name in pairs:
            ranked.setdefault(query, []).append(name)
    return PairList(folder, tuple(sorted(pairs)), {query: tuple(names) for query, names in ranked.items()})


def _usable(
    role: PairRole,
    scene: Scene,
    features: Features,
    globals_: Globals | None,
    among: Collection[str] | None,
) -> set[str]:
    allowed = None if among is None else frozenset(among)
    names = [image.name for image in scene.db if allowed is None or image.name in allowed]
    names += [image.name for image in scene.queries] if role == "query" else []
    tables = [features.keys]
    if globals_ is not None:
        tables += [each.keys for each in (globals_, *globals_.others.values())]
    return {name for name in names if all(name in table for table in tables)}


def _options(config: PairsConfig) -> dict[str, Any]:
    """The options that change the pairs: a path does not, its content does (see :func:`_inputs`).

    An option that came later is left out where it is not set: what was made without it stays valid.
    """
    options = config.model_dump(mode="json")
    later = {"rerank"} if options.get("rerank") is None else set()
    return {name: value for name, value in options.items() if name not in {"path", *later}}


def _inputs(role: PairRole, configs: Sequence[PairsConfig], scene: Scene) -> list[str]:
    """What generators read besides photos and descriptors, in the order of the generators.

    GPS positions and times are in the photos, whose content the fingerprint covers anyway.
    """
    hashes = []
    for config in configs:
        if config.for_ not in (role, "both"):
            continue
        if isinstance(config, ListedPairs):
            hashes += [content_hash(path) for path in expand_glob(config.path)]
        elif isinstance(config, CovisibilityPairs) and scene.model is not None:
            hashes.append(content_hash(images_file(scene.model)))
        elif isinstance(config, PosePairs):
            known = {image.name: image.pose for image in scene.db}
            if role == "query":
                known |= {image.name: image.pose_prior for image in scene.queries}
            hashes.append(fingerprint({name: pose and pose.to_json() for name, pose in known.items()}))
    return hashes
