"""Positions and times in EXIF data, and the many ways in which they lie."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from loc.runtime.images import image_header

GPS = 0x8825
AACHEN = {1: "N", 2: (50.0, 46.0, 30.6), 3: "E", 4: (6.0, 5.0, 2.4)}


def header(path: Path, gps: dict | None = None, **tags) -> dict:
    exif = Image.Exif()
    if gps is not None:
        exif.get_ifd(GPS).update(gps)
    for tag, value in tags.items():
        (exif.get_ifd(0x8769) if tag != "t306" else exif)[int(tag[1:])] = value
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, exif=exif)
    return image_header(path)[1]


def test_degrees_minutes_seconds_and_hemispheres(tmp_path):
    position = header(tmp_path / "a.jpg", AACHEN)["gps"]
    assert position.latitude_deg == pytest.approx(50 + 46 / 60 + 30.6 / 3600, abs=1e-9)
    assert position.longitude_deg == pytest.approx(6 + 5 / 60 + 2.4 / 3600, abs=1e-9)
    assert position.altitude_m is None
    south_west = header(tmp_path / "b.jpg", {**AACHEN, 1: "S", 3: "W", 5: b"\0", 6: 173.5})["gps"]
    assert south_west.latitude_deg == -position.latitude_deg
    assert south_west.longitude_deg == -position.longitude_deg
    assert south_west.altitude_m == 173.5
    below = header(tmp_path / "c.jpg", {**AACHEN, 5: b"\1", 6: 400.0})["gps"]
    assert below.altitude_m == -400.0


@pytest.mark.parametrize(
    "change",
    [
        {2: (IFDRational(50, 0), IFDRational(0, 1), IFDRational(0, 1))},  # 50/0
        {2: (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))},
        {2: (91.0, 0.0, 0.0)},
        {4: (181.0, 0.0, 0.0)},
        {2: (50.0, 75.0, 0.0)},
        {2: (50.0, 46.0)},
        {2: 50.77},
        {1: "X"},
        {3: ""},
        {9: "V"},  # "void": the receiver had no fix
        {2: (0.0, 0.0, 0.0), 4: (0.0, 0.0, 0.0)},
    ],
)
def test_positions_that_lie_are_none(tmp_path, change):
    assert header(tmp_path / "a.jpg", {**AACHEN, **change})["gps"] is None


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_incomplete_positions_are_none(tmp_path, missing):
    gps = {tag: value for tag, value in AACHEN.items() if tag != missing}
    assert header(tmp_path / "a.jpg", gps)["gps"] is None


@pytest.mark.parametrize("altitude", [IFDRational(1, 0), 99_999.0])
def test_an_altitude_that_lies_leaves_the_position(tmp_path, altitude):
    position = header(tmp_path / "a.jpg", {**AACHEN, 6: altitude})["gps"]
    assert position is not None
    assert position.altitude_m is None


def test_damaged_tables_are_no_position(tmp_path):
    """Bytes of the EXIF block turned one at a time: no crash, and no place off the globe."""
    header(tmp_path / "a.jpg", AACHEN)
    whole = (tmp_path / "a.jpg").read_bytes()
    start = whole.index(b"Exif\0\0")
    end = start - 2 + int.from_bytes(whole[start - 2 : start], "big")
    for at in range(start + 6, end):
        (tmp_path / "b.jpg").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        position = image_header(tmp_path / "b.jpg")[1]["gps"]
        assert position is None or (abs(position.latitude_deg) <= 90 and abs(position.longitude_deg) <= 180)


def test_time(tmp_path):
    first = header(tmp_path / "a.jpg", t36867="2026:11:21 17:43:53", t37521="25")["timestamp_s"]
    later = header(tmp_path / "b.jpg", t306="2026:11:21 17:44:00")["timestamp_s"]
    assert later - first == pytest.approx(float(Fraction(27, 4)))


@pytest.mark.parametrize("text", ["0000:00:00 00:00:00", "2026-11-21", "", "2026:13:01 00:00:00", "\0"])
def test_times_that_lie_are_none(tmp_path, text):
    assert header(tmp_path / "a.jpg", t36867=text)["timestamp_s"] is None


def test_garbage_is_nothing_on_stderr(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    script = (
        "import sys; from pathlib import Path; from loc.runtime.images import image_header; "
        "print(image_header(Path(sys.argv[1]))[0])"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(8, 8)\n", "")
