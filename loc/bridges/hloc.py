"""Our plug-ins inside an installed hloc, by name and without a fork.

>>> import loc.bridges.hloc                                    # doctest: +SKIP
>>> loc.bridges.hloc.register()                                # doctest: +SKIP
>>> conf = {"output": "feats-d2net-ms", "model": {"name": "loc_d2net_ms"},
...         "preprocessing": {"grayscale": False, "resize_max": 1600}}
>>> hloc.extract_features.main(conf, images, outputs)          # doctest: +SKIP

Every extractor, global extractor and matcher (and every preset) is called ``loc_<name>`` there; options go
beside ``name``. A global extractor with the name of a local one is ``loc_<name>_global``. hloc looks for
exactly one class in a module ``hloc.<kind>.<name>``: such modules are made here and put where Python's import
looks first.

hloc has no stage that learns from the database, so a global descriptor that does (``loc_vlad``) is told what
to learn from: ``{"name": "loc_vlad", "database": "images/db", "features": "sift"}``.
"""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.bridges.hloc_models import shown
from loc.conventions import center_from_corner, corner_from_center
from loc.errors import ConfigError, DataError, LocError, PluginError
from loc.plugins.blocks import SECTIONS, ResolvedPlugin, presets, resolve_block
from loc.plugins.registry import list_plugins, load_plugin
from loc.runtime.extraction import PhotoFile, extract_many
from loc.runtime.images import list_photos
from loc.runtime.pictures import Pictures
from loc.runtime.runtime import Runtime
from loc.types import Array, LocalFeatures

#: Section of our config → package of hloc.
_PACKAGES = {"features": "extractors", "globals": "extractors", "matcher": "matchers"}
_OWN = ("hloc", "imported")
#: Photos that a global descriptor learns from at most, spread over the database.
_LEARN_FROM = 200


def register(prefix: str = "loc_") -> list[str]:
    """Make our plug-ins known to hloc; returns their names there, sorted.

    Plug-ins that cannot be imported are left out, and so are matchers of images: hloc has another place
    for those.

    Raises:
        PluginError: hloc is not installed.
    """
    try:
        from hloc.utils.base_model import BaseModel
    except ImportError as error:
        raise PluginError(
            f"hloc cannot be imported: {error}",
            "pip install git+https://github.com/cvg/Hierarchical-Localization",
        ) from error
    names: list[str] = []
    for section, kind in SECTIONS.items():
        package = f"hloc.{_PACKAGES[section]}"
        registered = [info.name for info in list_plugins(kind) if _usable(kind, info.name)]
        for name in [*registered, *(each for each in presets(section) if each not in _OWN)]:
            # Local and global features are one package there: the second of a name says which it is.
            called = f"{prefix}{name}_{kind}" if f"{prefix}{name}" in names else f"{prefix}{name}"
            module = types.ModuleType(f"{package}.{called}")
            made = _model_class(BaseModel, section, name)
            made.__module__ = module.__name__
            setattr(module, made.__name__, made)
            sys.modules[module.__name__] = module
            names.append(called)
    return sorted(names)


def _usable(kind: Any, name: str) -> bool:
    if name in _OWN:
        return False
    try:
        cls = load_plugin(kind, name)
    except LocError:
        return False
    return not (kind == "matcher" and "images" in cls.requires)


