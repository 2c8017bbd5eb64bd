"""What surrounds DELF's network, against single operations of TensorFlow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from delf_fixtures import assert_near

from loc.nets.delf import joined
from loc.nets.pyramid import (
    Detections,
    Level,
    Projection,
    level_hw,
    resize_bilinear,
    select,
    suppress,
    unit_rows,
)
from loc.nets.resnet import Convolution, Step, max_pool
from loc.nets.selected import as_features
from loc.weights.tensorflow.facts import LayerFacts


@pytest.fixture(scope="module")
def ops(request):
    return np.load(request.getfixturevalue("shared") / "fixtures/delf/ops.npz")


def resized(image: np.ndarray, like: np.ndarray, grid: str) -> np.ndarray:
    source = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return resize_bilinear(source, like.shape[:2], grid)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("case", range(5))
def test_resize_on_both_grids(ops, case) -> None:
    legacy, half = ops[f"resize_legacy_{case}"], ops[f"resize_halfpixel_{case}"]
    np.testing.assert_array_equal(resized(ops["resize_in"], legacy, "legacy"), legacy)
    assert_near(resized(ops["resize_in"], half, "half_pixel"), half, 3e-6)


def test_resize_of_a_row() -> None:
    row = torch.tensor([0.0, 10, 20, 30]).view(1, 1, 1, 4)

    def to_eight(grid: str) -> list[float]:
        return resize_bilinear(row, (1, 8), grid).flatten().tolist()

    assert to_eight("legacy") == [0, 5, 10, 15, 20, 25, 30, 30]
    assert to_eight("half_pixel") == [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]
    np.testing.assert_allclose(to_eight("corners"), np.linspace(0, 30, 8), rtol=1e-6)


def test_sizes_are_rounded_half_to_even(ops) -> None:
    for hw, sizes in zip(ops["round_hw"].tolist(), ops["round_size"], strict=True):
        for scale, expected in zip(ops["round_scales"].tolist(), sizes.tolist(), strict=True):
            assert level_hw(tuple(hw), scale) == tuple(expected)


def test_suppression(ops) -> None:
    cases = [name for name in ops.files if name.startswith("nms_iou")]
    assert len(cases) > 3
    for name in cases:
        iou, most = name.removeprefix("nms_iou").split("_max")
        kept = suppress(ops["nms_boxes"], ops["nms_scores"], most=int(most), iou=float(iou))
        np.testing.assert_array_equal(kept, ops[name], err_msg=name)


def test_suppression_of_boxes_without_area() -> None:
    boxes = np.asarray([[0, 0, 0, 4], [0, 0, 0, 4], [0, 0, 4, 4], [4, 4, 0, 0]], np.float32)
    kept = suppress(boxes, np.asarray([1, 1, 3, 2], np.float32), most=9, iou=0.5)
    assert kept.tolist() == [2, 0, 1]  # the last is the third one, corners exchanged


def test_selection_at_the_threshold(ops) -> None:
    """Scores on the threshold are kept."""
    attention = torch.from_numpy(ops["select_attention"].copy())
    threshold, scale = float(ops["select_abs_thres"]), float(ops["select_scale"])
    assert (attention == threshold).any()
    level = Level(scale, torch.zeros(*attention.shape, 2), attention, 32.0, (-145.0, 145.0))
    found = select([level], threshold=threshold, most=1000, iou=1.0, channels=2)
    order = np.argsort(-attention.numpy().ravel()[ops["select_indices"]], kind="stable")
    np.testing.assert_array_equal(found.boxes, ops["select_boxes"][order])
    np.testing.assert_array_equal(found.locations, ops["select_centers"][order])
    np.testing.assert_array_equal(found.scales, ops["select_scales"][order])


def test_normalization(ops) -> None:
    assert_near(unit_rows(ops["l2_in"]), ops["l2_out"], 1e-6)
    assert_near(joined(ops["globpost_in"]), ops["globpost_out"].ravel(), 1e-6)


def as_maps(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("kind", "kernel"), [("conv7", 7), ("conv3", 3)])
@pytest.mark.parametrize("size", ["even", "odd", "mixed"])
def test_strided_convolutions(ops, kind, kernel, size) -> None:
    weight = torch.from_numpy(ops[f"{kind}_{size}_w"].copy()).permute(3, 2, 0, 1)
    facts = LayerFacts(stride=2, pad=((kernel - 1) // 2, (kernel - 1) // 2))
    layer = Convolution("a", {"a.weight": weight}, facts, torch.empty(0))
    got = layer(as_maps(ops[f"pool_{size}_in"]))[0].permute(1, 2, 0).numpy()
    assert_near(got, ops[f"{kind}_{size}_out"], 2e-6)


@pytest.mark.parametrize("size", ["even", "odd", "mixed"])
def test_pooling(ops, size) -> None:
    got = max_pool(as_maps(ops[f"pool_{size}_in"]), Step(3, 2, "same"))
    np.testing.assert_array_equal(got[0].permute(1, 2, 0).numpy(), ops[f"pool_{size}_out"])


def test_steps() -> None:
    """TensorFlow's rule of `SAME`: the odd zero goes to the end."""
    step = Step(3, 2, "same")
    assert [step.before_after(size) for size in (4, 5)] == [(0, 1), (1, 1)]
    assert [step.cells(size) for size in (1, 4, 5)] == [1, 2, 3]
    assert Step(7, 2, (3, 3)).cells(5) == 3


def test_projection() -> None:
    """By hand: (3, 4) becomes (0.6, 0.8); less the mean (0.1, 0.3) it is (0.5, 0.5)."""
    components = np.asarray([[0, 1], [1, 0]], np.float32)
    mean = np.asarray([0.1, 0.3], np.float32)
    rows = np.asarray([[3, 4]], np.float32)
    np.testing.assert_allclose(Projection(mean, components)(rows), [[0.5**0.5] * 2], rtol=1e-6)
    white = Projection(mean, components, np.asarray([1, 0.5], np.float32))(rows)
    np.testing.assert_allclose(white, np.asarray([[1, 2]]) / 5**0.5, rtol=1e-6)


def test_an_empty_pyramid() -> None:
    found = select([], threshold=0.0, most=10, iou=1.0, channels=7)
    assert found.features.shape == (0, 7)
    assert found.locations.shape == (0, 2)


def test_positions_stay_inside() -> None:
    """At scale 2 the last cell of an image of 17 px lies at 16 = 17 - 1; a shifted centre beyond it."""
    boxes = np.asarray([[16 - 9, 16 - 9, 16 + 9, 16 + 9]], np.float32)
    one = np.ones(1, np.float32)
    cells = Detections(boxes, np.asarray([[17.0, -3.0]], np.float32), one[:, None], one, one)
    released = as_features(cells, cells.features, (17, 17), offset="release", noise_px=9.0)
    centred = as_features(cells, cells.features, (17, 17), offset="centred", noise_px=9.0)
    assert released.keypoints.tolist() == [[16, 16]]
    assert centred.keypoints.tolist() == [[-0.5, 16.5]]
