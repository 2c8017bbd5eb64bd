"""From a folder of tourist photos to a map, with no poses and no intrinsics given."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from loc.colmap import pycolmap
from loc.config import MapConfig
from loc.pipeline import Run, run
from loc.plugins.blocks import load_config
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.sfm.funnel import read_funnel, step_counts
from loc.stages.artefacts import PairList
from loc.stages.map import make_map

SKY = "sky.png"
_CONFIG = {"globals": None, "pairs": [{"use": "exhaustive"}], "features.resize_max": 1200}


@pytest.fixture(scope="module")
def photos(shared, tmp_path_factory) -> Path:
    """The ten photos of sacre_coeur, and a piece of sky (mirrored, or it would match where it is from)."""
    folder = tmp_path_factory.mktemp("sacre_coeur") / "photos"
    shutil.copytree(shared / "data/sacre_coeur/images", folder)
    photo = cv2.imread(str(folder / "32809961_8274055477.jpg"))
    height, width = photo.shape[:2]
    cv2.imwrite(str(folder / SKY), photo[: int(0.45 * height), int(0.65 * width) :][:, ::-1])
    return folder


@pytest.fixture(scope="module")
def matched(photos) -> Run:
    config = load_config(None, {"scene.images": str(photos), **_CONFIG})
    return run(config, photos.parent / "run", runtime=Runtime(device="cpu"), until="matches")


def _map(matched: Run, workdir: Path, *, workers: int, **options) -> MapBundle:
    pairs = PairList(workdir / "pairs", tuple(sorted(matched.matches.keys)))
    return make_map(
        matched.scene,
        matched.features,
        pairs,
        matched.matches,
        globals_=None,
        config=MapConfig(**options),
        blocks={"features": "sift", "globals": None, "matcher": "nearest", "localize": {}},
        workdir=workdir,
        runtime=Runtime(device="cpu", workers=workers),
    )


@pytest.fixture(scope="module")
def bundle(matched) -> MapBundle:
    return _map(matched, matched.workdir, workers=2)


def test_sacre_coeur_from_scratch(bundle, say):
    stats = bundle.stats
    say(
        f"sacre_coeur from scratch at <= 1200 px: {len(bundle.registered)} of 10 registered, "
        f"{stats['points']} points, {stats['mean_reprojection_error_px']} px "
        "(hloc's SIFT preset: 7 of 10, 244 points)"
    )
    assert len([name for name in bundle.registered if name != SKY]) == 10
    assert stats["points"] >= 1000
    assert stats["mean_reprojection_error_px"] < 1.0


def test_an_image_of_the_sky_is_reported_at_matches(bundle, say):
    rows, pairs = read_funnel(bundle.folder / "funnel.json")
    sky = next(row for row in rows if row.name == SKY)
    say(f"{SKY}: {sky.keypoints} keypoints, {sky.step}: {sky.reason}")
    assert sky.keypoints > 0
    assert sky.step == "matches"
    assert sum(step_counts(rows).values()) == len(rows) == bundle.stats["images"] == 11
    assert pairs["listed"] == 55


@pytest.mark.parametrize(
    "options", [{"mapper": "incremental"}, {"mapper": "global"}, {"mode": "triangulate"}], ids=str
)
def test_maps_of_real_photos_are_equal_for_any_number_of_workers(matched, bundle, tmp_path, options):
    if "mode" in options:  # known poses: those just found
        posed = tuple(replace(each, pose=bundle.poses[each.name]) for each in matched.scene.images
                      if each.name in bundle.poses)  # fmt: skip
        scene = replace(matched.scene, images=posed, cameras=bundle.cameras)
        matched = replace(matched, scene=scene)
    maps = [_map(matched, tmp_path / str(workers), workers=workers, **options) for workers in (1, 2, 4)]
    assert maps[0].stats["points"] > 500
    assert len({made.stats["digest"] for made in maps}) == 1
    assert len({made.folder.name for made in maps}) == 1


def test_the_points_have_the_colours_of_the_photos(bundle):
    model = pycolmap.Reconstruction(bundle.model_folder)
    colors = [tuple(point.color) for point in model.points3D.values()]
    assert len(set(colors)) > len(colors) / 2
