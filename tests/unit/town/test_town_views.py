"""Who photographs what: names, groups, free places."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pytest

from loc.layouts.names import group_of, name_problem
from loc.town.views import SIZES, WEATHERS, Shot, shots

OBSTACLES = ((-1.5, 0.5, 4.2), (10.0, 8.0, 1.5), (-11.0, -10.0, 1.5))


@pytest.fixture(scope="module", params=["small", "default", "large"])
def plan(request: pytest.FixtureRequest) -> tuple[str, list[Shot]]:
    return request.param, shots(SIZES[request.param], OBSTACLES)


def test_counts_groups_and_names(plan: tuple[str, list[Shot]]) -> None:
    size, taken = SIZES[plan[0]], plan[1]
    names = [shot.name for shot in taken]
    assert names == sorted(set(names))
    assert not [name for name in names if name_problem(name)]
    basenames = [PurePosixPath(shot.name).name for shot in taken if shot.is_query]
    assert len(set(basenames)) == len(basenames)  # the benchmark's result file has basenames only
    groups = [group_of(shot.name) for shot in taken if shot.is_query]
    assert (groups.count("day"), groups.count("night")) == (size.day, size.night)
    assert len(taken) - len(groups) == size.stations * size.views + 2 * (size.sequence // 2)


def test_nobody_stands_in_a_fountain_or_outside_the_square(plan: tuple[str, list[Shot]]) -> None:
    for shot in plan[1]:
        x, y, z = shot.pose.center_in_world
        assert abs(x) < 19
        assert abs(y) < 15
        assert 1.2 < z < 2.0
        if "sequences" not in shot.name:
            assert all(np.hypot(x - ox, y - oy) > radius for ox, oy, radius in OBSTACLES)


def test_sun_is_up_by_day_and_lamps_are_lit_by_night(plan: tuple[str, list[Shot]]) -> None:
    for shot in plan[1]:
        weather = WEATHERS[shot.weather]
        assert weather.sun.is_up == (weather.lamps == 0) == ("night" not in shot.name)


def test_cameras_differ_and_distort(plan: tuple[str, list[Shot]]) -> None:
    params = {tuple(shot.camera.params) for shot in plan[1]}
    assert len(params) >= 5
    assert {shot.camera.model for shot in plan[1]} == {"SIMPLE_RADIAL"}
    assert min(p[3] for p in params) < -0.02 < 0.02 < max(p[3] for p in params)
    assert any(shot.camera.height > shot.camera.width for shot in plan[1])
