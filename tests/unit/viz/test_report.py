"""The page: self-contained, escaped, worst first, and whole where things are missing."""

from __future__ import annotations

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
from loc.runtime.runtime import Runtime
from loc.sfm.bundle import MapBundle
from loc.sfm.locate import MatchedQuery, locate
from loc.stages.evaluate import evaluate
from loc.stages.poses import Poses
from loc.types import Pose, QueryResult
from loc.viz import report as report_module
from loc.viz.report import PoseErrors, render_report

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

    def page(self, results: tuple[QueryResult, ...] | None = None, **metrics: Any) -> str:
        return render_report(
            self.scene,
            self.bundle,
            self.results if results is None else results,
            metrics=metrics,
            errors={},
            title="<run>",
        )


class Text(HTMLParser):
    """Tags, attributes and visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")
        ]
        assert not any(name.startswith("on") for name, _ in attributes)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


def test_the_query_is_localized(run: Run) -> None:
    assert run.ok.status == "ok"


def test_names_are_escaped(run: Run) -> None:
    page = run.page()
    parsed = Text(page)
    assert "script" not in parsed.tags
    assert "<script" not in page
    assert "<i>" not in page
    for text in (
        HOSTILE,
        "verlören ☂",
        "none of 3 <matches> leads",
        "<b>bad</b>.jpg",
        "it is <i>empty</i>",
        "<run>",
    ):
        assert text in parsed.text


def test_the_page_needs_no_other_file(run: Run) -> None:
    page = run.page()
    links = Text(page).links
    assert links
    assert all(link.startswith("data:image/jpeg;base64,") for link in links)
    assert not re.search(r"url\(|@import|https?:", page)


def test_failures_come_first_and_a_wrong_ok_before_them(run: Run) -> None:
    text = Text(run.page()).text
    assert text.index("verlören", text.index("Queries")) < text.index(HOSTILE, text.index("Queries"))
    errors = {HOSTILE: PoseErrors(9.0, 3.0)}
    page = render_report(
        run.scene,
        run.bundle,
        run.results,
        metrics={"thresholds": [[0.25, 2], [5, 10]]},
        errors=errors,
        title="x",
    )
    text = Text(page).text
    assert "1 of the poses called ok is off" in text
    assert text.index(HOSTILE, text.index("Queries")) < text.index("verlören", text.index("Queries"))
    assert "9, 3°" in text


def test_pictures_of_failed_and_of_missing_photos(run: Run) -> None:
    page = run.page()
    assert page.count("<img") == 1
    assert "no picture" in page
    parsed = Text(page).text
    assert f"of the inliers, beside {run.ok.references[0]}" in parsed
    failed = QueryResult(
        HOSTILE, "pnp_failed", "7 inliers", references=(run.scene.db[2].name,), num_matches=30
    )
    assert "which gave most matches" in Text(run.page((failed,))).text


def test_the_number_of_pictures_is_bounded(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "MAX_THUMBNAILS", 1)
    assert run.page().count("<img") == 0  # the failed one, without a photo, comes first
    assert HOSTILE in Text(run.page()).text


def test_funnel_and_map_are_there(run: Run) -> None:
    text = Text(run.page()).text
    assert "registered: 5" in text
    assert "5 of 5" in text
    for image in run.scene.db:
        assert image.name in text
    assert re.search(r"mean reprojection error, px\s*0\.\d", text)


def test_without_queries(run: Run) -> None:
    text = Text(run.page(())).text
    assert "Queries" not in text
    assert "Accuracy" not in text


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
    assert "recall at 0.25, 2°" in Text(page).text
    assert made.folder.parent == tmp_path / "report"


def test_database_poses_are_no_ground_truth_of_queries(run: Run, tmp_path: Path) -> None:
    db = run.scene.db[1].name
    scene = replace(
        run.scene, ground_truth={**run.scene.ground_truth, db: Pose(np.array([0, 0, 0, 1.0]), np.zeros(3))}
    )
    poses = Poses(tmp_path / "poses" / "0123456789ab", run.results)
    made = evaluate(scene, run.bundle, poses, config=EvaluateConfig(), workdir=tmp_path, runtime=RUNTIME)
    assert made.metrics["groups"]["all"]["queries"] == 2
