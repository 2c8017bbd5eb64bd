"""The report of a run in a real browser: whole, silent, from a file, without network, by day and night.

Chromium is needed; continuous integration installs it (apt-get install chromium).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from walls import wall_photo

from loc.retrieval.verification import Verified
from loc.stages.landmarks import Answer, Found
from loc.viz.retrieved import write_page

pytestmark = pytest.mark.xdist_group("seen_run")


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page.

    Attributes:
        dom: the document after its script ran, as HTML.
        console: what was written to the console, errors of the page among them.
        requests: URLs that the page (not the browser itself) asked for over the network.
    """

    dom: str
    console: list[str]
    requests: list[str]


class Browser:
    """Headless Chromium with a profile of its own, cut off from every host."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder = program, folder

    def open(self, page: Path, *options: str) -> Visit:
        log = self.folder / "net.json"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [
                self.program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-extensions",
                "--hide-scrollbars",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                f"--user-data-dir={self.folder / 'profile'}",
                "--enable-logging=stderr",
                f"--log-net-log={log}",
                *options,
                page.resolve().as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        console = re.findall(r"CONSOLE[:(]\d+\)?\] (.*)", done.stderr)
        return Visit(done.stdout, console, _requests(log))

    def shot(self, page: Path, name: str, *options: str, wh: tuple[int, int] = (1200, 2400)) -> np.ndarray:
        """A screenshot, ``(h, w, 3)`` uint8."""
        path = self.folder / name
        self.open(page, f"--screenshot={path}", f"--window-size={wh[0]},{wh[1]}", *options)
        return np.asarray(Image.open(path).convert("RGB"))


def _requests(log: Path) -> list[str]:
    """URLs in Chromium's network log that a document asked for."""
    events = json.loads(log.read_text())["events"]
    found = [event.get("params", {}) for event in events]
    return [each["url"] for each in found if each.get("initiator", "not an origin") != "not an origin"]


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        if os.environ.get("LOC_CI"):
            pytest.fail("continuous integration must have Chromium: apt-get install chromium")
        pytest.skip("needs Chromium (apt-get install chromium) to open the report in")
    return Browser(program, tmp_path)


@pytest.fixture
def page(seen_run: Path) -> Path:
    (found,) = (seen_run / "report").glob("*/index.html")
    return found


def rows(dom: str) -> list[str]:
    """Names of the queries' rows, in the order of the document; hidden ones left out."""
    articles = re.findall(r"<article [^>]*>", dom)
    return [
        re.search(r'data-name="([^"]*)"', each)[1]  # type: ignore[index]
        for each in articles
        if not re.search(r'\shidden(=""|\s|>)', each)
    ]


