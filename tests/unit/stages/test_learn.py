"""What an extractor learns from the database images is kept, found again, and part of the fingerprint."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from learning_sift import LearningSift
from synthetic_scene import make_scene

import loc
from loc.errors import StoreError
from loc.layouts import load_scene
from loc.pipeline import Run
from loc.planning import plan
from loc.plugins.blocks import resolve_block
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.stages.learn import fitted_extractor, planned_extractor

RUNTIME = Runtime(device="cpu", workers=1)
BLOCK = {"use": f"{LearningSift.__module__}:LearningSift", "resize_max": 800, "max_keypoints": 2000}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[loc.RunConfig, Run]:
    folder = tmp_path_factory.mktemp("learning")
    overrides = {"features": BLOCK, "globals": None, "pairs": [{"use": "exhaustive", "for": "both"}]}
    config = make_scene(folder / "scene", overrides, frames=6)
    return config, loc.run(config, folder / "run", runtime=RUNTIME, until="poses")


def test_the_line_uses_what_was_learned(made) -> None:
    _, run = made
    (fit,) = (path for path in (run.workdir / "fits").iterdir() if path.is_dir())
    assert run.features.plugin.state == run.bundle.extractor_fit == fit
    with np.load(fit / "state.npz") as state:
        mean, count = state["mean"], int(state["count"])
    raw = resolve_block("features", BLOCK).build()
    plugin = run.features.plugin.build()
    np.testing.assert_array_equal(plugin.mean, mean)
    assert raw.mean is None
    # Learned from the database images, not from queries.
    assert count == sum(run.features.count(image.name) for image in run.scene.db)
    assert run.features.get(run.scene.db[0].name).descriptors.dtype != np.uint8
    assert {result.status for result in run.poses.results} == {"ok"}


def test_a_photo_is_seen_with_the_same_state(made) -> None:
    """Descriptors of another kind than the map's would match nothing."""
    _, run = made
    query = run.scene.queries[0]
    localizer = loc.Localizer(MapBundle.open(run.bundle.folder), runtime=RUNTIME)
    result = localizer.localize(query.path, camera=run.scene.camera_of(query))
    assert result.status == "ok"
    batch = next(each for each in run.poses.results if each.name == query.name)
    np.testing.assert_array_equal(result.pose.translation, batch.pose.translation)


def test_nothing_is_learned_twice(made) -> None:
    config, run = made
    steps = {
        step.stage: (step.done, step.items) for step in plan(config, run.workdir, sample=0, runtime=RUNTIME)
    }
    assert steps["features"] == (6, 6)
    assert steps["map"][0] == steps["map"][1]
    before = (run.bundle.extractor_fit / "manifest.json").stat().st_mtime_ns
    again = loc.run(config, run.workdir, runtime=RUNTIME, until="features")
    assert again.features.computed == 0
    assert (run.bundle.extractor_fit / "manifest.json").stat().st_mtime_ns == before


def test_other_images_or_options_learn_anew(made, tmp_path) -> None:
    config, run = made
    where = {"workdir": run.workdir, "runtime": RUNTIME}
    images = load_scene(config.scene).db
    plugin = resolve_block("features", BLOCK)
    same = planned_extractor(plugin, images, **where).state
    assert same == run.bundle.extractor_fit
    assert planned_extractor(plugin, images[:-1], **where).state != same
    other = resolve_block("features", {**BLOCK, "max_keypoints": 700})
    assert planned_extractor(other, images, **where).state != same
    plain = resolve_block("features", "sift")
    assert fitted_extractor(plain, images, workdir=tmp_path, runtime=RUNTIME) is plain
    assert not list(tmp_path.iterdir())


def test_a_plan_before_anything_is_learned(made, tmp_path) -> None:
    config, _ = made
    steps = {step.stage: step for step in plan(config, tmp_path / "new", sample=1, runtime=RUNTIME)}
    assert (steps["features"].done, steps["features"].items) == (0, 6)
    assert not (tmp_path / "new").exists()


def test_a_damaged_fit_is_an_error(made, tmp_path) -> None:
    _, run = made
    copy = tmp_path / "run"
    shutil.copytree(run.workdir, copy)
    folder = copy / run.bundle.folder.relative_to(run.workdir)
    state = copy / run.bundle.extractor_fit.relative_to(run.workdir) / "state.npz"
    assert MapBundle.open(folder).extractor.state == state.parent  # a run may be moved as a whole
    state.write_bytes(state.read_bytes()[:-20])
    with pytest.raises(StoreError, match=r"state.npz is damaged"):
        MapBundle.open(folder).extractor  # noqa: B018
    (state.parent / "manifest.json").unlink()
    with pytest.raises(StoreError, match="cannot be read"):
        MapBundle.open(folder).extractor.build()
    shutil.rmtree(state.parent)
    with pytest.raises(StoreError, match="fit of the extractor"):
        MapBundle.open(folder).extractor  # noqa: B018
