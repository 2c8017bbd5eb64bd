"""The vectors of photos for an index, by the ordinary stages and stores in the index's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from loc.errors import ConfigError, StoreError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.retrieval.regions import pooled_rows
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Globals
from loc.stages.extract import extract_features, extract_globals, features_folder
from loc.stages.learn import fitted_extractor
from loc.stages.places_files import FILE, Card
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.parts import ItemKey
from loc.types import Array, ImageRecord, LocalFeatures
from loc.weights.files import identity


@dataclass(frozen=True)
class Described:
    """Photos with what describes them.

    Attributes:
        card: as it was, with the stores and what plug-ins have learned.
        keys: name → item of the stores; names in ``skipped`` have none.
        rows: ``(m, d)`` float32 unit vectors of an image: one or none; of local features one per keypoint.
    """

    card: Card
    keys: dict[str, ItemKey]
    skipped: dict[str, str]
    rows: Callable[[str], Float32[Array, "m d"]]


def settled(plugin: ResolvedPlugin) -> dict[str, Any]:
    """A plug-in block with every option written out, which resolves to the same numbers later."""
    options = plugin.config.model_dump(mode="json") | plugin.stage_options
    return {"use": plugin.name, **options}


def plugin_of(folder: Path, card: Card, section: str) -> ResolvedPlugin | None:
    """A plug-in that an index was made with, weights at hand; an extractor with what it has learned.

    Raises:
        StoreError: it is not to be had here, its weights are others, or what it learned is gone.
        WeightsError: its weights are nowhere.
    """
    block = card.features if section == "features" else card.globals
    if block is None:
        return None
    try:
        plugin = resolve_block(section, block, source=str(folder / FILE))
    except ConfigError as error:
        raise StoreError(
            f"the {section} that {folder} was made with are not to be had: {error.message}",
            "install that plug-in in its version, or build the index again in another folder",
        ) from error
    _require_weights(folder, card, section, plugin)
    plugin = plugin.ready(lambda: "cpu")  # the precision is settled in the card
    return replace(plugin, state=fit_of(folder, card, section)) if section == "features" else plugin


def _require_weights(folder: Path, card: Card, section: str, plugin: ResolvedPlugin) -> None:
    """Raise a :class:`StoreError` where other weights would be used, before any of them are downloaded."""
    name = card.features_store if section == "features" else card.globals_store
    if name is None or not (folder / section / name).is_dir():
        return
    kind = FeatureStore if section == "features" else GlobalStore
    made_with = kind(folder / section / name).fields.get("weights", [])
    here = [identity(file) for file in plugin.weights]
    # The hash of a file that is nowhere yet is not known: its address stands for it.
    same = [known == given or "://" in given for known, given in zip(made_with, here, strict=False)]
    if len(made_with) != len(here) or not all(same):
        raise StoreError(
            f"the index {folder} was made with other weights of {plugin.name} than would be used here:"
            f" {', '.join(file.name for file in plugin.weights)}",
            "give the folder that has them: --weights-dir DIR, or build the index again in another folder",
        )


def fit_of(folder: Path, card: Card, section: str) -> Path | None:
    """The folder of what a plug-in learned at the first build; None for one that learns nothing."""
    name = card.fits.get("features" if section == "features" else "globals")
    if name is None:
        return None
    if not (folder / "fits" / name).is_dir():
        raise StoreError(
            f"{folder / 'fits' / name} is missing: what the {section} of this index have learned",
            f"copy it back, or delete the folder {folder} and build the index again",
        )
    return folder / "fits" / name


def require_same(folder: Path, made_with: str | None, here: str) -> None:
    """Raise a :class:`StoreError` where a plug-in would describe photos otherwise than those of the index."""
    if made_with is not None and made_with != here:
        raise StoreError(
            f"the index {folder} was made with {made_with}; the plug-in, weights or fit here are {here}",
            "use those it was made with (loc index info DIR), or build the index again in another folder",
        )


def describe(folder: Path, card: Card, records: Sequence[ImageRecord], runtime: Runtime) -> Described:
    """Describe photos; what the stores hold is not computed again.

    Plug-ins learn from ``records`` where the card does not say yet what they have learned; later never.

    Raises:
        StoreError: plug-ins, weights or fits are not those of the index.
    """
    where: dict[str, Any] = {"workdir": folder, "runtime": runtime}
    frozen = card.features_store is not None
    extractor = plugin_of(folder, card, "features")
    companion = plugin_of(folder, card, "globals")
    if extractor is None:  # only looks whether the photos can be read
        extractor = resolve_block("features", None)
    elif not frozen:
        extractor = fitted_extractor(extractor, records, **where)
    require_same(folder, card.features_store, features_folder(extractor, folder).name)
    features = extract_features(records, plugin=extractor, companion=companion, **where)
    changes: dict[str, Any] = {"features_store": features.store.folder.name}
    if extractor.state is not None:
        changes["fits"] = {**card.fits, "features": extractor.state.name}
    if companion is None:
        rows = _local_rows(features)
    else:
        globals_ = extract_globals(
            records,
            features,
            plugin=companion,
            fit=fit_of(folder, card, "globals"),
            fit_names=[each.name for each in records],
            **where,
        )
        require_same(folder, card.globals_store, globals_.store.folder.name)
        changes["globals_store"] = globals_.store.folder.name
        if globals_.fit is not None:
            changes["fits"] = {**changes.get("fits", card.fits), "globals": globals_.fit.name}
        rows = _global_rows(globals_)
    return Described(card.model_copy(update=changes), features.keys, features.skipped, rows)


def unit_rows(rows: Array) -> Float32[Array, "m d"]:
    """Rows of unit length; zero rows are left out, for no search should find them."""
    values: Array = np.asarray(rows, np.float32)
    norms = np.linalg.norm(values, axis=1)
    kept = norms > 0
    units: Array = values[kept] / norms[kept, None]
    return units


def local_vectors(features: LocalFeatures) -> Float32[Array, "m d"]:
    """Local descriptors as an index of them holds, and is asked with."""
    return unit_rows(features.descriptors)


def global_vector(plugin: ResolvedPlugin, row: Array) -> Float32[Array, "m d"]:
    """A global descriptor as an index holds it: one unit vector, none for a photo without anything."""
    return unit_rows(pooled_rows(np.asarray(row, np.float32)[None], plugin.regions))


def forget(folder: Path, keys: Sequence[ItemKey]) -> None:
    """Take items out of all stores of an index."""
    for path in sorted((folder / "features").glob("*/store.json")):
        FeatureStore(path.parent).remove(keys)
    for path in sorted((folder / "globals").glob("*/store.json")):
        GlobalStore(path.parent).remove(keys)


def _local_rows(features: Features) -> Callable[[str], Array]:
    return lambda name: local_vectors(features.get(name))


def _global_rows(globals_: Globals) -> Callable[[str], Array]:
    def rows(name: str) -> Array:
        key = globals_.keys.get(name)
        if key is None:  # the plug-in could not look at it: too small, or it crashed
            return np.zeros((0, 0), np.float32)
        row: Array = global_vector(globals_.plugin, globals_.store.get(key))
        return row

    return rows
