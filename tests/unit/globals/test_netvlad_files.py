"""NetVLAD's MAT-files when they are damaged, or hold other things: an error each, and no crash."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
from made_globals import netvlad
from scipy.io import savemat

from loc.errors import WeightsError
from loc.globals.netvlad import read_matconvnet

COLOR = np.full((2, 2, 3), 120.0, np.float32)
NO_NETWORK = "is no network of MatConvNet as a struct"


def cells(*members):
    out = np.empty((1, len(members)), object)
    out[0, :] = members
    return out


def network(average=COLOR):
    """In the published layout, and much too small."""
    conv = {"type": "conv", "weights": cells(np.ones((3, 3, 1, 2), np.float32), np.ones((2, 1)))}
    layers = cells(
        conv, {"type": "relu", "weights": np.zeros((0, 0))}, {"weights": "x"}, {"weights": cells()}
    )
    return {"layers": layers, "meta": {"normalization": {"averageImage": average}}}


def test_a_file_that_is_cut_off(tmp_path):
    path = netvlad(tmp_path / "x.mat")
    whole = read_matconvnet(path)
    assert all(array.flags.writeable and array.base is None for array in whole.values())
    for cut in (path.stat().st_size - 1, 2**24, 1000, 130, 127, 0):
        os.truncate(path, cut)
        with pytest.raises(WeightsError, match=NO_NETWORK):
            read_matconvnet(path)
    path.unlink()
    with pytest.raises(WeightsError, match=NO_NETWORK):
        read_matconvnet(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_bytes_changed_at_random(tmp_path, compressed):
    """SciPy's reader does not survive each of them."""
    path = tmp_path / "x.mat"
    savemat(path, {"net": network()}, do_compression=compressed)
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(124, len(data))] = rng.randrange(256)
        path.write_bytes(changed)
        with pytest.raises(WeightsError):  # where it still is a network, it is no VGG-16
            read_matconvnet(path)


@pytest.mark.parametrize(
    "net",
    [
        "text",
        1.5,
        cells(1, 2),
        {"meta": 1},
        {"layers": 1, "meta": {"normalization": cells(COLOR)}},
        {"layers": 1, "meta": {"normalization": 1j}},
    ],
)
def test_other_variables(tmp_path, net):
    savemat(tmp_path / "x.mat", {"net": net})
    with pytest.raises(WeightsError, match=NO_NETWORK):
        read_matconvnet(tmp_path / "x.mat")


def test_other_layers(tmp_path):
    savemat(tmp_path / "x.mat", {"net": network()})
    with pytest.raises(WeightsError, match=r"27 missing: .*; 3 of another shape: layers.0.weights.0 is"):
        read_matconvnet(tmp_path / "x.mat")


@pytest.mark.parametrize(
    "average", [np.zeros((2, 2, 4)), COLOR * np.nan, np.full((2, 2, 3), 1e300), "grey", {"a": 1.0}]
)
def test_a_mean_colour_that_is_none(tmp_path, average):
    savemat(tmp_path / "x.mat", {"net": network(average)})
    with pytest.raises(WeightsError, match="averageImage is"):
        read_matconvnet(tmp_path / "x.mat")
