"""Before stage *features*: what an extractor learns from the database images (a PCA of its descriptors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.plugins.blocks import STATE, ResolvedPlugin
from loc.runtime.extraction import PhotoFile, extract_many
from loc.runtime.runtime import Runtime
from loc.stages.extract import content_keys, folder_name
from loc.stores.files import writing
from loc.stores.fingerprint import fingerprint
from loc.stores.products import check_product, make_product
from loc.types import ImageRecord, LocalFeatures

STAGE_VERSION = 1
#: A PCA of some hundred values is settled by far fewer photos than a map has.
_MOST_IMAGES = 64


def fitted_extractor(
    plugin: ResolvedPlugin, images: Sequence[ImageRecord], *, workdir: Path, runtime: Runtime
) -> ResolvedPlugin:
    """The extractor with what it learns from ``images``; most learn nothing and stay as they are.

    Args:
        images: of the database; never a query, so that a new query changes nothing of the map.

    Raises:
        DataError: the images give too little to learn from.
    """
    planned = planned_extractor(plugin, images, workdir=workdir, runtime=runtime)
    if planned.state is None:
        return plugin
    chosen = _chosen(images)

    def build(folder: Path) -> None:
        files = [PhotoFile(image.name, image.path, image.mask) for image in chosen]
        found: dict[str, LocalFeatures] = {}
        for file, result in runtime.track(
            extract_many(plugin, files, runtime=runtime), f"fit {plugin.name}", len(files)
        ):
            if isinstance(result, LocalFeatures):
                found[file.name] = result
        state = plugin.build().fit([found[name] for name in sorted(found)])
        with writing(folder):
            np.savez(folder / STATE, **dict(sorted(state.items())))

    make_product(planned.state, {**_fields(plugin, chosen, runtime), "images": len(chosen)}, build)
    check_product(planned.state)
    return planned


def planned_extractor(
    plugin: ResolvedPlugin, images: Sequence[ImageRecord], *, workdir: Path, runtime: Runtime
) -> ResolvedPlugin:
    """The extractor with the place of what :func:`fitted_extractor` would make, there or not."""
    if not plugin.needs_fit:
        return plugin
    fields = _fields(plugin, _chosen(images), runtime)
    return replace(plugin, state=workdir / "fits" / f"{folder_name(plugin.name)}-{fingerprint(fields)}")


def _chosen(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Evenly spaced in the order of their names."""
    ordered = sorted(images, key=lambda image: image.name)
    count = min(len(ordered), _MOST_IMAGES)
    return [ordered[index * len(ordered) // count] for index in range(count)]


def _fields(plugin: ResolvedPlugin, chosen: Sequence[ImageRecord], runtime: Runtime) -> dict[str, Any]:
    keys, _ = content_keys(chosen, runtime)
    return {
        "kind": "fit",
        "stage": STAGE_VERSION,
        **plugin.fingerprint_fields(),
        "items": [list(keys[name]) for name in sorted(keys)],
    }
