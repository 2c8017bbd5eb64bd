"""Our plug-ins inside an installed hloc, by name and without a fork.

>>> import loc.bridges.hloc                                    # doctest: +SKIP
>>> loc.bridges.hloc.register()                                # doctest: +SKIP
>>> conf = {"output": "feats-d2net-ms", "model": {"name": "loc_d2net_ms"},
...         "preprocessing": {"grayscale": False, "resize_max": 1600}}
>>> hloc.extract_features.main(conf, images, outputs)          # doctest: +SKIP

Every extractor, global extractor and matcher (and every preset) is called ``loc_<name>`` there; options go
beside ``name``. hloc looks for exactly one class in a module ``hloc.<kind>.<name>``: such modules are made
here and put where Python's import looks first.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np

from loc.conventions import center_from_corner, corner_from_center
from loc.errors import LocError, PluginError
from loc.plugins.blocks import SECTIONS, ResolvedPlugin, presets, resolve_block
from loc.plugins.registry import list_plugins, load_plugin
from loc.types import LocalFeatures

#: Section of our config → package of hloc.
_PACKAGES = {"features": "extractors", "globals": "extractors", "matcher": "matchers"}
_OWN = ("hloc", "imported")


def register(prefix: str = "loc_") -> list[str]:
    """Make our plug-ins known to hloc; returns their names there, sorted.

    Plug-ins that cannot be imported are left out, and so are global extractors that learn from the
    database: hloc has no place for that.

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
    names = []
    for section, kind in SECTIONS.items():
        package = f"hloc.{_PACKAGES[section]}"
        registered = [info.name for info in list_plugins(kind) if _usable(kind, info.name)]
        for name in [*registered, *(each for each in presets(section) if each not in _OWN)]:
            module = types.ModuleType(f"{package}.{prefix}{name}")
            made = _model_class(BaseModel, section, name)
            made.__module__ = module.__name__
            setattr(module, made.__name__, made)
            sys.modules[module.__name__] = module
            names.append(f"{prefix}{name}")
    return sorted(names)


def _usable(kind: Any, name: str) -> bool:
    if name in _OWN:
        return False
    try:
        cls = load_plugin(kind, name)
    except LocError:
        return False
    return not (kind == "global" and (cls.needs_fit or cls.source != "image"))


def _model_class(base: Any, section: str, name: str) -> Any:
    """A class of hloc's protocol around one plug-in."""
    run = {"features": _extract, "globals": _describe, "matcher": _match}[section]

    def _init(self: Any, conf: dict[str, Any]) -> None:
        # hloc leaves `name` in the conf.
        options = {key: value for key, value in dict(conf).items() if key != "name"}
        self.plugin = resolve_block(section, {"use": name, **options}).ready(lambda: "cpu")
        self.built = None

    def _forward(self: Any, data: dict[str, Any]) -> dict[str, Any]:
        if self.built is None:  # hloc moves the model to its device after it was made
            self.built = self.plugin.build(device=str(next(iter(data.values())).device))
        return run(self.plugin, self.built, data)

    inputs = ["descriptors0", "descriptors1"] if section == "matcher" else ["image"]
    body = {
        "default_conf": {},
        "required_inputs": inputs,
        "_init": _init,
        "_forward": _forward,
    }
    return type("Loc" + name.title().replace("_", ""), (base,), body)


def _extract(plugin: ResolvedPlugin, built: Any, data: dict[str, Any]) -> dict[str, Any]:
    import torch

    image = data["image"]
    if plugin.cls.color == "gray" and image.shape[1] == 3:
        image = (image * image.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)).sum(1, keepdim=True)
    elif plugin.cls.color == "rgb" and image.shape[1] == 1:
        image = image.expand(-1, 3, -1, -1)
    shown = image.cpu().numpy() if plugin.cls.parallel == "process" else image
    (found,) = built(shown)
    keypoints = found.keypoints
    if plugin.cls.pixel_origin == "corner":
        keypoints = center_from_corner(keypoints)
    out = {
        "keypoints": torch.from_numpy(np.array(keypoints, np.float32))[None],
        "scores": torch.from_numpy(np.array(found.scores))[None],
        "descriptors": torch.from_numpy(_as_float(found.descriptors).T.copy())[None],
    }
    return {key: value.to(image.device) for key, value in out.items()}


def _describe(plugin: ResolvedPlugin, built: Any, data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    import torch

    rows = np.asarray(built(data["image"]), np.float32)
    return {"global_descriptor": torch.from_numpy(rows).to(data["image"].device)}


def _match(plugin: ResolvedPlugin, built: Any, data: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001
    import torch

    first, second = (built.prepare(_features(data, side)) for side in (0, 1))
    (found,) = built([(first, second)])
    count = data["descriptors0"].shape[2]
    matches, scores = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    matches[found.indices[:, 0]] = found.indices[:, 1]
    scores[found.indices[:, 0]] = found.scores
    out = {"matches0": torch.from_numpy(matches)[None], "matching_scores0": torch.from_numpy(scores)[None]}
    return {key: value.to(data["descriptors0"].device) for key, value in out.items()}


def _features(data: dict[str, Any], side: int) -> LocalFeatures:
    descriptors = data[f"descriptors{side}"][0].T.float().cpu().numpy()
    height, width = data[f"image{side}"].shape[2:]
    scores = data.get(f"scores{side}")
    keypoints = data[f"keypoints{side}"][0].float().cpu().numpy()
    return LocalFeatures(
        keypoints=corner_from_center(keypoints).astype(np.float32),
        scores=np.ones(len(descriptors), np.float32) if scores is None else scores[0].float().cpu().numpy(),
        descriptors=np.ascontiguousarray(descriptors),
        image_wh=(int(width), int(height)),
    )


def _as_float(descriptors: Any) -> Any:
    """Unit float rows: ours may be uint8 with 512 for one."""
    rows = np.asarray(descriptors, np.float32)
    if descriptors.dtype != np.uint8 or not len(rows):
        return rows
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)
