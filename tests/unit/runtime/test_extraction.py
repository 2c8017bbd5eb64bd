"""The runtime around extractors: batches, back-off, crashes, worker processes, resizing, EXIF, masks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loc.errors import ContractError, PluginError, ResourceError
from loc.plugins.blocks import resolve_block
from loc.plugins.protocols import PluginConfig
from loc.runtime.extraction import PhotoFile, Skipped, extract_many
from loc.runtime.runtime import Runtime
from loc.types import LocalFeatures


class Brightest:
    """The brightest pixel of each image, as an index (centre origin)."""

    class Config(PluginConfig):
        limit: int = 100

    version, licence, paper = 1, "none", "none"
    pixel_origin, color, parallel, min_side, ranked, weights = "center", "gray", "batch", 2, True, ()
    batches: list[int]

    def __init__(self, config: Any, *, device: str, dtype: str) -> None:
        self.config = config
        Brightest.batches = []

    def __call__(self, images: Any) -> list[LocalFeatures]:
        images = np.asarray(images)
        if len(images) > self.config.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        Brightest.batches.append(len(images))
        return [self.one(image[0]) for image in images]

    def one(self, image: np.ndarray) -> LocalFeatures:
        row, column = np.unravel_index(image.argmax(), image.shape)
        ones = np.ones(1, np.float32)
        xy = np.array([[column, row]], np.float32)
        height, width = image.shape
        return LocalFeatures(xy, ones, np.ones((1, 4), np.float32), (width, height), scales=ones)


class CrashesOnDark(Brightest):
    parallel = "process"

    def __call__(self, images: Any) -> list[LocalFeatures]:
        if np.asarray(images).max() < 0.1:
            os.abort()
        return super().__call__(images)


class RaisesInProcess(Brightest):
    parallel = "process"

    def __call__(self, images: Any) -> list[LocalFeatures]:
        raise ValueError("no luck")


class CannotBeBuilt(Brightest):
    parallel = "process"

    def __init__(self, config: Any, *, device: str, dtype: str) -> None:
        raise OSError("no weights here")


class OneTooMany(Brightest):
    def __call__(self, images: Any) -> list[LocalFeatures]:
        return super().__call__(images) * 2


def plugin(cls: type, **options: Any) -> Any:
    return resolve_block("features", {"use": f"{__name__}:{cls.__name__}", **options})


def spot(path: Path, xy: tuple[int, int], wh: tuple[int, int] = (40, 30), **save: Any) -> PhotoFile:
    """A photo with one bright pixel at column, row ``xy``."""
    pixels = np.full((wh[1], wh[0]), 60, np.uint8)
    pixels[xy[1], xy[0]] = 250
    Image.fromarray(pixels).save(path, **save)
    return PhotoFile(path.name, path)


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes import this module by name."""
    folder = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder + os.pathsep + os.environ.get("PYTHONPATH", ""))


def results(
    cls: type, files: list[PhotoFile], runtime: Runtime | None = None, **options: Any
) -> dict[str, Any]:
    runtime = runtime or Runtime(device="cpu", workers=2)
    return {file.name: found for file, found in extract_many(plugin(cls, **options), files, runtime=runtime)}


def test_pixels_come_back_in_the_stored_image_with_corner_origin(tmp_path: Path) -> None:
    found = results(Brightest, [spot(tmp_path / "a.png", (7, 20))])["a.png"]
    assert found.keypoints.tolist() == [[7.5, 20.5]]
    assert found.image_wh == (40, 30)


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    file = spot(tmp_path / "phone.png", (7, 20), exif=exif)
    found = results(Brightest, [file])["phone.png"]
    assert found.keypoints.tolist() == [[7.5, 20.5]]  # stored grid, though the plug-in saw it upright
    assert found.image_wh == (40, 30)


def test_photos_are_resized_and_keypoints_scaled_back(tmp_path: Path) -> None:
    pixels = np.full((300, 400), 60, np.uint8)
    pixels[200:210, 80:90] = 250  # ten by ten pixels are one after the resize
    Image.fromarray(pixels).save(tmp_path / "big.png")
    found = results(Brightest, [PhotoFile("big.png", tmp_path / "big.png")], resize_max=40)["big.png"]
    assert np.allclose(found.keypoints, [[85, 205]])
    assert found.scales.tolist() == [10]
    assert found.image_wh == (400, 300)


