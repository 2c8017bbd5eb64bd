"""Stage *features* and *globals*: what describes each image."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.config import PairsConfig, fused_blocks
from loc.errors import DataError
from loc.plugins.blocks import ResolvedPlugin, resolve_block
from loc.plugins.joint import Described, JointPlugin, joint
from loc.retrieval.asmk.boxes import with_boxes
from loc.runtime.extraction import PhotoFile, Skipped, extract_many
from loc.runtime.images import content_hash
from loc.runtime.pictures import Pictures
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Features, Globals
from loc.stages.fit import fit_state, load_fitted
from loc.stores.features import FeatureStore, GlobalStore
from loc.stores.fingerprint import fingerprint
from loc.stores.parts import ItemKey
from loc.types import ImageRecord

log = logging.getLogger(__name__)
#: Raised when this stage changes the numbers for an unchanged plug-in.
STAGE_VERSION = 1


def extract_features(
    images: Sequence[ImageRecord],
    *,
    plugin: ResolvedPlugin,
    workdir: Path,
    runtime: Runtime,
    failed: Mapping[str, str] | None = None,
    companion: ResolvedPlugin | None = None,
) -> Features:
    """Local features of ``images``; what the store already holds is not computed again.

    Args:
        images: any images of a scene; database and queries share one store.
        plugin: the extractor with its options.
        workdir: the run folder.
        failed: photos that failed earlier in this run, name → reason: not tried again.
        companion: global extractor that is about to describe the same images; its store is filled in
            the same pass where the network gives both.

    Returns:
        The items of these images; unreadable photos are in ``skipped`` with the reason.
    """
    store = FeatureStore(features_folder(plugin, workdir), feature_fields(plugin))
    failed = failed or {}
    skipped = {image.name: failed[image.name] for image in images if image.name in failed}
    images = [image for image in images if image.name not in failed]
    keys, unreadable = content_keys(images, runtime)
    skipped |= unreadable
    records = {image.name: image for image in images}
    todo = store.missing(keys[name] for name in sorted(keys))
    files = [PhotoFile(key.name, records[key.name].path, records[key.name].mask) for key in todo]
    if files:
        both = None if companion is None else joint(plugin, companion)
        results = extract_many(both or plugin, files, runtime=runtime)
        with store.writer() as writer, _vectors(both, workdir) as put_vector:
            for file, result in runtime.track(results, f"features {plugin.name}", len(files)):
                key = keys[file.name]
                if isinstance(result, Skipped):
                    skipped[file.name] = result.reason
                elif isinstance(result, Described):
                    writer.put(key, result.features)
                    put_vector(key, result.vector)
                else:
                    writer.put(key, result)
    usable = {name: key for name, key in keys.items() if name not in skipped}
    return Features(store, usable, dict(sorted(skipped.items())), plugin, computed=len(todo))


@contextmanager
def _vectors(both: JointPlugin | None, workdir: Path) -> Iterator[Callable[[ItemKey, np.ndarray], None]]:
    """What puts a descriptor where :func:`extract_globals` will look for it, if it is not there."""
    if both is None or both.companion is None:
        yield lambda *_: None
        return
    store = _global_store(both.companion, global_fields(both.companion, None, None), workdir)
    with store.writer() as writer:

        def put(key: ItemKey, vector: np.ndarray) -> None:
            if key not in store:
                writer.put(key, vector)

        yield put


def _global_store(plugin: ResolvedPlugin, fields: dict[str, Any], workdir: Path) -> GlobalStore:
    return GlobalStore(workdir / "globals" / f"{folder_name(plugin.name)}-{fingerprint(fields)}", fields)


def extract_globals(
    images: Sequence[ImageRecord],
    features: Features,
    *,
    plugin: ResolvedPlugin,
    fit_names: Sequence[str],
    workdir: Path,
    runtime: Runtime,
    others: Mapping[str, ResolvedPlugin] | None = None,
    fit: Path | None = None,
) -> Globals:
    """Global descriptors of ``images``, from pixels or aggregated from their local features.

    Args:
        fit_names: database images that a plug-in with ``needs_fit`` learns from; never a query,
            so that a new query changes nothing of the map.
        fit: what it has learned before, and is to use instead of learning.
        others: plug-ins of further descriptors that pair generators fuse with these.
    """
    state = fit
    if plugin.needs_fit and state is None:
        state = _fitted(
            images, features, plugin=plugin, fit_names=fit_names, workdir=workdir, runtime=runtime
        )
    fields = global_fields(plugin, features, state)
    store = _global_store(plugin, fields, workdir)
    names = [image.name for image in images if image.name in features.keys]
    keys = {name: features.keys[name] for name in names}
    todo = store.missing(keys.values())
    if todo:
        with store.writer() as writer:
            described = _describe(todo, images, features, plugin, state, runtime)
            for key, vector in runtime.track(described, f"globals {plugin.name}", len(todo)):
                writer.put(key, vector)
    keys = {name: key for name, key in keys.items() if key in store}
    more = {
        key: extract_globals(
            images, features, plugin=each, fit_names=fit_names, workdir=workdir, runtime=runtime
        )
        for key, each in (others or {}).items()
    }
    return Globals(store, keys, plugin, state, computed=len(todo), others=more)


def _fitted(
    images: Sequence[ImageRecord],
    features: Features,
    *,
    plugin: ResolvedPlugin,
    fit_names: Sequence[str],
    workdir: Path,
    runtime: Runtime,
) -> Path:
    """What a plug-in learns from the features of the database images, or from their pixels."""
    if plugin.cls.source == "features":
        return fit_state(features, fit_names, plugin=plugin, workdir=workdir)
    wanted = set(fit_names) & features.keys.keys()
    records = sorted((image for image in images if image.name in wanted), key=lambda image: image.name)
    pictures = Pictures(plugin, [PhotoFile(image.name, image.path) for image in records])
    return fit_state(
        features,
        [image.name for image in records],
        plugin=plugin,
        workdir=workdir,
        pictures=pictures,
        device=runtime.torch_device(),
    )


def fused_plugins(pairs: Sequence[PairsConfig], runtime: Runtime) -> dict[str, ResolvedPlugin]:
    """The global extractors that pair generators name besides that of `globals`, ready to run, by key."""
    return {
        key: resolve_block("globals", block).ready(runtime.torch_device)
        for key, block in fused_blocks(pairs).items()
    }


def _describe(
    todo: list[ItemKey],
    images: Sequence[ImageRecord],
    features: Features,
    plugin: ResolvedPlugin,
    state: Path | None,
    runtime: Runtime,
) -> Any:
    records = {image.name: image for image in images}
    if plugin.cls.source == "features":
        instance = load_fitted(plugin, state)
        find = plugin.cls.boxes(plugin.config) if hasattr(plugin.cls, "boxes") else None
        for key in todo:
            local = features.store.get(key)
            if find is not None:
                local = with_boxes(local, find(key.name, records[key.name].path))
            row = instance([local])[0]
            yield key, row if plugin.own_ranking else np.asarray(row, np.float32)
        return
    keys = {key.name: key for key in todo}
    files = [PhotoFile(key.name, records[key.name].path) for key in todo]
    for file, result in extract_many(replace(plugin, state=state), files, runtime=runtime):
        if isinstance(result, Skipped):
            log.warning("no descriptor, so in no pair: %s", result.reason)
        else:
            yield keys[file.name], result


def content_keys(
    images: Sequence[ImageRecord], runtime: Runtime
) -> tuple[dict[str, ItemKey], dict[str, str]]:
    """Item keys of images (name and hash of the bytes now on disk), and those that cannot be read."""

    def key_of(image: ImageRecord) -> ItemKey | DataError:
        try:
            return ItemKey(image.name, content_hash(image.path, image.mask))
        except DataError as error:
            return error

    with ThreadPoolExecutor(runtime.num_workers) as threads:
        found = list(threads.map(key_of, images))
    keys, skipped = {}, {}
    for image, key in zip(images, found, strict=True):
        if isinstance(key, DataError):
            skipped[image.name] = key.message
        else:
            keys[image.name] = key
    return keys, skipped


def feature_fields(plugin: ResolvedPlugin) -> dict[str, Any]:
    """What the fingerprint of a feature store covers."""
    return {"kind": "features", "stage": STAGE_VERSION, **plugin.fingerprint_fields()}


def global_fields(plugin: ResolvedPlugin, features: Features | None, state: Path | None) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": "globals", "stage": STAGE_VERSION, **plugin.fingerprint_fields()}
    if plugin.cls.source == "features" and features is not None:
        fields["features"] = features.store.folder.name
    if state is not None:
        fields["fit"] = state.name
    return fields


def features_folder(plugin: ResolvedPlugin, workdir: Path) -> Path:
    return workdir / "features" / f"{folder_name(plugin.name)}-{fingerprint(feature_fields(plugin))}"


def folder_name(plugin_name: str) -> str:
    """A plug-in's name as part of a folder's: ``package.module:Class`` has a colon.

    >>> folder_name("my.package:Corner")
    'my.package_Corner'
    """
    return re.sub(r"[^\w.-]", "_", plugin_name)
