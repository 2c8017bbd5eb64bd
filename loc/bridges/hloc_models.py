"""Models written for hloc or a fork of it, as plug-ins: ``use: hloc, model: hloc.extractors.superpoint``.

hloc's protocol (its ``utils/base_model.py``): a module holds exactly one class, constructed with a dict and
called with a dict of tensors of batch 1; it states what it reads in ``required_inputs``. The class is taken
by what it does, not by what it inherits from, since forks have base classes of their own.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from loc.conventions import PixelOrigin, center_from_corner
from loc.errors import ContractError, PluginError
from loc.plugins.protocols import PluginConfig, WeightFile
from loc.types import Array, LocalFeatures, Matches

if TYPE_CHECKING:
    import torch

_LICENCE = "that of the model: hloc does not state one"
_PAPER = "P.-E. Sarlin et al., From Coarse to Fine, CVPR 2019 (hloc); see the model for its own"


class HlocConfig(PluginConfig):
    """Which model, and its ``conf`` as in hloc."""

    model: str = Field("", description="module with one class, e.g. hloc.extractors.superpoint")
    conf: dict[str, Any] = Field(
        default_factory=dict, description="the model's options, as in hloc's presets"
    )


class HlocImageConfig(HlocConfig):
    """… of a model that looks at an image."""

    grayscale: bool = Field(False, description="show the model grey images (hloc: preprocessing.grayscale)")


class HlocExtractorConfig(HlocImageConfig):
    """… and finds keypoints in it."""

    keypoint_origin: PixelOrigin = Field(
        "center",
        description="the model's (0, 0): in hloc the centre of the first pixel; but on pycolmap 4 its `dog`"
        " has COLMAP's corner",
    )


def load_model(config: HlocConfig, device: str) -> Any:
    """The model of a configuration, on a device, in evaluation mode.

    Raises:
        PluginError: the module cannot be imported, or does not hold exactly one such class.
    """
    if not config.model:
        raise PluginError(
            "plug-in hloc needs `model:`, the module of a model",
            "for example model: hloc.extractors.superpoint",
        )
    try:
        module = importlib.import_module(config.model)
    except ImportError as error:
        raise PluginError(f"cannot import {config.model}: {error}", _remedy(config.model, error)) from error
    except (SyntaxError, TypeError, ValueError) as error:  # of the file; of a name that begins with a dot
        raise PluginError(
            f"cannot import {config.model}: {error}", f"check it: python -c 'import {config.model}'"
        ) from error
    classes: list[Any] = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if each.__module__ == module.__name__ and hasattr(each, "default_conf") and callable(each)
    ]
    if len(classes) != 1:
        names = ", ".join(each.__name__ for each in classes) or "none"
        raise PluginError(
            f"{config.model} must hold exactly one model class, it holds {names}",
            "a model is a class with default_conf, _init and _forward, as in hloc",
        )
    # A copy: some models change the conf they are given. hloc leaves `name` in it.
    model = classes[0]({"name": config.model.rpartition(".")[2], **copy.deepcopy(config.conf)})
    return model.eval().to(device)


def _remedy(model: str, error: ImportError) -> str:
    """What to install: the package itself, the right name in it, or what its module imports."""
    package, missing = model.partition(".")[0], error.name or ""
    if missing == package == "hloc":
        return "install hloc beside loc: pip install git+https://github.com/cvg/Hierarchical-Localization"
    if missing.partition(".")[0] == package:
        return f"check the name of the module: python -c 'import {model}'"
    owner = missing.partition(".")[0]
    if owner in sys.modules:
        return f"{model} was written for another version of {owner}"
    return (
        f"{package} is here, what this model imports is not: install {owner or 'it'}"
        "; hloc has some of it in third_party, of a clone with --recursive"
    )


class HlocExtractor:
    """Local features of a model of hloc's protocol."""

    Config: ClassVar[type[HlocExtractorConfig]] = HlocExtractorConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    pixel_origin: ClassVar[PixelOrigin] = "center"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    parallel: ClassVar[Literal["batch", "process"]] = "batch"
    min_side: ClassVar[int] = 32
    ranked: ClassVar[bool] = False

    def __init__(self, config: HlocExtractorConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._model = load_model(config, device)

    def __call__(self, images: torch.Tensor) -> list[LocalFeatures]:
        """Features of ``(b, 3, h, w)`` float RGB in [0, 1]; hloc's models take one image at a time."""
        return [self._one(image[None]) for image in images]

    def _one(self, image: torch.Tensor) -> LocalFeatures:
        found = _run(self._model, {"image": shown(image, grayscale=self.config.grayscale)})
        missing = sorted({"keypoints", "descriptors"} - set(found))
        if missing:
            raise ContractError(
                f"{self.config.model} returned no {', '.join(missing)}",
                f"it returned: {', '.join(sorted(found))}",
            )
        keypoints = np.ascontiguousarray(found["keypoints"][:, :2], np.float32)
        if self.config.keypoint_origin == "corner":
            keypoints = center_from_corner(keypoints)
        scores = found.get("scores", found.get("keypoint_scores"))
        return LocalFeatures(
            keypoints=keypoints,
            scores=np.ones(len(keypoints), np.float32) if scores is None else scores.astype(np.float32),
            descriptors=np.ascontiguousarray(found["descriptors"].T, np.float32),
            image_wh=(image.shape[3], image.shape[2]),
            scales=_optional(found.get("scales")),
            orientations_rad=_optional(found.get("oris"), factor=float(np.pi / 180)),
            noise_px=float(getattr(self._model, "detection_noise", 1.0)),
        )


class HlocGlobal:
    """Global descriptors of a model of hloc's protocol."""

    Config: ClassVar[type[HlocImageConfig]] = HlocImageConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    source: ClassVar[Literal["image", "features"]] = "image"
    color: ClassVar[Literal["rgb", "gray"]] = "rgb"
    min_side: ClassVar[int] = 32
    needs_fit: ClassVar[bool] = False

    def __init__(self, config: HlocImageConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._model = load_model(config, device)

    def __call__(self, images: torch.Tensor) -> Array:
        """``(b, d)`` float32 unit rows of ``(b, 3, h, w)``."""
        rows = []
        for image in images:
            found = _run(self._model, {"image": shown(image[None], grayscale=self.config.grayscale)})
            if "global_descriptor" not in found:
                raise ContractError(
                    f"{self.config.model} returned no global_descriptor",
                    "a local feature of hloc goes into `features:`, not into `globals:`",
                )
            rows.append(found["global_descriptor"].astype(np.float32))
        stacked = np.stack(rows)
        norms = np.linalg.norm(stacked, axis=1, keepdims=True)
        return stacked / np.where(norms > 0, norms, 1)


class _Prepared(NamedTuple):
    tensors: dict[str, torch.Tensor]  # as hloc stores them, batch 1, float32
    image_wh: tuple[int, int]


class HlocMatcher:
    """Matches of a model of hloc's protocol."""

    Config: ClassVar[type[HlocConfig]] = HlocConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = _LICENCE
    paper: ClassVar[str] = _PAPER
    weights: ClassVar[tuple[WeightFile, ...]] = ()
    requires: ClassVar[frozenset[str]] = frozenset({"keypoints", "scores", "descriptors"})

    def __init__(self, config: HlocConfig, *, device: str = "cpu", dtype: str = "float32") -> None:  # noqa: ARG002
        self.config = config
        self._device = device
        self._model = load_model(config, device)

    def prepare(self, features: LocalFeatures) -> _Prepared:
        """One image's features in hloc's form."""
        import torch

        arrays: dict[str, Array] = {
            "keypoints": center_from_corner(features.keypoints),
            "scores": features.scores,
            "descriptors": features.descriptors.T,
            "image_size": np.asarray(features.image_wh),
        }
        if features.scales is not None:
            arrays["scales"] = features.scales
        if features.orientations_rad is not None:
            arrays["oris"] = np.rad2deg(features.orientations_rad)
        tensors = {
            key: torch.from_numpy(np.array(value, np.float32))[None].to(self._device)
            for key, value in arrays.items()
        }
        return _Prepared(tensors, features.image_wh)

    def __call__(self, pairs: Sequence[tuple[_Prepared, _Prepared]]) -> list[Matches]:
        """One :class:`Matches` per pair."""
        return [self._match(first, second) for first, second in pairs]

    def _match(self, first: _Prepared, second: _Prepared) -> Matches:
        import torch

        data: dict[str, torch.Tensor] = {}
        for side, each in enumerate((first, second)):
            data |= {f"{key}{side}": value for key, value in each.tensors.items()}
            width, height = each.image_wh
            data[f"image{side}"] = torch.empty((1, 1, height, width))  # hloc: for its shape only
        if not first.tensors["keypoints"].shape[1] or not second.tensors["keypoints"].shape[1]:
            return Matches.empty()
        found = _run(self._model, data)
        if "matches0" not in found:
            raise ContractError(
                f"{self.config.model} returned no matches0", f"it returned: {', '.join(sorted(found))}"
            )
        partner = found["matches0"].astype(np.int64)
        rows = np.flatnonzero(partner >= 0)
        scores = found.get("matching_scores0")
        kept = np.ones(len(rows), np.float32) if scores is None else scores[rows].astype(np.float32)
        return Matches(np.stack([rows, partner[rows]], 1).astype(np.int32), kept.clip(0, 1))


def shown(image: torch.Tensor, *, grayscale: bool) -> torch.Tensor:
    """``(1, 3, h, w)`` or, by ITU-R BT.601 as in OpenCV, ``(1, 1, h, w)``."""
    if not grayscale or image.shape[1] == 1:
        return image
    weights = image.new_tensor((0.299, 0.587, 0.114)).view(3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def _run(model: Any, data: dict[str, Any]) -> dict[str, Array]:
    """Call a model and take the one item of its batch; what has no items (a count of layers) is left out."""
    import torch

    with torch.inference_mode():
        found = model(data)
    if not isinstance(found, Mapping):
        raise ContractError(
            f"{type(model).__name__} returned {type(found).__name__}, not a dict of arrays",
            "a model of hloc's protocol returns one from _forward",
        )
    items = {
        key: value[0]
        for key, value in found.items()
        if isinstance(value, list | tuple | torch.Tensor | np.ndarray) and len(value)
    }
    return {
        key: item.float().cpu().numpy() if isinstance(item, torch.Tensor) else np.asarray(item)
        for key, item in items.items()
    }


def _optional(values: Array | None, factor: float = 1.0) -> Array | None:
    return None if values is None else (values * factor).astype(np.float32)
