"""Localizer: the batch's pose from one photo in memory, and nothing written anywhere."""

from __future__ import annotations

import builtins
import io
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from synthetic_scene import make_scene

import loc
from loc.config import RetrievalPairs
from loc.errors import DataError
from loc.pipeline import Run
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Globals
from loc.stages.localize import Localizer
from loc.stages.pairs import make_pairs
from loc.types import Camera

RUNTIME = Runtime(device="cpu", workers=1)
RETRIEVAL = {"use": "retrieval", "for": "both", "k": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small scene of textured patches, mapped and localized from its image files."""
    folder = tmp_path_factory.mktemp("demo")
    overrides = {"pairs": [RETRIEVAL], "globals": "vlad"}
    return loc.run(make_scene(folder / "scene", overrides, frames=6), folder / "run", runtime=RUNTIME)


@pytest.fixture(scope="module")
def localizer(run: Run) -> Localizer:
    blocks = {**run.bundle.blocks, "pairs": [RETRIEVAL]}
    return Localizer(replace(run.bundle, blocks=blocks), runtime=RUNTIME)


def test_the_same_pose_as_in_the_batch(run: Run, localizer: Localizer) -> None:
    for expected in run.poses.results:
        record = run.scene[expected.name]
        camera = run.scene.camera_of(record)
        result = localizer.localize(record.path, camera=camera, name=record.name)
        assert result.status == expected.status == "ok"
        assert np.array_equal(result.pose.translation, expected.pose.translation)
        assert np.array_equal(result.pose.quat_xyzw, expected.pose.quat_xyzw)
        assert result.references == expected.references
        assert 1 <= len(result.references) <= 3
        assert np.array_equal(result.inlier_points3d, expected.inlier_points3d)
        assert result.seconds.keys() == {"read", "extract", "retrieve", "match", "pnp"}


def test_references_are_reranked_as_in_the_batch(run: Run, tmp_path: Path) -> None:
    block = {**RETRIEVAL, "rerank": {"use": "d2r", "max_distance": None, "ratio": 0.8}}
    assert run.features is not None
    plugin = run.bundle.global_extractor
    store = run.bundle.open_globals()
    assert plugin is not None
    assert store is not None
    pairs = make_pairs(
        "query",
        run.scene,
        run.features,
        Globals(store, run.features.keys, plugin),
        config=[RetrievalPairs.model_validate(block)],
        workdir=tmp_path,
        runtime=RUNTIME,
        among=run.bundle.registered,
    )
    store.close()
    blocks = {**run.bundle.blocks, "pairs": [block]}
    localizer = Localizer(replace(run.bundle, blocks=blocks), runtime=RUNTIME)
    for record in run.scene.queries:
        result = localizer.localize(record.path, camera=run.scene.camera_of(record), name=record.name)
        assert sorted(result.references) == sorted(pairs.ranked[record.name])  # by inliers in the result


def test_pixels_in_memory_are_the_same_photo(run: Run, localizer: Localizer) -> None:
    record = run.scene.queries[0]
    pixels = np.asarray(Image.open(record.path).convert("RGB"))
    camera = run.scene.camera_of(record)
    from_file = localizer.localize(record.path, camera=camera)
    from_pixels = localizer.localize(pixels, camera=camera, name="frame 17")
    assert (from_file.name, from_pixels.name) == (record.path.name, "frame 17")
    assert np.array_equal(from_file.pose.translation, from_pixels.pose.translation)


def test_without_intrinsics_the_focal_length_is_found(run: Run, localizer: Localizer) -> None:
    record = run.scene.queries[0]
    true = run.scene.camera_of(record)
    result = localizer.localize(record.path)
    assert result.status == "ok"
    assert result.camera.focal_px == pytest.approx(true.focal_px, rel=0.03)
    error = result.pose.center_in_world - run.scene.ground_truth[record.name].center_in_world
    assert np.linalg.norm(error) < 0.2


def test_without_global_descriptors_it_is_matched_with_all(run: Run) -> None:
    bundle = replace(run.bundle, blocks={**run.bundle.blocks, "globals": None}, globals_folder=None)
    result = Localizer(bundle, runtime=RUNTIME).localize(run.scene.queries[0].path)
    assert result.status == "ok"
    assert len(result.references) > 3


def test_a_map_opens_from_its_folder(run: Run) -> None:
    assert Localizer(run.bundle.folder, runtime=RUNTIME).config == Localizer(run.bundle).config


def test_other_photos_are_not_localized(localizer: Localizer) -> None:
    rng = np.random.default_rng(0)
    noise = localizer.localize(rng.integers(0, 255, (480, 640, 3), dtype=np.uint8))
    assert noise.status in ("no_matches", "pnp_failed")
    assert noise.pose is None
    blank = localizer.localize(np.full((480, 640), 90, np.uint8))
    assert blank.status in ("no_pairs", "no_matches")
    assert blank.pose is None


def test_files_that_are_no_photos_are_results(localizer: Localizer, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.jpg", "empty.png", "missing.jpg"):
        result = localizer.localize(tmp_path / name)
        assert (result.name, result.status, result.pose) == (name, "unreadable", None)
        assert name in result.reason


def test_wrong_input_is_an_error(run: Run, localizer: Localizer) -> None:
    record = run.scene.queries[0]
    small = Camera("PINHOLE", 10, 20, np.array([9.0, 9, 5, 10]))
    with pytest.raises(DataError, match=r"intrinsics of .* \(the camera given\) are for 10 x 20 px"):
        localizer.localize(record.path, camera=small)
    with pytest.raises(DataError, match=r"an image in memory is .* got \(4, 4, 3\) float64"):
        localizer.localize(np.zeros((4, 4, 3)))


@pytest.fixture
def read_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The run folder without write permission, and every way of writing from Python made to fail."""
    real_open, real_h5 = builtins.open, h5py.File.__init__

    def reading(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert not set(mode) & set("wax+"), f"opened for writing: {file}"
        return real_open(file, mode, *args, **kwargs)

    def reading_h5(self: h5py.File, name: Any, mode: str = "r", **kwargs: Any) -> None:
        assert mode == "r", f"opened for writing: {name}"
        real_h5(self, name, mode, **kwargs)

    def refused(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"wrote: {args}")

    monkeypatch.setattr(builtins, "open", reading)
    monkeypatch.setattr(io, "open", reading)
    monkeypatch.setattr(h5py.File, "__init__", reading_h5)
    for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "symlink", "link"):
        monkeypatch.setattr(os, name, refused)
    for name in ("write_text", "write_bytes", "touch"):
        monkeypatch.setattr(Path, name, refused)
    for name in ("save", "savez"):
        monkeypatch.setattr(np, name, refused)
    paths = [run.workdir, *run.workdir.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path, mode in modes.items():
        path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    yield
    for path, mode in modes.items():
        path.chmod(mode)


@pytest.mark.usefixtures("read_only")
def test_nothing_is_written(run: Run) -> None:
    with pytest.raises(AssertionError, match="opened for writing"):
        (run.workdir / "probe").open("w")
    before = snapshot(run.workdir)
    fresh = Localizer(run.bundle.folder, runtime=RUNTIME)
    assert fresh.localize(run.scene.queries[0].path).status == "ok"
    assert snapshot(run.workdir) == before


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    return [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.rglob("*"))]
