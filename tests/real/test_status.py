"""Every status from real photographs, and photos of other places against the fountain's map."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

import loc
from loc.metrics.poses import pose_error
from loc.pipeline import Run
from loc.runtime.runtime import Runtime
from loc.stages.localize import Localizer
from loc.types import QueryResult

Say = Callable[[str], None]
FOUNTAIN = "strecha_fountain_p11"
OTHERS = ("strecha_entry_p10", "lund_door", "virtual_gallery", "kermit", "sacre_coeur")
RUNTIME = Runtime(device="cpu")


def make_queries(shared: Path, folder: Path) -> dict[str, str]:
    """Photos made of real ones, and the status each must get."""
    data = shared / "data"
    photo = Image.open(data / FOUNTAIN / "images" / "0006.jpg")
    # Sixteen times smaller: the right place, too little to be sure.
    photo.resize((96, 64), Image.Resampling.LANCZOS).save(folder / "x small.jpg", quality=95)
    # A lens that is far out of focus.
    photo.filter(ImageFilter.GaussianBlur(40)).save(folder / "x blurred.jpg")
    whole = (data / FOUNTAIN / "images" / "0006.jpg").read_bytes()
    (folder / "x truncated.jpg").write_bytes(whole[: len(whole) // 2])
    shutil.copy(data / "kermit" / "images" / "kermit002.jpg", folder / "x elsewhere.jpg")
    return {
        "0002.jpg": "ok",
        "0006.jpg": "ok",
        "0010.jpg": "no_pairs",
        "x small.jpg": "doubtful",
        "x blurred.jpg": "no_matches",
        "x truncated.jpg": "unreadable",
        "x elsewhere.jpg": "pnp_failed",
    }


@pytest.fixture(scope="module")
def expected() -> dict[str, str]:
    return {}


@pytest.fixture(scope="module")
def run(shared: Path, tmp_path_factory: pytest.TempPathFactory, expected: dict[str, str]) -> Run:
    """The fountain mapped from its mapping images at 800 px; 0010.jpg is paired with nothing."""
    folder = tmp_path_factory.mktemp("status")
    images = folder / "images"
    shutil.copytree(shared / "data" / FOUNTAIN / "images", images)
    expected.update(make_queries(shared, images))
    (folder / "queries.txt").write_text("\n".join(expected))
    mapped = [path.name for path in sorted(images.iterdir()) if path.name not in expected]
    paired = [(query, name) for query in expected if query != "0010.jpg" for name in mapped]
    (folder / "pairs.txt").write_text("\n".join(" ".join(pair) for pair in paired))
    config = loc.load_config(
        {
            "scene": {
                "layout": "colmap",
                "model": str(shared / "data" / FOUNTAIN / "gt_colmap"),
                "images": str(images),
                "queries": str(folder / "queries.txt"),
            },
            "features": {"use": "sift", "resize_max": 800},
            "pairs": [
                {"use": "exhaustive", "for": "map"},
                {"use": "list", "for": "query", "path": str(folder / "pairs.txt")},
            ],
        }
    )
    return loc.run(config, folder / "run", runtime=RUNTIME)


def test_every_status_comes_from_a_real_photo(run: Run, expected: dict[str, str], say: Say) -> None:
    found = {result.name: result for result in run.poses.results}
    for name, result in sorted(found.items()):
        counts = f"{result.num_inliers:5}/{result.num_matches:<5}"
        say(f"status {name:20} {result.status:10} {counts} {result.reason}")
    assert {name: result.status for name, result in found.items()} == expected
    assert set(expected.values()) == {
        "ok",
        "doubtful",
        "unreadable",
        "no_pairs",
        "no_matches",
        "pnp_failed",
    }
    for result in found.values():
        assert (result.pose is not None) == (result.status in ("ok", "doubtful"))
        assert result.reason


def test_poses_called_ok_are_right(run: Run, say: Say) -> None:
    for name in ("0002.jpg", "0006.jpg"):
        error, error_deg = pose_error(run.poses.localized[name], run.scene.ground_truth[name])
        say(f"fountain {name} {1000 * error:.1f} mm, {error_deg:.3f} degrees")
        assert error < 0.02
        assert error_deg < 0.1


def test_every_query_has_a_row_in_the_report(run: Run, expected: dict[str, str]) -> None:
    page = (run.report.folder / "index.html").read_text(encoding="utf-8")
    for name in expected:
        assert name in page
    assert run.report.metrics["queries"] == len(expected)
    # Three queries have ground truth; the one without pairs is a miss.
    assert run.report.metrics["groups"]["all"]["queries"] == 3
    assert run.report.metrics["groups"]["all"]["localized"] == 2


def test_photos_of_other_sets_are_never_ok(shared: Path, run: Run, say: Say) -> None:
    """entry-P10 is the same courtyard: its facade is the background of two of the fountain's photos.

    Its photos get poses that are right to a few decimetres, from matches at the edge of the map; they
    must not be called ok either.
    """
    localizer = Localizer(run.bundle, runtime=RUNTIME)
    found: dict[str, QueryResult] = {}
    for other in OTHERS:
        folder = shared / "data" / other
        for name in (folder / "splits" / "query_images.txt").read_text().split()[:2]:
            found[f"{other}/{name}"] = localizer.localize(folder / "images" / name)
    for name, result in found.items():
        counts = f"{result.num_inliers:3}/{result.num_matches:<4}"
        say(f"against fountain {name:42} {result.status:10} {counts} {result.reason}")
    assert len(found) == 10
    assert not [name for name, result in found.items() if result.status == "ok"]
    elsewhere = [result for name, result in found.items() if not name.startswith("strecha_entry")]
    assert {result.status for result in elsewhere} <= {"pnp_failed", "no_matches"}


def test_one_photo_without_intrinsics(shared: Path, run: Run, say: Say) -> None:
    """The focal length is found with the pose."""
    result = Localizer(run.bundle, runtime=RUNTIME).localize(
        shared / "data" / FOUNTAIN / "images" / "0006.jpg"
    )
    assert result.status == "ok"
    error, error_deg = pose_error(result.pose, run.scene.ground_truth["0006.jpg"])
    found = f"focal length {result.camera.focal_px:.1f} px, {1000 * error:.1f} mm, {error_deg:.3f} degrees"
    say(f"fountain, no intrinsics: {found}")
    assert result.camera.focal_px == pytest.approx(1380.9, rel=0.02)
    assert error < 0.15  # the principal point is taken in the middle; it is 12 px off
    assert np.isfinite(result.covariance).all()
