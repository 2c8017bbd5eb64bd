"""The benchmark of rejection: what is asked of what, and the command on made photos."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from learning_sift import LearningSift
from typer.testing import CliRunner

from loc.bench.rejection import ask, databases, described, photos_of, ready, rerank_options
from loc.cli.app import app
from loc.config.ranking import RerankConfig
from loc.errors import ConfigError, DataError
from loc.layouts.placed import DISTRACTORS, UNLABELLED, PlacedPhotos
from loc.retrieval.rejection import Rejection
from loc.runtime.runtime import Runtime

#: Rows: three of the mill (the last one a query), two of the door, one of none, one distractor.
PHOTOS = PlacedPhotos(
    "made",
    tuple(Path(f"{row}.jpg") for row in range(7)),
    ("mill", "mill", "mill", "door", "door", UNLABELLED, DISTRACTORS),
    (False, False, True, False, False, False, False),
    frozenset({(2, 1)}),
)


def test_every_photo_is_asked_of_a_database_with_and_without_its_place():
    found = {(query, present): rows for query, present, rows in databases(PHOTOS, 9)}
    assert found == {
        (0, True): [1, 3, 4, 5, 6],  # the query of the set is in no database
        (0, False): [3, 4, 5, 6],
        (1, True): [0, 3, 4, 5, 6],
        (1, False): [3, 4, 5, 6],
        (2, True): [0, 3, 4, 5, 6],  # 1 does not count for it
        (2, False): [3, 4, 5, 6],
        (3, True): [0, 1, 4, 5, 6],
        (3, False): [0, 1, 5, 6],
        (4, True): [0, 1, 3, 5, 6],
        (4, False): [0, 1, 5, 6],
        (5, False): [0, 1, 3, 4, 6],
        (6, False): [0, 1, 3, 4, 5],
    }


def test_few_photos_of_a_place_are_asked_those_of_the_set_first():
    assert {query for query, _, _ in databases(PHOTOS, 1)} == {2, 3, 5, 6}
    assert {query for query, _, _ in databases(PHOTOS, 2)} == {0, 2, 3, 4, 5, 6}


def test_the_best_image_is_that_with_most_inliers_among_the_candidates():
    similarity = np.zeros((7, 7), np.float32)
    similarity[2] = [0.5, 0.9, 0, 0.4, 0.3, -np.inf, 0.2]
    inliers = {(2, 0): 30, (2, 3): 40, (2, 4): 90, (2, 6): 1}
    verified = []

    def verify_pairs(wanted):
        verified.extend(sorted(pair for pair in wanted if pair[0] == 2))
        return lambda query, image: inliers.get((query, image), 0)

    two = RerankConfig(candidates=2)
    found = ask(PHOTOS, similarity, [100] * 7, verify_pairs, per_place=9, config=two)
    own = [each for each in found if each.photo == 2]
    with_place, without = own
    assert verified == [(2, 0), (2, 3), (2, 4)]  # two candidates of each database; 4 is one without the mill
    assert (with_place.answer, with_place.right) == ("door", False)
    assert with_place.evidence.inliers == 40
    assert with_place.evidence.second_inliers == 30
    assert with_place.evidence.similarity == pytest.approx(0.4)
    assert (without.answer, without.evidence.inliers, without.evidence.second_inliers) == ("door", 90, 40)
    assert not without.right
    inliers[2, 0] = 40  # as many: the more similar one is first
    own = [
        each
        for each in ask(PHOTOS, similarity, [100] * 7, verify_pairs, per_place=9, config=two)
        if each.photo == 2
    ]
    assert (own[0].answer, own[0].right) == ("mill", True)
    inliers[2, 3] = 45
    few = RerankConfig(candidates=2, min_inliers=46)  # so few reorder nothing, and are told as they are
    own = [
        each
        for each in ask(PHOTOS, similarity, [100] * 7, verify_pairs, per_place=9, config=few)
        if each.photo == 2
    ]
    assert (own[0].answer, own[0].evidence.inliers, own[0].evidence.second_inliers) == ("mill", 40, 45)


def test_verification_by_name_and_by_options():
    assert rerank_options("{use: delg, trials: 50}").trials == 50
    assert rerank_options("auto") is None
    for text in ("dlg", "{use: d2r, trial: 5}", "[", "7", "[d2r]"):
        with pytest.raises(ConfigError):
            rerank_options(text)


def test_photos_need_places(tmp_path):
    with pytest.raises(DataError, match="holds no ground truth"):
        photos_of(tmp_path, None, None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four places of three photos each and four of none: noise, seen from slightly different sides."""
    random, folder = np.random.default_rng(0), tmp_path_factory.mktemp("photos")
    lines = []

    def canvas():
        small = random.integers(0, 255, (18, 24), np.uint8)
        return cv2.resize(small, (168, 126), interpolation=cv2.INTER_CUBIC)

    for place in range(4):
        wall = canvas()
        for view in range(3):
            shift = np.array([[1, 0.03 * view, -6 - 2 * view], [-0.02 * view, 1, -4]])
            photo = cv2.warpAffine(wall, shift, (150, 112), borderMode=cv2.BORDER_REFLECT)
            cv2.imwrite(str(folder / f"{place}_{view}.png"), photo)
            lines.append(f"{place}_{view}.png wall {place}".replace(" wall", "\twall"))
    (folder.parent / "others").mkdir(exist_ok=True)
    for row in range(4):
        cv2.imwrite(str(folder.parent / f"others/{row}.png"), canvas())
    (folder / "places.txt").write_text("\n".join(lines))
    return folder


