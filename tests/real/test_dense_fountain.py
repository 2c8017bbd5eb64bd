"""Keypoints shared by the pairs of a dense matcher, on the fountain: an oracle knows its wall.

The oracle gives every pair a grid of its own, with noise and outliers, so that hardly a point is in two
pairs. What is measured is what ``loc`` makes of that; rounding the points to a grid is the comparison.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_oracle import DenseOracle, World, fountain_world
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from loc.cli import main
from loc.colmap import camera_to_colmap
from loc.runtime.images import read_photo
from loc.sfm.consistent import SharingOptions, share_keypoints
from loc.sfm.model import Model, read_model
from loc.types import Array, Correspondences

NAME = "strecha_fountain_p11"
#: Between the oracle's points, px of the images it is shown.
GRID_PX = 24
#: There are so many such points in an image, and a map should have more.
POINTS = 1500


@pytest.fixture(scope="module")
def world(shared: Path) -> World:
    return fountain_world(shared / "data" / NAME / "gt_colmap")


@pytest.fixture(scope="module")
def oracle(shared: Path, world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    photos = sorted((shared / "data" / NAME / "images").iterdir())
    path = tmp_path_factory.mktemp("oracle") / "fountain.npz"
    world.save(path, {photo.name: read_photo(photo, color="gray").pixels for photo in photos})
    return path


def options(oracle: Path) -> list[str]:
    return [
        "--matcher",
        "dense_oracle:DenseOracle",
        "--set",
        f"matcher.world={oracle}",
        "--set",
        "matcher.resize_max=1024",
        "--set",
        f"matcher.grid_px={GRID_PX}",
    ]


def loc(capsys: Any, *argv: object) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(item) for item in argv])
    printed = capsys.readouterr()
    assert not stop.value.code, printed.err
    return json.loads(printed.out)


def median_error_px(model: Model) -> float:
    """Median reprojection error of all observations, px of the stored photos."""
    errors = []
    for image in model.images.values():
        rows = model.rows(image.point_ids)
        points = model.xyz[rows[rows >= 0]] @ image.pose.rotation.T + image.pose.translation
        seen = camera_to_colmap(model.cameras[image.camera_id]).img_from_cam(points)
        errors.append(np.linalg.norm(seen - image.xy[rows >= 0], axis=1))
    assert sum(map(len, errors)) == model.num_observations
    return float(np.median(np.concatenate(errors)))


def test_map_and_queries(
    shared: Path, oracle: Path, tmp_path: Path, capsys: Any, say: Callable[[str], None]
) -> None:
    data, run = shared / "data" / NAME, tmp_path / "run"
    queries = data / "splits" / "query_images.txt"
    argv = ["holdout", data / "gt_colmap", data / "images", "--queries", queries, "-o", run, "--json"]
    found = loc(capsys, *argv, *options(oracle))
    model = read_model(next(run.glob("map/*/model")))
    track = model.num_observations / len(model.point_ids)
    say(
        f"dense oracle, {NAME}, known poses: {len(model.point_ids)} points, track length {track:.2f},"
        f" median {median_error_px(model):.3f} px; queries {found['median_error']:.4f} m,"
        f" {found['median_error_deg']:.3f} deg"
    )
    assert found["map"]["registered"] == 8
    assert track > 4
    assert median_error_px(model) < 0.5  # asked for: 1
    assert len(model.point_ids) > POINTS
    assert found["localized"] == found["status"].get("ok") == 3
    assert found["median_error"] < 0.002
    assert found["median_error_deg"] < 0.02
    # One photo in memory is localized as it is in a run, from the map and its photos alone.
    (photo,) = loc(capsys, "localize-photo", data / "images" / "0002.jpg", "--map", run, "--json")
    assert photo["status"] == "ok"


def test_map_from_photos_alone(
    shared: Path, oracle: Path, tmp_path: Path, capsys: Any, say: Callable[[str], None]
) -> None:
    data, run = shared / "data" / NAME, tmp_path / "run"
    names = (data / "splits" / "mapping_images.txt").read_text().split()
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in names:
        (photos / name).symlink_to(data / "images" / name)
    argv = ["reconstruct", photos, "-o", run, "--json", "--set", "scene.cameras=single"]
    loc(capsys, *argv, *options(oracle))
    model = read_model(next(run.glob("map/*/model")))
    track = model.num_observations / len(model.point_ids)
    error = median_error_px(model)
    say(f"dense oracle, {NAME}, from photos alone: track length {track:.2f}, median {error:.3f} px")
    assert len(model.images) == len(names)
    assert track > 3
    assert error < 0.5  # asked for: 1
    assert len(model.point_ids) > POINTS


def test_carried_against_rounded(world: World, say: Callable[[str], None]) -> None:
    """Points carried over make longer tracks of better points than any grid that points are rounded to."""
    names = sorted(world.poses)[:6]
    pairs = {pair: asked(world, pair, number) for number, pair in enumerate(combinations(names, 2))}
    carried: dict[str, Array] = {}
    matches = {}
    sharing = SharingOptions(merge_px=2.0, max_error_px=3.0, max_keypoints=8192)
    for shared_ in share_keypoints(
        pairs, pairs.__getitem__, images=names, image_wh=lambda _: world.wh, options=lambda _: sharing
    ):
        carried[shared_.name] = shared_.xy
        for other, found in shared_.matches.items():
            matches[shared_.name, other] = found.indices
    ours = measured(world, carried, matches)
    say(f"dense keypoints carried over: median error {ours[0]:.2f} px, right tracks of {ours[1]:.2f}")
    for cell in (1, 4):
        rounded = measured(world, *rounding(pairs, cell))
        say(
            f"dense keypoints rounded to {cell} px: median error {rounded[0]:.2f} px, right tracks of"
            f" {rounded[1]:.2f}"
        )
        assert ours[0] < 0.5 * rounded[0]
        assert ours[1] > rounded[1] + 1
    assert ours[0] < 0.5
    assert ours[1] > 4


def asked(world: World, pair: tuple[str, str], seed: int) -> Correspondences:
    """What the oracle says of a pair, in px of the stored images."""
    oracle = object.__new__(DenseOracle)
    oracle.config = DenseOracle.Config(grid_px=GRID_PX)
    oracle.world = world
    found = oracle._match(*((name, world.wh) for name in pair))
    return replace(found, xy0=found.xy0 + np.float32(0.5), xy1=found.xy1 + np.float32(0.5))


def rounding(
    pairs: dict[tuple[str, str], Correspondences], cell: float
) -> tuple[dict[str, Array], dict[tuple[str, str], Array]]:
    """Keypoints at the middle of cells, the cells with most points first, as hloc does it."""
    points: dict[str, list[Array]] = {}
    for (first, second), found in pairs.items():
        for name, xy in ((first, found.xy0), (second, found.xy1)):
            points.setdefault(name, []).append(np.floor(xy / cell))
    cells = {}
    for name, each in points.items():
        unique, counts = np.unique(np.concatenate(each), axis=0, return_counts=True)
        best = np.argsort(-counts, kind="stable")[:8192]
        cells[name] = {tuple(row): number for number, row in enumerate(unique[best].tolist())}
    matches = {}
    for (first, second), found in pairs.items():
        rows: dict[int, int] = {}
        sides = (np.floor(found.xy0 / cell).tolist(), np.floor(found.xy1 / cell).tolist())
        for one, two in zip(*sides, strict=True):
            if tuple(one) in cells[first] and tuple(two) in cells[second]:
                rows.setdefault(cells[first][tuple(one)], cells[second][tuple(two)])
        matches[first, second] = np.array(sorted(rows.items()), np.int64).reshape(-1, 2)
    middles = {name: (np.array(list(each)) + 0.5) * cell for name, each in cells.items()}
    return middles, matches


def measured(
    world: World, keypoints: dict[str, Array], matches: dict[tuple[str, str], Array]
) -> tuple[float, float]:
    """Median distance of matched keypoints from the truth, px; mean length of the tracks of right matches."""
    offsets = dict(zip(keypoints, np.cumsum([0, *map(len, keypoints.values())]), strict=False))
    errors, links = [], []
    for (first, second), rows in matches.items():
        there, seen = world.see(first, second, keypoints[first][rows[:, 0]])
        error = np.linalg.norm(there - keypoints[second][rows[:, 1]], axis=1)
        errors.append(np.where(seen, error, np.inf))
        links.append(rows[errors[-1] < 3] + [offsets[first], offsets[second]])
    joined = np.concatenate(links)
    size = sum(map(len, keypoints.values()))
    graph = coo_array((np.ones(len(joined)), (joined[:, 0], joined[:, 1])), shape=(size, size))
    lengths = np.bincount(connected_components(graph, directed=False)[1])
    return float(np.median(np.concatenate(errors))), float(lengths[lengths > 1].mean())
