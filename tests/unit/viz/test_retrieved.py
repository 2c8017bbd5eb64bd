"""The page of `loc retrieve`: whole whatever is missing, escaped, without a network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from walls import wall_photo

from loc.retrieval.verification import Verified
from loc.stages.landmarks import Answer, Found
from loc.viz.retrieved import render_answers, write_page

HOSTILE = '<script>alert("1")</script>&amp;.png'


def answers(folder: Path) -> list[Answer]:
    """One of each status; photos that are there and that are not."""
    query, image = wall_photo(folder / "q.png", 0, 1), wall_photo(folder / "i.png", 0, 0)
    xy = np.array([[40.5, 50.5], [100.5, 60.5], [90.5, 150.5]], np.float32)
    pairs = np.array([[0, 0], [1, 1], [2, 2]], np.int32)
    verified = Verified(3, pairs, np.eye(2, 3), 9)
    best = Found("i.png", 0.75, image, verified, xy)
    gone = Found(HOSTILE, -0.01, folder / "gone.png", Verified(0, pairs[:0], None, 0), xy[:0])
    given = Found("vector", 123.0, None)
    return [
        Answer(HOSTILE, "match", "", (best, gone), 0.98, "calibrated", query, xy + np.float32(7)),
        Answer("b", "no_match", "3 inliers: <not> enough", (gone, best), 0.1, "calibrated", query, xy),
        Answer("c", "ranked", "", (given, best), path=query),
        Answer("d", "ranked", "", (best,)),  # asked with pixels in memory
        Answer("e", "nothing_found", "nothing was found", path=query),
        Answer("f", "unreadable", "it is <empty>", path=folder / "gone.png"),
    ]


def test_the_page(tmp_path: Path) -> None:
    made = answers(tmp_path)
    write_page(tmp_path / "new" / "page.html", made, title=HOSTILE)
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4
    assert "it is &lt;empty&gt;" in text
    assert not re.search(r"https?://", text)
    assert text.count("<article") == 6
    assert text.count('class="pair"') == 4  # not of pixels in memory, nor of what cannot be read
    first, second, *_ = text.split("<article")[1:]
    assert first.count('class="l ') > 0  # lines of matches
    assert 'class="first"' in first
    assert 'class="doubted"' in second
    assert second.count('class="l ') == 0
    assert "its photo is not there" in first
    assert "3 of 9 matches" in first
    assert "6 queries: 1 match, 1 no match, 2 not verified, 1 nothing found, 1 unreadable" in text
    assert len(re.findall(r"data:image/webp", text)) == 3  # query and image at two sizes: each once


def test_a_page_without_queries() -> None:
    assert "0 queries" in render_answers([], title="none")