def command(made, *more):
    words = ["bench", "rejection", "--root", str(made), "--places", str(made / "places.txt"), "--distractors"]
    words += [str(made.parent / "others"), "--max-false-accept", "0.2", "--workers", "1", "--device", "cpu"]
    words += ["--rerank", "d2r"]
    return CliRunner().invoke(app, [*words, "-o", str(made.parent / "work"), *more])


def test_command(made):
    saved = made.parent / "calibration.json"
    result = command(made, "--save", str(saved))
    assert result.exit_code == 0, result.output
    text = result.output
    assert "12 photos of 4 places, 0 of none, 4 distractors" in text
    assert "12/12 100.0 %" in text
    assert any(line.split()[:2] == ["wall", "0"] and "3/3" in line for line in text.splitlines())
    assert "ROC: false accepts" in text
    model = Rejection.read(saved)
    model.require(globals_name="vlad", features_name="sift", rerank="d2r")
    assert str(made.parent) not in saved.read_text()
    assert "--distractors others" in model.provenance["command"]
    again = command(made, "--json", "--save", str(saved))
    (row,) = json.loads(again.stdout)
    assert row["auc"] == pytest.approx(1, abs=0.02)
    assert row["false_accepts"]["of"] == 16
    assert row["true_accepts"]["of"] == 12
    assert row["rejection"]["threshold"] == Rejection.read(saved).threshold == model.threshold


def test_an_extractor_learns_from_the_database_photos_without_distractors(made, tmp_path):
    photos = photos_of(made, made / "places.txt", made.parent / "others")
    runtime = Runtime(device="cpu", workers=1)
    plugin = ready("features", f"{LearningSift.__module__}:LearningSift", runtime)
    _, records, features = described(photos, plugin, tmp_path, runtime)
    fit = features.plugin.state
    assert fit is not None
    assert json.loads((fit / "manifest.json").read_text())["fields"]["images"] == 12
    assert len(records) == 16
    assert features.get(records[0].name).descriptors.astype(float).min() < 0  # SIFT's own are not


def test_command_says_what_cannot_be(made):
    result = command(made, "--globals", "vlad,mac", "--save", str(made.parent / "x.json"))
    assert result.exit_code == 2
    assert "keeps one calibration, and these are 2" in result.output
    for option, value, says in (
        ("--max-false-accept", "1", "is no share"),
        ("--globals", "vlat", "did you mean vlad"),
        ("--same", "wall 0,wall 9", "has no place 'wall 9'"),
    ):
        result = command(made, option, value)
        assert result.exit_code in (2, 3)
        assert says in result.output
    result = command(made, "--max-false-accept", "0.01", "--save", str(made.parent / "x.json"))
    assert result.exit_code == 2
    assert "99 are needed" in result.output
    assert not (made.parent / "x.json").exists()