def _model_class(base: Any, section: str, name: str) -> Any:
    """A class of hloc's protocol around one plug-in."""
    kinds: dict[str, Any] = {"features": _Extractor, "globals": _Global, "matcher": _Matcher}
    made = kinds[section]

    def _init(self: Any, conf: dict[str, Any]) -> None:
        # hloc leaves `name` in the conf.
        self.ours = made(name, {key: value for key, value in dict(conf).items() if key != "name"})
        self.detection_noise = self.ours.noise_px

    def _forward(self: Any, data: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = self.ours(data)
        return out

    body = {
        "default_conf": {},
        "required_inputs": list(made.inputs),
        "_init": _init,
        "_forward": _forward,
    }
    return type("Loc" + name.title().replace("_", ""), (base,), body)


class _Extractor:
    """An extractor of ours as hloc calls one."""

    inputs = ("image",)

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self.plugin = _ready("features", name, options)
        self.noise_px = float(getattr(self.plugin.cls, "noise_px", 1.0))
        self._built: Any = None

    def features(self, image: Any) -> LocalFeatures:
        """Features of hloc's ``(1, c, h, w)`` image, px of that image, corner origin."""
        if self._built is None:
            self._built = self.plugin.build(device=str(image.device))
        height, width = image.shape[2:]
        if min(height, width) < self.plugin.cls.min_side:
            none = np.zeros(0, np.float32)
            return LocalFeatures(none.reshape(0, 2), none, none.reshape(0, 0), (width, height))
        image = _in_color(image, self.plugin.cls.color)
        given = image.cpu().numpy() if self.plugin.cls.parallel == "process" else image
        found: LocalFeatures
        (found,) = self._built(given)
        if self.plugin.cls.pixel_origin == "corner":
            return found
        return replace(found, keypoints=corner_from_center(found.keypoints).astype(np.float32))

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        found = self.features(data["image"])
        arrays = {
            "keypoints": center_from_corner(found.keypoints),
            "scores": found.scores,
            "descriptors": _as_float(found.descriptors).T,
        }
        if found.scales is not None:
            arrays["scales"] = found.scales
        if found.orientations_rad is not None:
            arrays["oris"] = np.rad2deg(found.orientations_rad)
        return _tensors(arrays, data["image"].device)


class _Global:
    """A global extractor of ours as hloc calls one; what it learns from the database, it learns here."""

    inputs = ("image",)
    noise_px = 1.0

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        database, features = options.pop("database", None), options.pop("features", "sift")
        self._plugin = _ready("globals", name, options)
        if self._plugin.own_ranking is not None:
            raise ConfigError(
                f"{name} ranks images by visual words, and hloc compares vectors",
                "use a global extractor with vectors, e.g. loc_vlad",
            )
        self._extractor = None
        if self._plugin.cls.source == "features":
            block = {"use": features} if isinstance(features, str) else dict(features)
            self._extractor = _Extractor(block.pop("use"), block)
        if self._plugin.needs_fit and database is None:
            raise ConfigError(
                f"{name} learns from the database, and hloc does not say which images that is",
                f'add its folder: {{"name": "loc_{name}", "database": "images/db"}}',
            )
        self._database = None if database is None else Path(database)
        self._built: Any = None

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        image = data["image"]
        if self._built is None:
            self._built = self._plugin.build(device=str(image.device))
            if self._plugin.needs_fit:
                self._built.load_state(self._built.fit(self._learned_from(str(image.device))))
        given: Any = _in_color(image, self._plugin.cls.color)
        if self._extractor is not None:
            given = [self._extractor.features(image)]
        return _tensors({"global_descriptor": np.asarray(self._built(given))[0]}, image.device)

    def _learned_from(self, device: str) -> list[LocalFeatures] | Pictures:
        """Features, or pixels, of photos spread over the database, in order of their names."""
        root = self._database
        names = list_photos(root) if root is not None and root.is_dir() else []
        if not names or root is None:
            raise DataError(f"{root} holds no photos to learn from", "give the folder of the database images")
        step = -(-len(names) // _LEARN_FROM)
        files = [PhotoFile(name, root / name) for name in names[::step]]
        if self._extractor is None:
            return Pictures(self._plugin, files)
        # In this process: a script without a main guard cannot start others.
        results = extract_many(self._extractor.plugin, files, runtime=Runtime(device=device, workers=1))
        found = {file.name: result for file, result in results}
        return [found[name] for name in sorted(found) if isinstance(found[name], LocalFeatures)]


class _Matcher:
    """A matcher of ours as hloc calls one."""

    inputs = ("keypoints0", "keypoints1", "descriptors0", "descriptors1", "image0", "image1")
    noise_px = 1.0

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self._plugin = _ready("matcher", name, options)
        self._built: Any = None

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        device = data["descriptors0"].device
        if self._built is None:
            self._built = self._plugin.build(device=str(device))
        first, second = (self._built.prepare(_features(data, side)) for side in (0, 1))
        (found,) = self._built([(first, second)])
        count = data["descriptors0"].shape[2]
        matches, scores = np.full(count, -1, np.int64), np.zeros(count, np.float32)
        matches[found.indices[:, 0]] = found.indices[:, 1]
        scores[found.indices[:, 0]] = found.scores
        return _tensors({"matches0": matches, "matching_scores0": scores}, device)


def _ready(section: str, name: str, options: dict[str, Any]) -> ResolvedPlugin:
    """A plug-in with its weights here, for the device that hloc will take."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return resolve_block(section, {"use": name, **options}).ready(lambda: device)


def _in_color(image: Any, color: str) -> Any:
    """``(1, c, h, w)`` in the number of channels that a plug-in is made for."""
    if color == "gray":
        return shown(image, grayscale=True)
    return image.expand(-1, 3, -1, -1)


def _features(data: dict[str, Any], side: int) -> LocalFeatures:
    """What hloc stores of an image; of its size it passes the shape of an empty tensor."""

    def stored(key: str) -> Array | None:
        value = data.get(f"{key}{side}")
        return None if value is None else np.ascontiguousarray(value[0].float().cpu().numpy())

    height, width = data[f"image{side}"].shape[2:]
    descriptors = data[f"descriptors{side}"][0].T.float().cpu().numpy()
    keypoints = data[f"keypoints{side}"][0].float().cpu().numpy()
    scores = stored("scores")
    scores = stored("keypoint_scores") if scores is None else scores  # hloc's DISK and ALIKED
    oris = stored("oris")
    return LocalFeatures(
        keypoints=corner_from_center(keypoints).astype(np.float32),
        scores=np.ones(len(descriptors), np.float32) if scores is None else scores,
        descriptors=np.ascontiguousarray(descriptors),
        image_wh=(int(width), int(height)),
        scales=stored("scales"),
        orientations_rad=None if oris is None else np.deg2rad(oris),
    )


def _as_float(descriptors: Array) -> Array:
    """Unit float rows: ours may be uint8 with 512 for one."""
    rows = np.asarray(descriptors, np.float32)
    if descriptors.dtype != np.uint8 or not len(rows):
        return rows
    unit: Array = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
    return unit


def _tensors(arrays: dict[str, Array], device: Any) -> dict[str, Any]:
    """Arrays as a batch of one: hloc takes item 0 of everything."""
    import torch

    out = {}
    for key, value in arrays.items():
        kept = value if value.dtype == np.int64 else value.astype(np.float32)
        out[key] = torch.from_numpy(np.array(kept, order="C"))[None].to(device)
    return out
