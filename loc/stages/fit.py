"""Stage *fit*: what a plug-in learns from the database images (codebook, PCA)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from loc.errors import DataError, PluginError, StoreError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.pictures import Pictures
from loc.stages.artefacts import Features
from loc.stores.files import writing
from loc.stores.fingerprint import fingerprint
from loc.stores.parts import ItemKey
from loc.stores.products import check_product, make_product
from loc.types import LocalFeatures

STAGE_VERSION = 1
_STATE = "state.npz"


def fit_state(
    features: Features,
    names: Sequence[str],
    *,
    plugin: ResolvedPlugin,
    workdir: Path,
    pictures: Pictures | None = None,
    device: str = "cpu",
) -> Path:
    """Fit ``plugin`` on the images ``names`` and return the folder of the fitted state.

    Args:
        pictures: the same images in pixels, for a plug-in that describes those.
        device: where such a plug-in computes.

    Raises:
        DataError: none of the images has features to learn from.
    """
    keys = [features.keys[name] for name in sorted(names) if name in features.keys]
    if pictures is None and not any(features.store.count(key) for key in keys):
        raise DataError(
            f"{plugin.name} has nothing to learn from: none of {len(names)} database images has keypoints",
            "check that the photos can be read and are not blank: loc extract --json",
        )
    fields = _fields(features, keys, plugin)

    def build(folder: Path) -> None:
        state = plugin.build(device=device).fit(pictures or _Inputs(features, keys))
        with writing(folder):
            np.savez(folder / _STATE, **dict(sorted(state.items())))

    folder = fit_folder(features, names, plugin=plugin, workdir=workdir)
    return make_product(folder, {**fields, "items": len(keys)}, build)


def fit_folder(features: Features, names: Sequence[str], *, plugin: ResolvedPlugin, workdir: Path) -> Path:
    """Where :func:`fit_state` puts the state of the same arguments."""
    keys = [features.keys[name] for name in sorted(names) if name in features.keys]
    name = plugin.name.replace(":", "_")
    return workdir / "fits" / f"{name}-{fingerprint(_fields(features, keys, plugin))}"


def _fields(features: Features, keys: Sequence[ItemKey], plugin: ResolvedPlugin) -> dict[str, Any]:
    described = {"features": features.store.folder.name} if plugin.cls.source == "features" else {}
    return {
        "kind": "fit",
        "stage": STAGE_VERSION,
        **plugin.fingerprint_fields(),
        **described,
        "items": [list(key) for key in keys],
    }


class _Inputs:
    """The features of some images, one at a time; may be read more than once."""

    def __init__(self, features: Features, keys: Sequence[ItemKey]) -> None:
        self._features = features
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[LocalFeatures]:
        return (self._features.store.get(key) for key in self._keys)


def load_fitted(plugin: ResolvedPlugin, state: Path | None, *, device: str = "cpu") -> Any:
    """The plug-in, with its fitted state if it needs one."""
    instance = plugin.build(device=device)
    if plugin.needs_fit:
        if state is None:
            raise PluginError(f"{plugin.name} needs to be fitted first", "run the stage globals")
        check_product(state)
        try:
            with np.load(state / _STATE, allow_pickle=False) as arrays:
                instance.load_state(dict(arrays))
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(
                f"the fit {state} is damaged: {error}", f"delete the folder {state} and run again"
            ) from error
    return instance
