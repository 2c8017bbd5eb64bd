"""PCA-whitening from moments."""

from __future__ import annotations

import numpy as np
import pytest

from loc.errors import ContractError, DataError, StoreError
from loc.nets.whitening import Moments, check_whitening, whitened


def sample(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(6, 6))
    return (rng.normal(size=(count, 6)) * [9, 5, 3, 1, 0.5, 0.1] @ mixing + 4).astype(np.float32)


def moments(rows: np.ndarray, parts: int = 1) -> Moments:
    found = Moments(rows.shape[1])
    for part in np.array_split(rows, parts):
        found.add(part)
    return found


def test_whitened_rows_are_uncorrelated_and_of_one_size() -> None:
    rows = sample()
    state = moments(rows).whitening(4)
    projected = (rows - state["mean"]) @ state["projection"].T
    assert np.cov(projected.T, bias=True) == pytest.approx(np.eye(4), abs=0.02)
    assert projected.mean(axis=0) == pytest.approx(np.zeros(4), abs=0.01)


def test_power_a_quarter_leaves_half_of_the_spread() -> None:
    rows = sample()
    projected = (rows - rows.mean(0)) @ moments(rows).whitening(3, power=0.25)["projection"].T
    plain = np.linalg.eigvalsh(np.cov(rows.T, bias=True))[::-1][:3]
    assert projected.var(axis=0) == pytest.approx(np.sqrt(plain), rel=0.01)


def test_parts_do_not_matter() -> None:
    one, many = (moments(sample(), parts).whitening(4) for parts in (1, 37))
    for name in one:
        assert one[name] == pytest.approx(many[name], rel=1e-4, abs=1e-5)


def test_rows_become_unit_and_zeros_stay() -> None:
    rows = sample()
    rows[3] = 0
    norms = np.linalg.norm(whitened(rows, moments(rows).whitening(4)), axis=1)
    assert norms[3] == 0
    assert np.delete(norms, 3) == pytest.approx(np.ones(len(rows) - 1), abs=1e-5)


def test_fewer_than_ten_vectors_per_dimension_are_refused() -> None:
    few = moments(sample(39))
    with pytest.raises(
        DataError, match=r"to 4 values cannot be learned from 39 vectors \(images\)"
    ) as caught:
        few.whitening(4)
    assert caught.value.next_step == "set globals.pca_dim=3, or null for none"
    few.whitening(3)
    with pytest.raises(DataError, match="PCA-whitening to 7 values"):
        moments(sample()).whitening(7)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ContractError, match="have 6 values, got 5"):
        moments(sample()).add(np.zeros((2, 5), np.float32))
    state = moments(sample()).whitening(4)
    assert sorted(check_whitening(state, (4, 6))) == ["mean", "projection"]
    with pytest.raises(StoreError, match="does not fit its configuration: projection"):
        check_whitening(state, (3, 6))
