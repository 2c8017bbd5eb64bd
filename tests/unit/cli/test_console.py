"""Progress where stderr is no terminal."""

from __future__ import annotations

import pytest

from loc.cli.console import runtime


def test_progress_is_a_line_as_work_starts_and_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    with runtime("cpu", 1) as where:
        assert list(where.track(range(3), "features sift", 3)) == [0, 1, 2]
        assert list(where.track([], "poses", 0)) == []
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["progress: features sift 0/3", "progress: features sift 3/3, 0 s"]
