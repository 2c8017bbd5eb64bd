"""DELF's and DELG's networks against TensorFlow's maps, and what a changed graph does to them."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from delf_fixtures import MODELS, assert_near, fixture_image
from tensorflow_files import EditableGraph
from torch.nn.functional import interpolate

from loc.nets.delf import DelfNetwork, joined
from loc.nets.pyramid import Level, select, suppress
from loc.nets.selected import DELF_SCALES, DELG_SCALES
from loc.weights.tensorflow.convert import Converted, convert
from loc.weights.tensorflow.facts import PoolingFacts

SCALES = {"delf": DELF_SCALES, "delg": DELG_SCALES}
UNIT = "resnet_v1_50/block3/unit_6/bottleneck_v1"


def network(found: Converted) -> DelfNetwork:
    tensors = {name: torch.from_numpy(value) for name, value in found.tensors.items()}
    return DelfNetwork(tensors, found.facts, device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def nets(delf_models) -> dict[str, DelfNetwork]:
    return {name: network(convert(delf_models / path)) for name, path in MODELS.items()}


def maps_of(expected, kind: str) -> dict[float, np.ndarray]:
    """Scale → map."""
    names = [name for name in expected.files if name.startswith(f"{kind}_") and name[len(kind) + 1].isdigit()]
    return {float(name.partition("_")[2]): expected[name] for name in names}


def at(maps: dict[float, np.ndarray], scale: float) -> np.ndarray | None:
    return next((value for key, value in maps.items() if abs(key - scale) < 1e-4), None)


@pytest.mark.parametrize("name", MODELS)
def test_maps_and_selection(shared, nets, name) -> None:
    """Every array that the fixtures hold, from one pass over the pyramid."""
    folder = shared / "fixtures" / name
    expected = np.load(folder / "expected.npz")
    net, scales = nets[name], SCALES[name]
    overall = expected["global_scales_ind"].tolist() if name == "delg" else []
    levels, rows = net.describe(fixture_image(folder / "image.png"), scales, local=range(7), overall=overall)
    assert len(levels) == 7
    for level in levels:
        attention = at(maps_of(expected, "attention"), level.scale)
        assert_near(level.attention.numpy(), attention)
        features = at(maps_of(expected, {"delf": "block3", "delg": "reduced"}[name]), level.scale)
        if features is not None:
            assert_near(level.features.numpy(), features)
    for case in ("main", "top", "empty"):
        found = select(
            levels,
            threshold=float(expected[f"{case}_abs_thres"]),
            most=int(expected[f"{case}_max_feature_num"]),
            iou=net.facts.local.nms_iou,
            channels=net.channels,
        )
        for key, got in (
            ("boxes", found.boxes),
            ("scales", found.scales),
            ("locations", found.locations),
        ):
            assert_near(got, expected[f"{case}_{key}"], 1e-6)
        assert_near(found.scores[:, None], expected[f"{case}_scores"])
        assert_near(found.features, expected[f"{case}_features"]) if case != "empty" else None
    if name == "delg":
        assert_near(rows, expected["main_global_descriptors"])
        assert_near(joined(rows), expected["main_global"])


def test_inner_maps(shared, nets) -> None:
    expected = np.load(shared / "fixtures/delg/expected.npz")
    image = fixture_image(shared / "fixtures/delg/image.png")
    (level,), _ = nets["delg"].describe(image, (0.5,), local=[0], overall=[])
    pixels = ((image[None] * 255).round() - 128) / 128
    from loc.nets.pyramid import level_hw, resize_bilinear

    with torch.inference_mode():
        shown = resize_bilinear(pixels, level_hw((237, 310), 0.25), "legacy")
        assert_near(shown[0].permute(1, 2, 0).numpy(), expected["input_0.25"], 1e-6)
        half = resize_bilinear(pixels, level_hw((237, 310), 0.5), "legacy")
        block3 = nets["delg"].trunk.block3(half)
        assert_near(block3[0].permute(1, 2, 0).numpy(), expected["block3_0.5"])
        assert_near(nets["delg"].trunk.block4(block3)[0].permute(1, 2, 0).numpy(), expected["block4_0.5"])
    assert_near(level.features.numpy(), expected["reduced_0.5"])


@pytest.fixture
def altered(delf_models, tmp_path):
    """The DELF network after a change of its graph; the variables stay."""

    def build(change) -> DelfNetwork:
        source = delf_models / MODELS["delf"]
        edited = EditableGraph(source / "saved_model.pb")
        change(edited)
        edited.save(tmp_path / "model/saved_model.pb")
        (tmp_path / "model/variables").symlink_to(source / "variables", target_is_directory=True)
        shutil.copytree(delf_models / "delf_gld_like/pca", tmp_path / "pca")
        return network(convert(tmp_path / "model"))

    return build


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 97, 130)).astype(np.float32)) / 255


def normalized(image: torch.Tensor) -> torch.Tensor:
    return ((image[None] * 255).round() - 128) / 128


def test_half_pixel_centers_are_followed(altered, nets, image) -> None:
    def change(graph: EditableGraph) -> None:
        for node in graph.both("ResizeBilinear"):
            node.set("half_pixel_centers", True)

    net = altered(change)
    (level,), _ = net.describe(image, (0.7071,), local=[0], overall=[])
    size = (69, 92)
    with torch.inference_mode():
        shown = interpolate(normalized(image), size, mode="bilinear", align_corners=False)
        expected = net.trunk.block3(shown)[0].permute(1, 2, 0).numpy()
    assert_near(level.features.numpy(), expected)
    (legacy,), _ = nets["delf"].describe(image, (0.7071,), local=[0], overall=[])
    assert float((legacy.features - level.features).abs().max()) > 0.05 * float(level.features.max())


def test_an_epsilon_is_followed(altered, nets, image) -> None:
    """A larger epsilon is a larger variance."""

    def change(graph: EditableGraph) -> None:
        for node in graph.both(f"{UNIT}/conv3/BatchNorm/FusedBatchNormV3"):
            node.set("epsilon", 0.25)

    net = altered(change)
    with torch.inference_mode():
        got = net.trunk.block3(normalized(image))
        plain = nets["delf"].trunk.block3(normalized(image))
    assert float((got - plain).abs().max()) > 1e-3 * float(plain.max())
    found = net.trunk._layers["block3.5.conv3"].weight / nets["delf"].trunk._layers["block3.5.conv3"].weight
    assert 0.3 < float(found.nanmedian()) < 1


def test_a_stride_is_followed(altered, nets, image) -> None:
    """Without its stride the last unit gives a map of twice the size, every other cell of which is known."""

    def change(graph: EditableGraph) -> None:
        for name in (f"{UNIT}/conv2/Conv2D", f"{UNIT}/shortcut/MaxPool"):
            for node in graph.both(name):
                node.set("strides", (1, 1, 1, 1))
        for node in graph.both("mul_1/x"):
            node.set("value", np.asarray(16, np.float32))

    net = altered(change)
    (fine,), _ = net.describe(image, (1.0,), local=[0], overall=[])
    (coarse,), _ = nets["delf"].describe(image, (1.0,), local=[0], overall=[])
    assert fine.features.shape[:2] == (7, 9)
    assert_near(fine.features[::2, ::2].numpy(), coarse.features.numpy(), 1e-5)
    assert (fine.step, coarse.step) == (16, 32)
    cells = select([fine], threshold=0.0, most=1000, iou=1.0, channels=1024)
    assert sorted({float(y) for y in cells.locations[:, 0]}) == [16.0 * row for row in range(7)]


def test_the_receptive_field_and_suppression_are_followed(altered, image) -> None:
    def change(graph: EditableGraph) -> None:
        for node in graph.both("mul_1/x"):
            node.set("value", np.asarray(30, np.float32))
        for node in graph.both("add/y"):
            node.set("value", np.asarray([-100, -100, 120, 120], np.float32))
        graph["non_max_suppression/iou_threshold"].set("value", np.asarray(0.5, np.float32))

    net = altered(change)
    levels, _ = net.describe(image, (0.5, 1.0), local=[0, 1], overall=[])
    iou = net.facts.local.nms_iou
    every = select(levels, threshold=0.0, most=1000, iou=1.0, channels=1024)
    some = select(levels, threshold=0.0, most=1000, iou=iou, channels=1024)
    corner = every.boxes[every.scales == 1][:, :2]
    np.testing.assert_allclose(np.unique(corner[:, 0]), [-100, -70, -40, -10])
    np.testing.assert_allclose(
        every.boxes[:, 2:] - every.boxes[:, :2], 220 * every.scales[:, None] * [[1, 1]]
    )
    np.testing.assert_allclose(every.locations[0], (every.boxes[0, :2] + every.boxes[0, 2:]) / 2)
    assert iou == 0.5
    assert 0 < len(some.scores) < len(every.scores)
    np.testing.assert_array_equal(
        suppress(some.boxes, some.scores, most=1000, iou=0.5), range(len(some.scores))
    )


def test_the_generalized_mean_is_followed(nets, image) -> None:
    """Its power and its least activation are those of the graph."""
    net = copy.copy(nets["delg"])
    net.facts = net.facts.model_copy(update={"pooling": PoolingFacts(power=4.5, least=0.3)})
    _, got = net.describe(image, (1.0,), local=[], overall=[0])
    with torch.inference_mode():
        deep = net.trunk.block4(net.trunk.block3(normalized(image)))[0].double().clamp_min(0.3)
        weight, bias = (each.double() for each in net._whitening)
        expected = weight @ (deep**4.5).mean(dim=(1, 2)) ** (1 / 4.5) + bias
    assert_near(got[0], expected.numpy())


def test_where_cells_look(nets) -> None:
    """The centroid of what a cell depends on: 2 px right of 32 i where conv1's output is even."""
    trunk = nets["delf"].trunk
    assert [trunk.grid(size) for size in (640, 643, 672, 700)] == [(2.0, 32)] * 4
    assert [trunk.grid(size) for size in (641, 642)] == [(0.0, 32)] * 2


def test_levels_that_vanish(nets) -> None:
    """An image of one pixel has no level of half its size."""
    levels, rows = nets["delg"].describe(torch.zeros(3, 1, 1), (0.25, 0.5, 1.0), local=range(3), overall=[0])
    assert [level.scale for level in levels] == [1.0]
    assert rows.shape == (0, 2048)
    assert isinstance(levels[0], Level)
