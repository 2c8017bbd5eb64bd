"""Regions of an image whose local features are aggregated apart: given boxes, a detector's, R-MAC's grid.

A region's features are those of the whole image that lie in it; Detect-to-Retrieve (Teichmann et al., CVPR
2019) describes each crop anew. Queries have no regions there and here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64, UInt8
from pydantic import Field, model_validator

from loc.conventions import stored_from_upright_xy
from loc.errors import ConfigError, DataError, PluginError
from loc.nets.pooling import rmac_grid
from loc.plugins.protocols import PluginConfig
from loc.runtime.images import content_hash, image_header, read_photo
from loc.types import LocalFeatures
from loc.weights.tensorflow.boxes import ENDING
from loc.weights.tensorflow.boxes import read_boxes as read_boxes_file

Array = np.ndarray
#: Boxes of a photo by its name and file: ``(r, 4)`` x1 y1 x2 y2, px of the stored photo, corner origin.
BoxFinder = Callable[[str, Path], Float32[Array, "r 4"]]


@runtime_checkable
class BoxDetector(Protocol):
    """What ``regions: detector`` calls; named as ``package.module:Class`` and built without arguments.

    It gets an upright RGB photo and returns boxes ``(r, 4)`` x1 y1 x2 y2 in px of it (corner origin), and
    their scores ``(r,)``. ``version`` is raised when its boxes change.
    """

    version: int

    def __call__(self, photo: UInt8[Array, "h w 3"]) -> tuple[Array, Array]: ...


class RegionsConfig(PluginConfig):
    """Options of plug-ins that aggregate regions."""

    regions: Literal["none", "rmac", "boxes", "detector"] = Field(
        "none", description="of database images besides the whole: the grid of R-MAC, a list, a detector's"
    )
    levels: int = Field(2, ge=1, le=8, description="rmac: sizes of regions")
    boxes: Path | None = Field(
        None,
        description="boxes: list 'name x1 y1 x2 y2', px of the stored photo, or folder of DELF's NAME.boxes",
    )
    detector: str | None = Field(None, description="detector: package.module:Class")
    min_box_score: float = Field(0.1, description="detector, .boxes: those with a lower score are left out")

    @model_validator(mode="after")
    def _has_its_source(self) -> RegionsConfig:
        for name in ("boxes", "detector"):
            if (self.regions == name) != (getattr(self, name) is not None):
                raise ValueError(f"regions: {name} and {name}: … go together")
        return self


@dataclass(frozen=True)
class BoxedFeatures(LocalFeatures):
    """Local features of an image and boxes of it, px of the stored photo, corner origin."""

    boxes: Float32[Array, "r 4"] | None = None


def with_boxes(features: LocalFeatures, boxes: Float32[Array, "r 4"]) -> BoxedFeatures:
    """The same features, and where the regions are."""
    kept = {each.name: getattr(features, each.name) for each in fields(LocalFeatures)}
    return BoxedFeatures(**kept, boxes=boxes)


def box_finder(config: RegionsConfig) -> BoxFinder | None:
    """What finds the boxes that features do not say themselves; None where there are none to find.

    Raises:
        DataError: the list of boxes cannot be read, or the folder has no files of boxes.
        ConfigError, PluginError: there is no such detector.
    """
    if config.boxes is not None and config.boxes.is_dir():
        files, least = _files_of(config.boxes), config.min_box_score
        return lambda name, path: _in_file(files.get(_without_suffix(name)), path, least)
    if config.boxes is not None:
        listed = read_boxes(config.boxes)
        nothing = np.zeros((0, 4), np.float32)
        return lambda name, _: listed.get(name, nothing)
    if config.detector is not None:
        detector, least = _detector(config.detector), config.min_box_score
        return lambda name, path: _detected(detector, name, path, least)
    return None


def source_of_boxes(config: RegionsConfig) -> dict[str, Any]:
    """What a fingerprint says of it: content of the list or files, version of the detector."""
    if config.boxes is not None and config.boxes.is_dir():
        files = _files_of(config.boxes)
        return {"boxes": [[name, content_hash(path)] for name, path in files.items()]}
    if config.boxes is not None:
        return {"boxes": content_hash(config.boxes)}
    if config.detector is not None:
        return {"detector": int(_detector(config.detector).version)}
    return {}


def read_boxes(path: Path) -> dict[str, Float32[Array, "r 4"]]:
    """Boxes by name of a list ``name x1 y1 x2 y2``; names may hold spaces, ``#`` starts a comment line.

    Raises:
        DataError: it cannot be read, or a line is no box.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the boxes {path}: {error}", "check regions' option boxes") from error
    found: dict[str, list[list[float]]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *sides = line.rsplit(maxsplit=4)
        try:
            box = [float(side) for side in sides]
        except ValueError:
            box = []
        if len(box) != 4 or not np.isfinite(box).all() or box[0] >= box[2] or box[1] >= box[3]:
            raise DataError(
                f"{path}:{number}: {line!r} is no box", "write 'name x1 y1 x2 y2' with x1 < x2 and y1 < y2"
            )
        found.setdefault(name, []).append(box)
    return {name: np.array(boxes, np.float32) for name, boxes in found.items()}


def _files_of(folder: Path) -> dict[str, Path]:
    """DELF's files of boxes below a folder, by the photo's name without its ending."""
    found = {
        _without_suffix(path.relative_to(folder).as_posix()): path
        for path in sorted(folder.rglob(f"*{ENDING}"))
    }
    if not found:
        raise DataError(
            f"the folder {folder} has no {ENDING} files", f"db/1.jpg has its boxes in {folder}/db/1{ENDING}"
        )
    return found


def _without_suffix(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _in_file(file: Path | None, photo: Path, least: float) -> Float32[Array, "r 4"]:
    """Boxes of a file of DELF's in px of the stored photo; none without a file."""
    if file is None:
        return np.zeros((0, 4), np.float32)
    found = read_boxes_file(file)
    width, height = image_header(photo)[0]
    kept = found.boxes[found.scores >= least][:, [1, 0, 3, 2]]
    return kept * np.array([width, height, width, height], np.float32)


def inside_each(
    features: LocalFeatures, rows: Int64[Array, " n"], config: RegionsConfig
) -> list[Int64[Array, " _"]]:
    """For each region, which of ``rows`` (of the features) lie in it, as numbers into ``rows``.

    A region counts though nothing lies in it. Upper and left sides belong to a box, the others do not.
    """
    if config.regions == "rmac":
        width, height = features.image_wh
        grid = np.array(rmac_grid(height, width, config.levels), np.float32).reshape(-1, 3)
        boxes = np.column_stack([grid[:, 1], grid[:, 0], grid[:, 1] + grid[:, 2], grid[:, 0] + grid[:, 2]])
    else:
        given = getattr(features, "boxes", None)
        boxes = np.zeros((0, 4), np.float32) if given is None else given
    xy = features.keypoints[rows]
    return [np.flatnonzero(((xy >= box[:2]) & (xy < box[2:])).all(axis=1)).astype(np.int64) for box in boxes]


def _detector(target: str) -> BoxDetector:
    module, _, name = target.partition(":")
    try:
        detector: BoxDetector = getattr(import_module(module), name)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"no box detector is called {target!r}: {error}",
            "give package.module:Class, which takes no argument",
        ) from error
    if not isinstance(getattr(detector, "version", None), int):
        raise PluginError(f"the box detector {target} has no version", "add `version = 1` to its class")
    return detector


def _detected(detector: BoxDetector, name: str, path: Path, least: float) -> Float32[Array, "r 4"]:
    photo = read_photo(path, color="rgb")
    boxes, scores = (np.asarray(each, np.float32) for each in detector(photo.pixels))
    if boxes.ndim != 2 or boxes.shape[1:] != (4,) or scores.shape != boxes.shape[:1]:
        raise PluginError(
            f"the box detector gives boxes {boxes.shape} and scores {scores.shape} for {name}",
            "return arrays (r, 4) x1 y1 x2 y2 and (r,)",
        )
    corners = stored_from_upright_xy(
        boxes[scores >= least].reshape(-1, 2),
        stored_wh=photo.stored_wh,
        exif_orientation=photo.exif_orientation,
    ).reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
