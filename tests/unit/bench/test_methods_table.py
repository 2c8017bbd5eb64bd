"""What the tables of ``loc bench methods`` say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loc.bench.methods import PAIRS, Result
from loc.bench.methods_table import tables

STATS = {
    "images": 8,
    "registered": 7,
    "points": 1234,
    "mean_track_length": 3.456,
    "mean_reprojection_error_px": 0.789,
}
SECONDS = {"wall": 90.4, "processor": 30.6}


def group(queries: int, *recall: float, error: float | None = 0.0123, degrees: float | None = 1.5) -> Any:
    names = ("0.25, 2°", "0.5, 5°", "5, 10°")
    shares = dict(zip(names, recall, strict=True))
    return {"queries": queries, "recall": shares, "median_error": error, "median_error_deg": degrees}


def result(name: str, method: str, **data: Any) -> Result:
    return Result(name, method, Path(), {"seconds": SECONDS, "resumed": False, **data})


def test_the_town_counts_queries_by_day_and_by_night() -> None:
    groups = {"day": group(12, 1.0, 1.0, 1.0), "night": group(14, 0.0, 3 / 14, 6 / 14)}
    found = result("town", "sift", map=STATS, queries=26, status={"ok": 17, "pnp_failed": 9}, groups=groups)
    ((title, header, (row,)),) = tables([found])
    assert title == "town: queries within 0.25, 2°; 0.5, 5°; 5, 10°"
    named = dict(zip(header, row, strict=True))
    assert named["registered"] == "7 of 8"
    assert (named["points"], named["track"], named["px"]) == ("1234", "3.46", "0.79")
    assert named["ok"] == "17 of 26"
    assert named["day"] == "12 / 12 / 12 of 12"
    assert named["night"] == "0 / 3 / 6 of 14"
    assert (named["processor s"], named["s"]) == ("31", "90")


def test_held_out_photos_have_a_median_error_even_if_it_is_infinite() -> None:
    good = result("kermit", "sift", map=STATS, queries=3, status={"ok": 3}, groups={"all": group(3, 1, 1, 1)})
    lost = {"all": group(3, 0, 0, 0, error=None, degrees=None)}
    bad = result("kermit", "r2d2", map=STATS, queries=3, status={"pnp_failed": 3}, groups=lost)
    ((title, header, rows),) = tables([good, bad])
    assert title == "kermit"
    assert [row[header.index("median error")] for row in rows] == ["0.012, 1.5°", "-, -°"]
    assert [row[header.index("ok")] for row in rows] == ["3 of 3", "0 of 3"]


def test_a_method_without_a_map_keeps_its_row() -> None:
    failed = "0 of 8 images produced 3-D points"
    for name in ("town", "kermit"):
        ((_, header, (row,)),) = tables([result(name, "r2d2", failed=failed)])
        assert len(header) == len(row)
        assert row[:3] == ["r2d2", failed, "-"]


def test_the_time_of_an_interrupted_measurement_is_a_lower_bound() -> None:
    found = result("kermit", "sift", map=STATS, queries=3, status={}, groups={"all": group(3, 0, 0, 0)})
    found.data["resumed"] = True
    ((_, _, (row,)),) = tables([found])
    assert row[-2:] == ["> 31", "> 90"]


def test_pairs_show_the_distance_its_extremes_and_the_inliers() -> None:
    right = {"pair": "a", "matches": 100, "inliers": 40, "right": True}
    wrong = {"pair": "b", "matches": 5, "inliers": 0, "right": False}
    right |= {"median_px": 2.4, "best_px": 1.2, "worst_px": 30.0}
    wrong |= {"median_px": None, "best_px": None, "worst_px": None}
    found = result(PAIRS, "sift", pairs=[right, wrong], right=1)
    ((_, header, (row,)),) = tables([found])
    assert header[:4] == ["method", "within 12 px", "a", "b"]
    assert row[:4] == ["sift", "1 of 2", "2 (1-30), 40/100", "no geometry, 0/5"]


def test_one_table_per_set_in_the_order_of_the_results() -> None:
    scenes = [
        result(name, method, failed="no map")
        for name in ("lund_door", "kermit")
        for method in ("sift", "r2d2")
    ]
    assert [(title, len(rows)) for title, _, rows in tables(scenes)] == [("lund_door", 2), ("kermit", 2)]
