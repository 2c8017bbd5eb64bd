"""Methods on single pairs of photos by day and by night, judged by points that people annotated.

Matches that agree with *some* epipolar geometry prove little: on these pairs SIFT has twenty such inliers and
its geometry is a hundred pixels off. So the fundamental matrix is estimated from a method's matches, and what
counts is how far from it the annotated points of the scene lie.

Data: WxBS, D. Mishkin et al., BMVC 2015; ``pairs.csv`` and ``corrs.txt`` with lines ``x1 y1 x2 y2``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from loc.conventions import corner_from_center
from loc.errors import ConfigError, DataError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.extraction import PhotoFile, Skipped, extract_many
from loc.runtime.runtime import Runtime
from loc.sfm.twoview import fundamental_matrix
from loc.stages.learn import fitted_extractor
from loc.stores.files import write_atomically
from loc.types import ImageRecord, LocalFeatures

Array = np.ndarray
#: How the pairs by day and night are marked in ``pairs.csv``.
DAY_NIGHT = "day-night"
#: A pair is right if annotated points lie this near to the estimated epipolar lines, px of the shrunk photos.
WITHIN_PX = 12.0
MATCHES = "matches.npz"
#: With twenty good matches among three hundred an estimate is partly luck: the median of so many is judged.
_ESTIMATES = 9


@dataclass(frozen=True)
class AnnotatedPair:
    """Two photos and the points that people marked in both.

    Attributes:
        name: of the pair.
        photos: files under the set's folder.
        first, second: ``(n, 2)`` px of the stored photos, corner origin.
    """

    name: str
    photos: tuple[str, str]
    first: Float64[Array, "n 2"]
    second: Float64[Array, "n 2"]


def read_pairs(data: Path) -> list[AnnotatedPair]:
    """The pairs by day and night of a folder with ``pairs.csv``.

    Raises:
        DataError: there are none, or a list of points is no list of four numbers.
    """
    table = data / "pairs.csv"
    if not table.is_file():
        raise DataError(f"there is no {table}", "name the folder of the sets with --root")
    with table.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if DAY_NIGHT in row["tags"]]
    if not rows:
        raise DataError(f"{table} has no pair with the tag {DAY_NIGHT}", "give the WxBS pairs")
    pairs = []
    for row in rows:
        points = np.loadtxt(data / row["corrs_file"], ndmin=2)
        if points.shape[1] != 4:
            raise DataError(f"{data / row['corrs_file']} is no list of x1 y1 x2 y2", "restore the file")
        first, second = (corner_from_center(points[:, side]) for side in (slice(2), slice(2, 4)))
        pairs.append(AnnotatedPair(row["pair"], (row["image1"], row["image2"]), first, second))
    return pairs


def measure_pairs(
    data: Path,
    plugins: tuple[ResolvedPlugin, ResolvedPlugin],
    folder: Path,
    *,
    long_side: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """Match every pair, estimate its epipolar geometry, and measure the annotated points against it.

    Distances are in px of photos whose long side is at most ``long_side``, so that photos of all sizes are
    judged alike. What was matched goes to ``matches.npz`` in ``folder``, for pictures. An
    extractor that learns something (a PCA) learns it on these photos.

    Raises:
        ConfigError: the matcher finds its own points.
        DataError: a photo or the list of pairs cannot be read.
    """
    extractor, matcher = plugins
    if matcher.reads_images:
        raise ConfigError(
            f"{matcher.name} finds its own points: single pairs are matched by features here",
            "compare it on the photo sets: --sets strecha_fountain_p11,kermit",
        )
    pairs = read_pairs(data)
    files = [PhotoFile(name, data / name) for pair in pairs for name in pair.photos]
    photos = [ImageRecord(file.name, file.path, "db", camera_id="") for file in files]
    extractor = fitted_extractor(extractor, photos, workdir=folder, runtime=runtime)
    features = {}
    extracted = extract_many(extractor, files, runtime=runtime)
    for file, found in runtime.track(extracted, f"features {extractor.name}", len(files)):
        if isinstance(found, Skipped):
            raise DataError(f"{file.path}: {found.reason}", "restore the photo")
        features[file.name] = found
    match = matcher.build(device=runtime.torch_device())
    rows: list[dict[str, Any]] = []
    kept: dict[str, Array] = {}
    for pair in pairs:
        sides = [features[name] for name in pair.photos]
        indices = match([(match.prepare(sides[0]), match.prepare(sides[1]))])[0].indices
        xy = [side.keypoints[indices[:, column]].astype(float) for column, side in enumerate(sides)]
        scales = [_shrinking(side, long_side) for side in sides]
        judged, inliers = judge(
            (xy[0] * scales[0], xy[1] * scales[1]), (pair.first * scales[0], pair.second * scales[1])
        )
        rows.append({"pair": pair.name, "matches": len(indices), **judged})
        kept |= {f"{pair.name}:xy0": xy[0], f"{pair.name}:xy1": xy[1], f"{pair.name}:inliers": inliers}
    write_atomically(folder / MATCHES, lambda path: _save(path, kept))
    return {"pairs": rows, "right": sum(row["right"] for row in rows)}


def judge(
    matched: tuple[Float64[Array, "n 2"], Float64[Array, "n 2"]],
    annotated: tuple[Float64[Array, "m 2"], Float64[Array, "m 2"]],
) -> tuple[dict[str, Any], Bool[Array, " n"]]:
    """How far annotated points lie from the epipolar geometry of matches.

    The geometry is estimated nine times with other random numbers; each estimate is as good as the
    median distance of the annotated points. ``median_px`` is the median of these, ``best_px`` and
    ``worst_px`` are the extremes (None: no geometry), and the pair is ``right`` up to 12 px.

    Returns:
        The row of the pair, and the inliers of the estimate in the middle.
    """
    found = []
    for seed in range(_ESTIMATES):
        matrix, inliers = fundamental_matrix(*matched, seed=seed)
        median = np.inf if matrix is None else float(np.median(epipolar_distances_px(matrix, *annotated)))
        found.append((median, int(inliers.sum()), seed, inliers))
    found.sort(key=lambda each: each[:3])
    middle = found[_ESTIMATES // 2]
    row = {
        "inliers": middle[1],
        "median_px": _finite(middle[0]),
        "best_px": _finite(found[0][0]),
        "worst_px": _finite(found[-1][0]),
        "right": middle[0] <= WITHIN_PX,
    }
    return row, middle[3]


def epipolar_distances_px(
    matrix: Float64[Array, "3 3"], first: Float64[Array, "n 2"], second: Float64[Array, "n 2"]
) -> Float64[Array, " n"]:
    """Symmetric epipolar distances: the mean of a point's distances from its line in either photo, px."""
    ones = np.ones((len(first), 1))
    first, second = np.hstack([first, ones]), np.hstack([second, ones])
    lines_second, lines_first = first @ matrix.T, second @ matrix
    product = np.abs((second * lines_second).sum(axis=1))
    lengths = (np.linalg.norm(lines[:, :2], axis=1) for lines in (lines_first, lines_second))
    distances: Array = sum(product / np.maximum(length, 1e-12) for length in lengths) / 2
    return distances


def _finite(value: float) -> float | None:
    return round(value, 2) if np.isfinite(value) else None


def _shrinking(features: LocalFeatures, long_side: int) -> float:
    return min(1.0, long_side / max(features.image_wh))


def _save(path: Path, arrays: dict[str, Array]) -> None:
    with path.open("wb") as file:  # a name that does not end in .npz would get it
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def draw_pairs(data: Path, folder: Path) -> Iterator[tuple[str, Array]]:
    """Pictures of what :func:`measure_pairs` matched: ``(name, RGB image)``, inliers lines, others dots."""
    from loc.viz.matchpair import ShownPhoto, draw_matches

    none = np.zeros((0, 2))
    with np.load(folder / MATCHES) as kept:
        for pair in read_pairs(data):
            left, right = (
                ShownPhoto(data / photo, kept[f"{pair.name}:xy{side}"], none)
                for side, photo in enumerate(pair.photos)
            )
            yield pair.name.replace("/", "_"), draw_matches(left, right, kept[f"{pair.name}:inliers"])
