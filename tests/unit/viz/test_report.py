"""The page: self-contained, escaped, worst first, and whole where things are missing."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synthetic_map import Synthetic, synthesize

from loc.config import EvaluateConfig, LocalizeConfig
from loc.layouts.lists import read_poses
from loc.metrics.poses import summarize
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.sfm.locate import MatchedQuery, locate
from loc.stages.evaluate import evaluate
from loc.stages.poses import Poses
from loc.types import Pose, QueryResult
from loc.viz import queryrows
from loc.viz.report import Known, PoseErrors, render_evaluation, render_report

HOSTILE = 'q/<script>alert("1")</script>&amp;.png'
RUNTIME = Runtime(device="cpu", workers=2)


class Run:
    """A synthetic map whose first image is also a query, under a hostile name, beside queries that failed."""

    def __init__(self, folder: Path) -> None:
        made: Synthetic = synthesize(folder, images=5, points=120)
        self.bundle: MapBundle = made.map()
        for image in made.scene.images:
            Image.new("RGB", (1024, 768), (60, 90, 120)).save(image.path)
        first = made.scene.db[0]
        hostile = replace(first, name=HOSTILE, role="query", pose=None, group="night")
        lost = replace(hostile, name="nacht/verlören ☂.png", path=folder / "gone.png", group="day")
        truth = {HOSTILE: self.bundle.poses[first.name], lost.name: self.bundle.poses[first.name]}
        self.scene = replace(
            made.scene,
            images=(*made.scene.images, hostile, lost),
            ground_truth=truth,
            skipped={"<b>bad</b>.jpg": "it is <i>empty</i>"},
        )
        matched = [(pair[1], made.matches.get(pair)) for pair in made.pairs.pairs if pair[0] == first.name]
        query = MatchedQuery(
            HOSTILE, self.scene.camera_of(hostile), made.features.keypoints(first.name), matched
        )
        self.ok = locate(self.bundle.index, query, LocalizeConfig())
        self.lost = QueryResult(lost.name, "no_matches", "none of 3 <matches> leads to a point")
        self.results = (self.ok, self.lost)
        self.folder = folder

    def page(self, results: tuple[QueryResult, ...] | None = None, **known: Any) -> str:
        return render_report(
            self.scene,
            self.bundle,
            self.results if results is None else results,
            Known(**known),
            title="<run>",
        )


class Text(HTMLParser):
    """Tags, attributes and visible text; the text of the script apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.labels: list[str] = []
        self.ids: set[str] = set()
        self.text = self.script = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attributes)
        self.links += [found[name] or "" for name in ("src", "href", "srcset", "action") if name in found]
        self.labels += [found["aria-label"] or ""] if "aria-label" in found else []
        self.ids |= {found["id"] or ""} if "id" in found else set()
        assert not any(name.startswith("on") for name in found)
        assert tag not in ("link", "iframe", "object", "embed", "base")
        if tag == "svg":
            assert found.get("role") == "img" or found.get("aria-hidden") == "true", found

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script" and not self.script:
            self.script = data
        elif self.tags and self.tags[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def test_the_query_is_localized(run: Run) -> None:
    assert run.ok.status == "ok"


def test_names_are_escaped(run: Run) -> None:
    page = run.page()
    parsed = Text(page)
    assert parsed.tags.count("script") == 1
    assert page.count("<script") == 1
    assert "<i>" not in page.replace("<i>%</i>", "")
    for text in (
        HOSTILE,
        "verlören ☂",
        "none of 3 <matches> leads",
        "<b>bad</b>.jpg",
        "it is <i>empty</i>",
        "<run>",
    ):
        assert text in parsed.text


def test_the_page_needs_no_other_file_and_allows_only_its_own_script(run: Run) -> None:
    page = run.page()
    parsed = Text(page)
    inside = {link for link in parsed.links if link.startswith("#")}
    assert inside
    assert {link.removeprefix("#") for link in inside} <= parsed.ids
    others = [link for link in parsed.links if link not in inside]
    assert others
    assert all(link.startswith("data:image/webp;base64,") for link in others)
    assert not re.search(r"url\(|@import|https?:", page)
    allowed = base64.b64encode(hashlib.sha256(parsed.script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'" in page
    )


def test_failures_come_first_and_a_wrong_ok_before_them(run: Run) -> None:
    text = Text(run.page()).text
    start = text.index("Failures come first")
    assert text.index("verlören", start) < text.index(HOSTILE, start)
    errors = {HOSTILE: PoseErrors(9.0, 3.0)}
    text = Text(run.page(metrics={"thresholds": [[0.25, 2], [5, 10]]}, errors=errors)).text
    assert "1 of the poses called ok is off" in text
    start = text.index("Failures come first")
    assert text.index(HOSTILE, start) < text.index("verlören", start)
    assert "9, 3°" in text


def test_pictures_of_failed_and_of_missing_photos(run: Run) -> None:
    page = run.page()
    assert page.count('class="pair"') == 1
    parsed = Text(page)
    assert f"of the inliers in {run.ok.references[0]}" in parsed.text
    assert any(label.startswith(f"Query {HOSTILE} beside database image") for label in parsed.labels)
    failed = QueryResult(
        HOSTILE, "pnp_failed", "7 inliers", references=(run.scene.db[2].name,), num_matches=30
    )
    assert "which gave most matches" in Text(run.page((failed,))).text


def test_retrieved_images_are_shown_unless_all_are(run: Run) -> None:
    names = [image.name for image in run.scene.db]
    failed = QueryResult(HOSTILE, "no_matches", "nothing")
    page = run.page((failed,), ranked={HOSTILE: tuple(names[2:4])})
    assert f"Beside {names[2]}, the most similar database image · number 1 of 2 retrieved" in Text(page).text
    assert [f"Database image {name}" in Text(page).labels for name in names[1:4]] == [False, True, True]
    every = run.page((failed,), ranked={HOSTILE: tuple(names)})  # in no particular order
    assert "retrieved" not in Text(every).text


def test_a_photo_is_embedded_once(run: Run) -> None:
    names = [image.name for image in run.scene.db]
    page = run.page(ranked={HOSTILE: (names[1],)})
    uris = re.findall(r'<image id="[^"]*" href="([^"]+)"', page)
    assert len(uris) == len(set(uris)) > 0


def test_the_number_of_pictures_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queryrows, "MAX_PICTURES", 1)
    page = run.page()
    assert page.count('class="pair"') == 0  # the failed one, without a photo, comes first
    assert HOSTILE in Text(page).text


def test_funnels_and_map_are_there(run: Run) -> None:
    text = " ".join(Text(run.page()).text.split())
    assert "in the map5" in text
    assert "see points of the map−1 no_matches1" in text
    assert "have a pose1" in text
    assert "5 of 5" in text
    for image in run.scene.db:
        assert image.name in text
    assert re.search(r"mean reprojection error, px\s*0\.\d", text)


def test_curves_of_every_group_and_the_plan(run: Run) -> None:
    truth = run.scene.ground_truth
    metrics = {
        **summarize(
            {HOSTILE: truth[HOSTILE]}, truth, {HOSTILE: "night", run.lost.name: "day"}, [(0.25, 2.0)]
        ),
        "thresholds": [[0.25, 2]],
        "per_query": [{"name": HOSTILE, "group": "night"}, {"name": run.lost.name, "group": "day"}],
    }
    page = run.page(metrics=metrics, errors={HOSTILE: PoseErrors(0.0, 0.0)}, truth=truth)
    labels = Text(page).labels
    plots = [label for label in labels if label.startswith(("Position", "Rotation"))]
    assert len(plots) == 2
    for label in plots:
        assert "all: reaches 50 %. day: reaches 0 %. night: reaches 100 %." in label
    assert page.count('class="curve') == 6
    assert "The map from above: points, 5 database cameras and 2 queries" in labels
    assert page.count('class="mark-failed"') == 2  # the legend's and its own
    assert "failed, at its true place" in page


def test_without_ground_truth_the_inliers_are_shown(run: Run) -> None:
    page = run.page()
    assert "recall" not in Text(page).text.lower()
    assert page.count('class="curve') == 3
    assert "have inliers" in "".join(Text(page).labels)


def test_without_queries(run: Run) -> None:
    page = run.page(())
    text = Text(page).text
    assert "No queries" in text
    assert "loc localize-photo" in text
    assert "script" not in Text(page).tags
    for absent in ("any status", "Recall", "Inliers", "NaN", "None"):
        assert absent not in text


def test_nothing_localized(run: Run) -> None:
    lost = tuple(replace(run.lost, name=name) for name in (HOSTILE, run.lost.name))
    truth = run.scene.ground_truth
    metrics = {**summarize({}, truth, {}, [(0.25, 2.0)]), "thresholds": [[0.25, 2]], "per_query": []}
    page = run.page(lost, metrics=metrics, truth=truth)
    text = Text(page).text
    assert "No median error" in text
    assert "Worst" not in text
    assert "nan" not in page.lower().replace("nano", "")


def test_five_thousand_queries_are_a_page_of_modest_size(run: Run) -> None:
    pose = run.bundle.poses[run.scene.db[0].name]
    results = tuple(
        QueryResult(
            f"q/{number:05}.jpg", "ok" if number % 3 else "pnp_failed", "r", pose if number % 3 else None
        )
        for number in range(5000)
    )
    page = run.page(results)
    assert page.count("<article") == 5000
    assert len(page) < 8_000_000


def test_a_page_of_loc_eval() -> None:
    summary = {
        **summarize({}, {"a/night/<q>.jpg": Pose(np.array([0, 0, 0, 1.0]), np.zeros(3))}, {}, [(0.25, 2.0)]),
        "thresholds": [[0.25, 2]],
        "queries": 1,
        "poses": 3,
        "unknown": 3,
        "per_query": [
            {"name": "a/night/<q>.jpg", "group": "all", "localized": False, "error": None, "error_deg": None}
        ],
    }
    page = render_evaluation(summary, title="<poses>")
    parsed = Text(page)
    assert "<poses>" in parsed.text
    assert "a/night/<q>.jpg" in parsed.text
    assert "3 of 3 poses are not in the ground truth" in parsed.text
    assert page.count('class="curve') == 2
    assert "script" not in parsed.tags


def test_the_stage_writes_page_and_metrics(run: Run, tmp_path: Path) -> None:
    poses = Poses(tmp_path / "poses" / "0123456789ab", run.results)
    made = evaluate(run.scene, run.bundle, poses, config=EvaluateConfig(), workdir=tmp_path, runtime=RUNTIME)
    groups = made.metrics["groups"]
    assert groups["all"]["queries"] == 2
    assert groups["all"]["localized"] == 1
    assert list(groups) == ["all", "day", "night"]
    assert list(groups["all"]["recall"].values()) == [0.5, 0.5, 0.5]
    assert made.metrics["status"] == {"no_matches": 1, "ok": 1}
    row = {each["name"]: each for each in made.metrics["per_query"]}
    assert row[HOSTILE]["error"] < 0.02
    assert row[run.lost.name]["error"] is None
    page = (made.folder / "index.html").read_text(encoding="utf-8")
    assert "0.25, 2°" in Text(page).text
    truth = read_poses(made.folder / "ground_truth.txt")
    assert sorted(truth) == sorted(run.scene.ground_truth)
    assert made.folder.parent == tmp_path / "report"


def test_database_poses_are_no_ground_truth_of_queries(run: Run, tmp_path: Path) -> None:
    db = run.scene.db[1].name
    scene = replace(
        run.scene, ground_truth={**run.scene.ground_truth, db: Pose(np.array([0, 0, 0, 1.0]), np.zeros(3))}
    )
    poses = Poses(tmp_path / "poses" / "0123456789ab", run.results)
    made = evaluate(scene, run.bundle, poses, config=EvaluateConfig(), workdir=tmp_path, runtime=RUNTIME)
    assert made.metrics["groups"]["all"]["queries"] == 2
