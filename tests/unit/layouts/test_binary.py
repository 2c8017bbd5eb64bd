"""The walk over binary COLMAP models: whatever COLMAP writes passes, whatever is cut does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from loc.colmap import pycolmap
from loc.errors import DataError
from loc.layouts.binary import check_binary_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rigs of two cameras each: the sensors of a rig have poses."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 2, 2
    options.num_frames_per_rig, options.num_points3D = 3, 20
    folder = tmp_path_factory.mktemp("model")
    pycolmap.synthesize_dataset(options).write(folder)
    return folder


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_every_cut_is_seen(model: Path, tmp_path: Path, name: str) -> None:
    check_binary_model(model)
    data = (model / f"{name}.bin").read_bytes()
    path = tmp_path / f"{name}.bin"
    for length in range(0, len(data), max(1, len(data) // 97)):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=rf"{name}\.bin is truncated or holds garbage"):
            check_binary_model(tmp_path)
    path.write_bytes(data + b"\0")
    with pytest.raises(DataError, match=f"end at byte {len(data)} of {len(data) + 1}"):
        check_binary_model(tmp_path)


def test_an_empty_model_passes(tmp_path: Path) -> None:
    pycolmap.Reconstruction().write(tmp_path)
    check_binary_model(tmp_path)