def test_the_browser_s_complaints_and_requests_would_be_seen(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://example.invalid/x.png"><script>oops()</script>')
    visit = browser.open(bad, "--dump-dom")
    assert any("oops is not defined" in line for line in visit.console)
    assert visit.requests == ["http://example.invalid/x.png"]


def test_the_page_opens_from_a_file_in_silence(browser: Browser, page: Path) -> None:
    visit = browser.open(page, "--dump-dom")
    assert visit.console == []
    assert visit.requests == []
    assert not re.search(r"https?://", page.read_text(encoding="utf-8"))
    names = rows(visit.dom)
    assert names[:2] == ["night/gone.png", "night/blank.png"]  # failures first
    assert names[2:] == ["day/&lt;b&gt;&amp;amp;.png", "night/b.png"]
    assert '<form class="tools" aria-label' in visit.dom  # the script ran: the form is no longer hidden
    assert visit.dom.count('class="pair"') == 3
    assert visit.dom.count('class="curve') == 6
    assert visit.dom.count('class="mark-failed"') == 3  # the legend's, and two at their true place
    assert "<b>&" not in visit.dom


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_something_is_to_be_seen(browser: Browser, page: Path, scheme: str) -> None:
    """Not blank, in both modes; what is in the upper left corner is the page's ground."""
    chosen = [] if scheme == "light" else ["--blink-settings=preferredColorScheme=0"]
    pixels = browser.shot(page, f"{scheme}.png", *chosen)
    ground = pixels[3, 3].astype(int)
    assert (ground.mean() > 200) == (scheme == "light")
    drawn = np.abs(pixels.astype(int) - ground).max(axis=2) > 40
    bands = np.array_split(drawn[:2000], 20)
    assert sum(band.any() for band in bands) >= 18  # from top to bottom
    assert len(np.unique(pixels.astype(np.int32) @ [65536, 256, 1])) > 500


@pytest.mark.usefixtures("browser")
def test_a_picture_for_documents(seen_run: Path, tmp_path: Path) -> None:
    tool, file = Path(__file__).parents[2] / "tools" / "report_picture.py", tmp_path / "new" / "report.png"
    for rows in ((), ("--rows",)):
        size = ("--width", "900", "--height", "700")
        subprocess.run([sys.executable, tool, seen_run, file, *size, *rows], check=True, timeout=90)
        picture = Image.open(file)
        assert picture.width == 900
        assert 300 < picture.height <= 700
        assert len(picture.getcolors() or []) > 20


def test_nothing_is_wider_than_a_phone(browser: Browser, page: Path, tmp_path: Path) -> None:
    """A probe in a copy of the page writes down what sticks out of a narrow window."""
    measure = "[innerWidth, document.documentElement.scrollWidth]"
    probe = f"<script>document.title = JSON.stringify({measure})</script>"
    copy = with_script(page, tmp_path / "narrow.html", probe)
    dom = browser.open(copy, "--dump-dom", "--window-size=500,900").dom
    width, needed = json.loads(re.search(r"<title>(\[.*?\])</title>", dom)[1])  # type: ignore[index]
    assert width == 500
    assert needed <= width


def test_queries_can_be_filtered_and_sorted(browser: Browser, page: Path, tmp_path: Path) -> None:
    def after(**chosen: str) -> list[str]:
        steps = "".join(
            f"f.elements.{name}.value = {json.dumps(value)};"
            f"f.elements.{name}.dispatchEvent(new Event('input', {{bubbles: true}}));"
            f"f.elements.{name}.dispatchEvent(new Event('change', {{bubbles: true}}));"
            for name, value in chosen.items()
        )
        probe = f"<script>const f = document.querySelector('form.tools'); {steps}</script>"
        return rows(browser.open(with_script(page, tmp_path / "copy.html", probe), "--dump-dom").dom)

    assert after(status="ok", group="night") == ["night/b.png"]
    assert after(text="BLANK") == ["night/blank.png"]
    by_name = ["day/&lt;b&gt;&amp;amp;.png", "night/b.png", "night/blank.png", "night/gone.png"]
    assert after(sort="name") == by_name


def test_answers_of_an_index_open_in_silence(browser: Browser, tmp_path: Path) -> None:
    query, image = wall_photo(tmp_path / "q.png", 0, 1), wall_photo(tmp_path / "i.png", 0, 0)
    xy = np.array([[40.5, 50.5], [100.5, 60.5], [90.5, 150.5]], np.float32)
    verified = Verified(3, np.array([[0, 0], [1, 1], [2, 2]], np.int32), np.eye(2, 3), 9)
    found = (Found("i.png", 0.75, image, verified, xy), Found("gone.png", 0.1, tmp_path / "gone.png"))
    page = tmp_path / "answers.html"
    write_page(page, [Answer("q.png", "match", "", found, 0.9, "why", query, xy)], title="wall")
    visit = browser.open(page, "--dump-dom")
    assert visit.console == []
    assert visit.requests == []
    pixels = browser.shot(page, "answers.png", wh=(1000, 700))
    drawn = np.abs(pixels.astype(int) - pixels[3, 3].astype(int)).max(axis=2) > 40
    assert drawn[:, :500].mean() > 0.2  # the photos
    probe = (
        "<script>document.title = JSON.stringify([innerWidth, document.documentElement.scrollWidth])</script>"
    )
    copy = with_script(page, tmp_path / "narrow.html", probe)
    dom = browser.open(copy, "--dump-dom", "--window-size=500,900").dom
    width, needed = json.loads(re.search(r"<title>(\[.*?\])</title>", dom)[1])  # type: ignore[index]
    assert needed <= width == 500


def with_script(page: Path, copy: Path, script: str) -> Path:
    """The page with another script at its end, and without the policy that would forbid it."""
    text = page.read_text(encoding="utf-8")
    text, removed = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    assert removed == 1
    copy.write_text(text.replace("</body>", f"{script}</body>"), encoding="utf-8")
    return copy
