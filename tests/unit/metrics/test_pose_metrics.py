"""Pose errors near zero and near 180 degrees, and summaries that count every query."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from loc.metrics.poses import pose_error, recall, summarize
from loc.types import Pose

THRESHOLDS = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
AT_ORIGIN = Pose(np.array([0.0, 0, 0, 1]), np.zeros(3))

unit = st.floats(-1, 1)
quats = arrays(np.float64, 4, elements=unit).filter(lambda q: np.linalg.norm(q) > 0.1)
vectors = arrays(np.float64, 3, elements=st.floats(-100, 100))


def turned(axis, angle_rad):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return np.array([*(axis * math.sin(angle_rad / 2)), math.cos(angle_rad / 2)])


def times(a, b):
    """Hamilton product of xyzw quaternions: the rotation b, then a."""
    vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
    return np.array([*vector, a[3] * b[3] - a[:3] @ b[:3]])


@pytest.mark.parametrize("angle_deg", [0, 1e-12, 1e-7, 1e-3, 1, 90, 179.999, 180])
def test_angle_is_sound_everywhere(angle_deg):
    base = turned([1, 2, 3], 0.7)
    other = times(turned([-2, 1, 0.5], math.radians(angle_deg)), base)
    position, angle = pose_error(Pose(other, np.zeros(3)), Pose(-base, np.zeros(3)))
    assert position == 0
    assert angle == pytest.approx(angle_deg, rel=1e-3 if angle_deg < 1e-9 else 1e-6, abs=2e-14)


@given(quats, quats, vectors, vectors)
def test_errors_agree_with_rotation_matrices_and_are_symmetric(q, r, s, t):
    a, b = Pose(q, s), Pose(r, t)
    position, angle = pose_error(a, b)
    cosine = (np.trace(a.rotation @ b.rotation.T) - 1) / 2
    assert math.cos(math.radians(angle)) == pytest.approx(cosine, abs=1e-9)
    assert position == pytest.approx(np.linalg.norm(a.center_in_world - b.center_in_world), abs=1e-9)
    assert pose_error(b, a) == pytest.approx((position, angle), rel=1e-9, abs=1e-12)
    assert pose_error(a, a) == pytest.approx((0, 0), abs=1e-6)


def test_position_is_that_of_the_centre_not_of_the_translation():
    truth = Pose(turned([0, 0, 1], 0), np.array([10.0, 0, 0]))
    estimate = Pose(turned([0, 0, 1], math.pi), np.array([-10.0, 0, 0]))
    assert pose_error(estimate, truth) == pytest.approx((0, 180))


def test_recall_counts_every_query():
    errors = [(0.1, 1.0), (0.1, 3.0), (0.25, 2.0), (100.0, 0.0), (math.inf, math.inf)]
    assert recall(errors, THRESHOLDS, 10) == pytest.approx([0.2, 0.3, 0.3])
    assert recall([], THRESHOLDS, 3) == [0, 0, 0]
    assert recall([], THRESHOLDS, 0) == [0, 0, 0]


def moved(x):
    return Pose(AT_ORIGIN.quat_xyzw, np.array([float(x), 0, 0]))


def test_summary_per_group():
    truth = dict.fromkeys(("d1", "d2", "d3", "n1", "n2"), AT_ORIGIN)
    results = {"d1": moved(0.1), "d2": moved(0.4), "n1": moved(9), "n2": None, "stranger": moved(0)}
    groups = {name: {"d": "day", "n": "night"}[name[0]] for name in truth}
    summary = summarize(results, truth, groups, THRESHOLDS)
    rows = summary["groups"]
    assert list(rows) == ["all", "day", "night"]
    assert (rows["all"]["queries"], rows["all"]["localized"]) == (5, 3)
    assert rows["all"]["recall"] == {"0.25, 2°": 0.2, "0.5, 5°": 0.4, "5, 10°": 0.4}
    assert rows["day"]["recall"]["5, 10°"] == pytest.approx(2 / 3)
    assert rows["day"]["median_error"] == pytest.approx(0.4)  # of 0.1, 0.4 and one that has no pose
    assert rows["night"]["median_error"] is None
    assert rows["night"]["max_error"] == pytest.approx(9)
    assert rows["night"]["max_error_deg"] == 0
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_summary_of_nothing():
    row = summarize({}, {}, {}, THRESHOLDS)["groups"]["all"]
    assert (row["queries"], row["localized"], row["median_error"], row["max_error_deg"]) == (0, 0, None, None)
    assert set(row["recall"].values()) == {0.0}
    lost = summarize({}, {"q": AT_ORIGIN}, {}, THRESHOLDS)["groups"]["all"]
    assert (lost["queries"], lost["localized"], lost["median_error"]) == (1, 0, None)
