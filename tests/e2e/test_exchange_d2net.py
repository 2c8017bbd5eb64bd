"""`.d2-net` files of a run go out and come back; those of the authors come in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from scenes import Cli, write_photo

from loc.exchange.d2net_files import NOISE_PX
from loc.extractors.d2net import D2Net, D2NetConfig
from loc.stores.features import FeatureStore
from loc.stores.parts import ItemKey

NAMES = ["day/ä b.png", "small.png"]


def _store(run: Path) -> tuple[FeatureStore, dict[str, ItemKey]]:
    features = json.loads((run / "run.json").read_text())["features"]
    keys = {name: ItemKey(name, content) for name, content in features["items"].items()}
    return FeatureStore(run / features["folder"]), keys


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(NAMES):
        write_photo(tmp_path / "photos" / name, wh=(96, 80), seed=seed)
    return tmp_path / "photos"


def _extract(cli: Cli, shared: Path, photos: Path, run: Path, *more: str) -> None:
    options = [
        "--set",
        f"scene.images={photos}",
        "--set",
        "features.weights=ots",
        "--set",
        "features.precision=fp32",
    ]
    options += ["--weights-dir", str(shared / "weights"), "--set", "features.resize_max=64", *more]
    assert cli("extract", "folder_sift", "-o", run, "--set", "features=d2net_ms", *options) == 0, cli.err


def test_a_run_goes_out_and_comes_back(cli: Cli, shared: Path, photos: Path, tmp_path: Path) -> None:
    _extract(cli, shared, photos, tmp_path / "run")
    out = tmp_path / "files"
    assert cli("export", "d2net", tmp_path / "run", "-o", out) == 0, cli.err
    assert ".d2-net: 2" in cli.out
    first, keys = _store(tmp_path / "run")
    for name in NAMES:
        with np.load(out / f"{name}.d2-net", allow_pickle=False) as file:
            kept = first.get(keys[name])
            assert len(kept) > 3
            np.testing.assert_array_equal(file["keypoints"][:, :2], kept.keypoints - np.float32(0.5))
            assert {1 / scale for scale in file["keypoints"][:, 2].round(5)} <= {0.5, 1.0, 2.0}
    assert cli("import", "d2net", out, "--images", photos, "-o", tmp_path / "again") == 0, cli.err
    assert "features: 2" in cli.out
    assert cli("extract", tmp_path / "again" / "imported.yaml", "-o", tmp_path / "again") == 0, cli.err
    second, again = _store(tmp_path / "again")
    assert again == keys
    for name in NAMES:
        ours, back = first.get(keys[name]), second.get(keys[name])
        for what in ("keypoints", "scores", "descriptors"):
            np.testing.assert_array_equal(getattr(back, what), getattr(ours, what))
    assert cli("export", "d2net", tmp_path / "again", "-o", tmp_path / "second") == 0
    for name in NAMES:
        assert (tmp_path / "second" / f"{name}.d2-net").read_bytes() == (out / f"{name}.d2-net").read_bytes()
    assert (
        cli("import", "d2net", out, "--images", photos, "-o", tmp_path / "again") == 0
    )  # the same: nothing new


def test_files_of_the_authors_beside_their_photos(cli: Cli, shared: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copyfile(shared / "fixtures/d2net/image.png", root / "a.png")
    shutil.copyfile(shared / "fixtures/d2net/expected_ms.npz", root / "a.png.d2-net")
    assert cli("import", "d2net", root, "--images", root, "-o", tmp_path / "run", "--name", "theirs") == 0, (
        cli.err
    )
    assert yaml.safe_load((tmp_path / "run" / "imported.yaml").read_text())["features"]["name"] == "theirs"
    assert cli("extract", tmp_path / "run" / "imported.yaml", "-o", tmp_path / "run") == 0, cli.err
    store, keys = _store(tmp_path / "run")
    expected, found = np.load(shared / "fixtures/d2net/expected_ms.npz"), store.get(keys["a.png"])
    np.testing.assert_allclose(found.keypoints, expected["keypoints"][:, :2] + 0.5, atol=1e-4)
    np.testing.assert_array_equal(found.descriptors, expected["descriptors"].astype(np.float16))
    np.testing.assert_array_equal(found.scales, expected["keypoints"][:, 2])
    assert found.noise_px == D2Net.noise_px


def test_what_does_not_fit_is_said(cli: Cli, photos: Path, tmp_path: Path) -> None:
    files, argv = tmp_path / "files", ["--images", photos, "-o", tmp_path / "run"]
    assert cli("import", "d2net", files, *argv) == 3
    assert "is not a folder" in cli.err
    files.mkdir()
    assert cli("import", "d2net", files, *argv) == 3
    assert "there is no *.d2-net under" in cli.err

    def put(name: str, n: int = 4, dim: int = 512) -> None:
        with (files / f"{name}.d2-net").open("wb") as file:
            np.savez(
                file,
                keypoints=np.full((n, 3), 7, np.float32),
                scores=np.ones(n, np.float32),
                descriptors=np.ones((n, dim), np.float32),
            )

    put("gone.png")
    assert cli("import", "d2net", files, *argv) == 3
    assert "none of the 1 images" in cli.err
    put("small.png")
    assert cli("import", "d2net", files, *argv) == 0
    assert "1 files are of no photo under" in cli.out
    assert "1 photos under" in cli.out
    put("small.png", n=3)
    assert cli("import", "d2net", files, *argv) == 3
    assert "holds other features of 'small.png' already" in cli.err
    (files / "day").mkdir()
    put("day/ä b.png", dim=128)
    put("small.png")
    assert cli("import", "d2net", files, *argv) == 3
    assert "descriptors of 'small.png' have 512 numbers, those of 'day/ä b.png' 128" in cli.err
    (files / "small.png.d2-net").write_bytes(b"\x80\x04.")
    (files / "day" / "ä b.png.d2-net").unlink()
    assert cli("import", "d2net", files, *argv) == 3
    assert "damaged or no .d2-net file" in cli.err
    assert "Traceback" not in cli.err


def test_budget_is_no_other_method(cli: Cli, shared: Path, photos: Path, tmp_path: Path) -> None:
    """A run goes on in the same folder with another memory budget."""
    _extract(cli, shared, photos, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_text()
    _extract(cli, shared, photos, tmp_path / "run", "--set", "features.memory_budget_mib=100")
    assert len(list((tmp_path / "run" / "features").iterdir())) == 1
    assert (
        json.loads(before)["features"] == json.loads((tmp_path / "run" / "run.json").read_text())["features"]
    )


def test_noise_of_the_files_is_that_of_the_extractor() -> None:
    assert D2Net.noise_px == NOISE_PX
    assert "memory_budget_mib" not in D2NetConfig().model_dump()
