"""D2-Net against the released code's outputs, and what surrounds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from loc.errors import ContractError, WeightsError
from loc.extractors.d2net import D2Net, D2NetConfig
from loc.plugins.blocks import resolve_block
from loc.runtime.select import coverage


@pytest.fixture(autouse=True)
def weights(shared, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LOC_OFFLINE", "1")


def make(**options) -> D2Net:
    return D2Net(D2NetConfig(**{"weights": "ots", "precision": "fp32"} | options))


@pytest.fixture(scope="module")
def photo(request) -> torch.Tensor:
    shared = request.getfixturevalue("shared")
    pixels = np.asarray(Image.open(shared / "fixtures/d2net/image.png").convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ss", {}),
        ("ms", {"scales": (2.0, 0.5, 1.0), "memory_budget_mib": 64}),
        ("ss_norelu", {"use_relu": False}),
    ],
)
def test_every_keypoint_of_the_release(shared, photo, name, options) -> None:
    expected = np.load(shared / f"fixtures/d2net/expected_{name}.npz")
    (found,) = make(**options)(photo)
    assert len(found) == len(expected["keypoints"])
    np.testing.assert_allclose(found.keypoints, expected["keypoints"][:, :2], atol=1e-3)
    np.testing.assert_allclose(found.scales, expected["keypoints"][:, 2])
    np.testing.assert_allclose(found.scores, expected["scores"], rtol=1e-4)
    np.testing.assert_allclose(found.descriptors, expected["descriptors"], atol=1e-4)


def test_tf_preprocessing_and_other_scales_run(photo) -> None:
    (found,) = make(preprocessing="torch", scales=(0.7, 1.3))(photo[:, :, :120, :160])
    assert len(found) > 5
    assert {round(1 / float(scale), 4) for scale in found.scales} <= {0.7, 1.3}


def test_centred_offset_of_the_pyramid(photo) -> None:
    """A level that is half as large lies at (4q + 3.5)(W - 1)/(w - 1), not at twice the place."""
    image = photo[:, :, :200, :240]
    (release,), (centred,) = (make(scales=(0.5,), offset=name)(image) for name in ("release", "centred"))
    cells = (release.keypoints.astype(np.float64) / 2 - 1.5) / 4
    for axis, (size, level) in enumerate([(240, 120), (200, 100)]):
        expected = (4 * cells[:, axis] + 3.5) * (size - 1) / (level - 1)
        np.testing.assert_allclose(centred.keypoints[:, axis], expected, atol=1e-3)


@pytest.mark.parametrize("wh", [(20, 20), (16, 16), (17, 300), (25, 41)])
def test_small_images_skip_levels_that_are_too_small(wh) -> None:
    torch.manual_seed(0)
    (found,) = make(scales=(0.25, 0.5, 1.0))(torch.rand(1, 3, wh[1], wh[0]))
    assert found.descriptors.shape == (len(found), 512)


def test_black_photo() -> None:
    (found,) = make(scales=(0.5, 1.0))(torch.zeros(1, 3, 64, 96))
    assert np.isfinite(found.descriptors).all()


def test_cap_is_even_and_a_prefix(photo, say) -> None:
    whole = make()(photo)[0]
    even, fewer = (make(max_keypoints=k)(photo)[0] for k in (150, 60))
    best = make(max_keypoints=150, select="score")(photo)[0]
    assert np.array_equal(even.keypoints[:60], fewer.keypoints)
    assert best.scores.min() >= np.sort(whole.scores)[-150]
    covered = [coverage(each.keypoints, each.image_wh) for each in (even, best)]
    say(f"d2net, 150 of {len(whole)} keypoints: even covers {covered[0]:.0%}, by score {covered[1]:.0%}")
    assert covered[0] > covered[1]
    negative = make(use_relu=False, max_keypoints=100)(photo)[0]
    assert len(negative) == 100


@pytest.mark.parametrize(
    ("wh", "limit", "shown"),
    [
        ((4000, 3000), 1600, (1600, 1200)),
        ((4000, 3900), 1600, (1417, 1382)),
        ((1600, 1200), 1600, (1600, 1200)),
        ((640, 481), 1600, (640, 481)),
        ((5000, 10), None, (2794, 5)),
    ],
)
def test_one_resize_to_the_combined_limit_floored(wh, limit, shown) -> None:
    assert make().resized_wh(wh, limit) == shown


def test_presets() -> None:
    chosen = {
        name: resolve_block("features", name).config for name in ("d2net_ss", "d2net_ms", "d2net_ms_centred")
    }
    assert chosen["d2net_ss"].scales == (1.0,)
    assert chosen["d2net_ms"].scales == (0.5, 1.0, 2.0)
    assert (chosen["d2net_ms"].offset, chosen["d2net_ms_centred"].offset) == ("release", "centred")


def test_fingerprint_has_the_weights_and_the_resolved_precision() -> None:
    block = {"use": "loc.extractors.d2net:D2Net", "weights": "ots"}
    plugin = resolve_block("features", block).ready(lambda: "cpu")
    fields = plugin.fingerprint_fields()
    assert fields["config"]["precision"] in ("fp32", "bf16")
    assert len(fields["weights"]) == 1
    assert len(fields["weights"][0]) == 64


def test_missing_weights_say_what_to_do() -> None:
    with pytest.raises(WeightsError, match=r"d2_tf\.pth are not on this machine") as caught:
        make(weights="tf")
    assert "--weights-dir" in caught.value.next_step


def test_wrong_input_is_refused(photo) -> None:
    with pytest.raises(ContractError, match="RGB"):
        make()(photo[:, :1])


_PEAK = """
import torch
from pathlib import Path
from loc.extractors.d2net import D2Net, D2NetConfig
def peak():  # not getrusage: its number includes that of the process that started this one
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
torch.set_num_threads(1)
options = dict(weights="ots", precision="fp32", scales=(0.5, 1.0, 2.0), memory_budget_mib=64)
net = D2Net(D2NetConfig(**options))
before = peak()
net(torch.rand(1, 3, 240, 320))
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells a process its peak")
def test_memory_is_the_map_and_a_strip() -> None:
    """Beside the finest map (37 MiB here) and the one before only a strip exists: 6.5 times that untiled."""
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True)
    assert 50 < int(done.stdout) < 260
