"""A picture of a run's report for documents: ``python tools/report_picture.py RUN FILE.png``.

Opens the report in headless Chromium (``apt-get install chromium``), which may ask no host for
anything, and stores what a window of the given size shows, with 256 colours. ``make pictures`` makes
those of the README with it and with ``loc show --png``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def report_page(run: Path) -> Path:
    """The report that ``run.json`` names."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    page: Path = run / record["report"] / "index.html"
    return page


def take(page: Path, file: Path, wh: tuple[int, int]) -> None:
    """Store what a window of ``wh`` px shows of the page's beginning."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("Chromium is not installed\n  apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size, profile = f"--window-size={wh[0]},{wh[1]}", f"--user-data-dir={folder}/profile"
        subprocess.run(
            [browser, *OPTIONS, size, profile, f"--screenshot={shot}", page.resolve().as_uri()],
            check=True,
            capture_output=True,
            timeout=120,
        )
        picture = Image.open(shot).convert("RGB")
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with a report")
    parser.add_argument("file", type=Path, help="PNG to write")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=2400)
    chosen = parser.parse_args()
    take(report_page(chosen.run), chosen.file, (chosen.width, chosen.height))


if __name__ == "__main__":
    main()
