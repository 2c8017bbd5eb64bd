"""`loc index` and `loc retrieve`: what a stranger with a folder of photos types."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import Cli, fails
from walls import PLACES, VIEWS, wall_photo

SMALL = ["--set", "features.max_keypoints=200", "--set", "features.first_octave=0", "--workers", "1"]
SMALL += ["--set", "globals.words=4", "--device", "cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index cli")
    for place in range(PLACES):
        for number in range(VIEWS):
            wall_photo(folder / "photos" / f"{number}" / f"<b>{place}.png", place, number)
        wall_photo(folder / "queries" / f"{place}.png", place, VIEWS)
    wall_photo(folder / "elsewhere & away.png", 99, 0)
    return folder


@pytest.fixture(scope="module")
def index(made: Path) -> Path:
    """Built by a process that was killed while it did, and then by another."""
    code = (
        "import os, signal, sys\nfrom loc.stages import places\nfrom loc.retrieval.index import VectorIndex\n"
        "places._PORTION_IMAGES = 3\nplain = VectorIndex.add\ncalls = []\n"
        "def add(self, *args):\n    plain(self, *args)\n    calls.append(1)\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "VectorIndex.add = add\nfrom loc.cli import main\nmain(sys.argv[1:])"
    )
    argv = ["index", "build", made / "photos", "-o", made / "index", "--globals", "vlad", *SMALL]
    command = [sys.executable, "-c", code, *map(str, argv)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    assert done.returncode == -9, done.stderr
    return made / "index"


def test_from_a_folder_of_photos_to_an_answer(cli: Cli, made: Path, index: Path) -> None:
    assert cli("retrieve", made / "queries" / "0.png", "--index", index) == 3
    fails(cli, 3, "is half built")
    assert cli("index", "build", made / "photos", "-o", index, "--workers", "1", "--json") == 0, cli.err
    assert (len(cli.json["new"]), cli.json["unchanged"]) == (PLACES * VIEWS - 6, 6)
    assert cli("index", "info", index) == 0
    assert re.search(r"images +12\n", cli.out)
    assert "at the first build; queries and added photos use it" in cli.out
    assert re.search(r"compaction +not needed", cli.out)
    assert cli("index", "search", index, made / "queries" / "1.png", "-k", 3) == 0
    assert len(cli.out.splitlines()) == 4
    assert "not verified" in cli.out
    page = made / "pages" / "answers.html"
    away = made / "elsewhere & away.png"
    asked = [made / "queries", away, "missing.jpg"]
    assert cli("retrieve", *asked, "--index", index, "-k", 3, "--html", page, "--json") == 0
    answers = cli.json
    assert [each["status"] for each in answers] == ["match"] * PLACES + ["no_match", "unreadable"]
    for place, answer in enumerate(answers[:PLACES]):
        assert {image["name"] for image in answer["images"]} == {f"{n}/<b>{place}.png" for n in range(VIEWS)}
        assert answer["images"][0]["inliers"] > answers[PLACES]["images"][0]["inliers"]
        assert answer["probability"] > 0.5 > answers[PLACES]["probability"]
    text = page.read_text(encoding="utf-8")
    assert "&lt;b&gt;0.png" in text
    assert "<b>0.png" not in text
    assert "elsewhere &amp; away.png" in text
    assert not re.search(r"https?://", text)
    assert text.count('class="pair"') == PLACES + 1
    assert cli("retrieve", away, "--index", index, "--no-verify", "-k", 1) == 0
    assert "inliers" not in cli.out
    assert cli("retrieve", "missing.jpg", "--index", index) == 3
    assert "unreadable" in cli.out


def test_growing_and_shrinking(cli: Cli, made: Path, index: Path, tmp_path: Path) -> None:
    assert cli("index", "build", made / "photos", "-o", index, "--workers", "1") == 0, cli.err
    new = wall_photo(tmp_path / "new ü.png", 50, 0)
    assert cli("index", "add", index, new, "--workers", "1") == 0, cli.err
    assert "1 new, 0 changed" in cli.out
    assert cli("index", "search", index, wall_photo(tmp_path / "q.png", 50, 1), "-k", 1, "--json") == 0
    assert cli.json[0]["images"][0]["name"] == "new ü.png"
    assert cli("index", "remove", index, "new.png") == 3
    fails(cli, 3, "no image of")
    assert "did you mean 'new ü.png'" in cli.err
    assert cli("index", "remove", index, "new*", "--json") == 0
    assert cli.json == {"removed": ["new ü.png"], "images": PLACES * VIEWS}
    assert cli("index", "compact", index) == 0
    assert "exact" in cli.out
    assert cli("index", "info", index, "--json") == 0
    assert cli.json["vectors"]["dead_vectors"] == 0


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["index", "info", "."], 3, "is not an index of photos"),
        (["index", "search", ".", "a.jpg"], 3, "is not an index of photos"),
        (["retrieve", "a.jpg", "--index", "missing"], 3, "is not an index of photos"),
        (["index", "build", "missing", "-o", "x"], 3, "does not exist"),
        (["index", "build", "missing.npy", "-o", "x"], 3, "does not exist"),
        (["index", "build", ".", "-o", "x", "--globals", "gme"], 2, "no plug-in or preset is called 'gme'"),
        (["index", "build", ".", "-o", "x", "--of", "all"], 2, "--of is global or local"),
        (["index", "build", ".", "-o", "x", "--kind", "best"], 2, "index.kind"),
        (["index", "build", ".", "-o", "x", "--set", "index.list=3"], 2, "index.list is not an option"),
        (["index", "build", ".", "-o", "x", "--set", "matcher=nearest"], 2, "is no option of an index"),
        (["index", "build", "a.npy", "-o", "x", "--globals", "vlad"], 2, "no extractor is needed"),
        (["retrieve", "a.jpg", "--index", ".", "--rerank", "best"], 2, "rerank.use"),
        (["retrieve", "a.jpg", "--index", ".", "--html", "a.jpg"], 2, "--html a.jpg is no page"),
        (["retrieve", "a.jpg", "--index", ".", "--html", "."], 3, ". is a folder"),
    ],
)
def test_mistakes(
    cli: Cli, argv: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(*argv) == code
    fails(cli, code, message)
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_a_file(cli: Cli, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    np.save(tmp_path / "v.npy", rows)
    np.save(tmp_path / "q.npy", rows[4:5])
    np.save(tmp_path / "longer.npy", np.ones((1, 9), np.float32))
    assert cli("index", "build", tmp_path / "v.npy", "-o", tmp_path / "i", "--kind", "exact") == 0, cli.err
    assert cli("index", "search", tmp_path / "i", tmp_path / "q.npy", "-k", 2, "--json") == 0
    assert cli.json[0]["images"][0]["name"] == "000004"
    assert cli("index", "search", tmp_path / "i", tmp_path / "longer.npy") == 3
    fails(cli, 3, "has 9 values")
    assert cli("retrieve", "a.jpg", "--index", tmp_path / "i") == 2
    fails(cli, 2, "cannot describe a photo")
    assert cli("index", "info", tmp_path / "i") == 0
    assert "vectors that were given to it" in cli.out


def test_a_calibration_from_elsewhere_writes_nothing_else_on_the_terminal() -> None:
    from loc.cli.retrieve import answer_lines
    from loc.stages.landmarks import Answer

    (line,) = answer_lines(
        Answer("a.jpg", "match", probability=0.9, note="calibrated on \x1b[2J\nb.jpg: match")
    )
    assert line.isprintable()