def test_a_mask_hides_keypoints(tmp_path: Path) -> None:
    file = spot(tmp_path / "a.png", (7, 20))
    mask = np.full((30, 40), 255, np.uint8)
    mask[:, :10] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    masked = PhotoFile(file.name, file.path, tmp_path / "mask.png")
    assert len(results(Brightest, [masked])["a.png"]) == 0
    assert len(results(Brightest, [file])["a.png"]) == 1


def test_images_of_one_size_share_a_batch_and_order_does_not_matter(tmp_path: Path) -> None:
    files = [spot(tmp_path / f"{n}.png", (n, n), (40, 30) if n % 3 else (50, 20)) for n in range(20)]
    found = results(Brightest, files, Runtime(device="cpu", workers=2, batch_size=4))
    assert max(Brightest.batches) == 4
    assert len(Brightest.batches) <= 8
    assert {name: each.keypoints.tolist() for name, each in found.items()} == {
        f"{n}.png": [[n + 0.5, n + 0.5]] for n in range(20)
    }


def test_out_of_memory_halves_the_batch(tmp_path: Path) -> None:
    files = [spot(tmp_path / f"{n}.png", (n, 1)) for n in range(9)]
    found = results(Brightest, files, Runtime(device="cpu", batch_size=8), limit=3)
    assert sorted(found) == [f"{n}.png" for n in range(9)]
    assert max(Brightest.batches) <= 3
    with pytest.raises(ResourceError, match=r"ran out of memory on 0\.png") as caught:
        results(Brightest, files[:1], limit=0)
    assert "features.resize_max=" in str(caught.value)


def test_a_crash_skips_the_photo_that_caused_it(tmp_path: Path) -> None:
    files = [spot(tmp_path / f"{n}.png", (n, 1)) for n in range(6)]
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "dark.png")
    files.insert(2, PhotoFile("dark.png", tmp_path / "dark.png"))
    found = results(CrashesOnDark, files)
    assert isinstance(found.pop("dark.png"), Skipped)
    assert all(len(each) == 1 for each in found.values())
    assert len(found) == 6


@pytest.mark.parametrize(
    ("cls", "error", "message"),
    [
        (RaisesInProcess, PluginError, "failed on .*: ValueError: no luck"),
        (CannotBeBuilt, PluginError, "cannot be built: OSError: no weights here"),
        (OneTooMany, ContractError, "returned 4 results for 2 images"),
    ],
)
def test_plugins_that_raise_are_named(tmp_path: Path, cls: type, error: type, message: str) -> None:
    files = [spot(tmp_path / f"{n}.png", (n, 1)) for n in range(2)]
    with pytest.raises(error, match=message) as caught:
        results(cls, files)
    assert cls.__name__ in str(caught.value)


def test_unreadable_photos_are_skipped_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no")
    files = [spot(tmp_path / "a.png", (1, 1)), PhotoFile("bad.png", tmp_path / "bad.png")]
    for cls in (Brightest, CrashesOnDark):
        found = results(cls, files)
        assert isinstance(found["bad.png"], Skipped)
        assert "bad.png" in found["bad.png"].reason
        assert len(found["a.png"]) == 1


def test_a_script_without_main_guard_can_start_workers(tmp_path: Path) -> None:
    """Spawned workers do not import the user's script again."""
    import subprocess
    import sys

    spot(tmp_path / "0.png", (1, 1), (64, 64))
    spot(tmp_path / "1.png", (2, 1), (64, 64))
    script = tmp_path / "mine.py"
    script.write_text(
        "from pathlib import Path\n"
        "from loc.plugins.blocks import resolve_block\n"
        "from loc.runtime.extraction import PhotoFile, extract_many\n"
        "from loc.runtime.runtime import Runtime\n"
        "files = [PhotoFile(n, Path(n)) for n in ('0.png', '1.png')]\n"
        "found = list(extract_many(resolve_block('features', 'sift'), files, runtime=Runtime('cpu', 2)))\n"
        "print('found', len(found))\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "found 2\n", done.stderr


def test_a_crash_on_the_only_photo_is_survived(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "dark.png")
    found = results(CrashesOnDark, [PhotoFile("dark.png", tmp_path / "dark.png")])
    assert "the process died" in found["dark.png"].reason


class ReturnsNone(Brightest):
    def __call__(self, images: Any) -> Any:
        return None


class Exits(Brightest):
    def __call__(self, images: Any) -> Any:
        raise SystemExit(3)


@pytest.mark.parametrize(("cls", "message"), [(ReturnsNone, "returned NoneType"), (Exits, "SystemExit: 3")])
def test_what_is_no_result_is_named(tmp_path: Path, cls: type, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        results(cls, [spot(tmp_path / "0.png", (1, 1))])
