"""A picture of a run's report for documents: ``python tools/report_picture.py RUN FILE.png [--rows]``.

Opens the report in headless Chromium (``apt-get install chromium``), which may ask no host for
anything, and stores what a window of the given size shows, with 256 colours: the beginning of the page,
or a row of each kind of query. ``make pictures`` makes those of the README with it and with
``loc show --png``.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


def report_page(run: Path) -> str:
    """The report that ``run.json`` names."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    page: Path = run / record["report"] / "index.html"
    return page.read_text(encoding="utf-8")


def of_each_kind(page: str) -> str:
    """The page with only the first query of every status and group."""
    kinds: dict[tuple[str, ...], str] = {}
    pattern = r'<article [^>]*id="(q\d+)"[^>]*data-status="([^"]*)" data-group="([^"]*)"'
    for row, *kind in re.findall(pattern, page):
        kinds.setdefault(tuple(kind), f"#{row}")
    hidden = "main > :not(#rows), #rows > * { display: none; }"
    shown = f"{', '.join(kinds.values())} {{ display: grid !important; }}" if kinds else ""
    return page.replace("</head>", f"<style>{hidden} {shown}</style></head>", 1)


def take(page: str, wh: tuple[int, int]) -> Image.Image:
    """What a window of ``wh`` px shows of a page, without the empty ground below."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("Chromium is not installed\n  apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        file, shot = Path(folder) / "page.html", Path(folder) / "shot.png"
        file.write_text(page, encoding="utf-8")
        size, profile = f"--window-size={wh[0]},{wh[1]}", f"--user-data-dir={folder}/profile"
        subprocess.run(
            [browser, *OPTIONS, size, profile, f"--screenshot={shot}", file.as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
        picture = Image.open(shot).convert("RGB")
    pixels = np.asarray(picture)
    used = np.flatnonzero((pixels != pixels[0, 0]).any(axis=(1, 2)))
    below = min(int(used.max()) + 30, picture.height) if len(used) else picture.height
    return picture.crop((0, 0, picture.width, below))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with a report")
    parser.add_argument("file", type=Path, help="PNG to write")
    parser.add_argument("--rows", action="store_true", help="only a query of every status and group")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=1880)
    chosen = parser.parse_args()
    page = report_page(chosen.run)
    picture = take(of_each_kind(page) if chosen.rows else page, (chosen.width, chosen.height))
    chosen.file.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, dither=Image.Dither.NONE).save(chosen.file, optimize=True)


if __name__ == "__main__":
    main()
