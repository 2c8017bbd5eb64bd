"""Hostile stores and pair lists in a run folder: a typed error that names the part to delete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from bad_photos import encoded, image
from scenes import Cli, fails

from loc.stores.features import FeatureStore
from loc.stores.parts import ItemKey, write_rows
from loc.types import LocalFeatures

pytestmark = pytest.mark.usefixtures("bounded")

GOOD = "a.png"
PART = "features/*/parts/*.h5"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to the features of two photos."""
    from loc.pipeline import run as walk
    from loc.plugins.blocks import load_config
    from loc.runtime.runtime import Runtime

    root = tmp_path_factory.mktemp("finished")
    (root / "photos").mkdir()
    for name in (GOOD, "b.png"):
        (root / "photos" / name).write_bytes(encoded("PNG", image(seed=len(name))))
    config = load_config("folder_sift", {"scene.images": str(root / "photos"), "globals": None})
    walk(config, root / "run", runtime=Runtime(device="cpu", workers=1), until="features")
    return root / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def config_of(run: Path, tmp_path: Path, **changes: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads((run / "run.json").read_text())["config"], **changes}))
    return path


def edited(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(part: Path) -> None:
        with h5py.File(part, "r+") as file:
            change(file)

    return apply


def swap(name: str, data: object, **options: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[GOOD][name]
        file[GOOD].create_dataset(name, data=data, **options)

    return edited(change)


def shadow(file: h5py.File) -> None:
    """A data set of 4 TiB that takes no room in the file."""
    del file[GOOD]["descriptors"]
    file[GOOD].create_dataset("descriptors", (128, 1 << 35), np.uint8, chunks=(128, 64))


def index(rows: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        for name in [name for name in file.attrs if name.startswith("index")]:
            del file.attrs[name]
        write_rows(file, rows)  # type: ignore[arg-type]

    return edited(change)


HDF5: dict[str, Callable[[Path], None]] = {
    "text": lambda part: part.write_text("not hdf5\n" * 99) and None,
    "empty": lambda part: part.write_bytes(b"") and None,
    "no index": edited(lambda file: [file.attrs.__delitem__(name) for name in list(file.attrs)]),
    "index of numbers": index([1, 2, 3]),
    "index of an object": index({"a": 1}),
    "group gone": edited(lambda file: file.__delitem__(GOOD)),
    "a data set for a group": edited(
        lambda file: (file.__delitem__(GOOD), file.create_dataset(GOOD, data=1))
    ),
    "keypoints gone": edited(lambda file: file[GOOD].__delitem__("keypoints")),
    "keypoints of three columns": swap("keypoints", np.zeros((5, 3), np.float32)),
    "keypoints as text": swap("keypoints", "x"),
    "keypoints nan": swap("keypoints", np.full((5, 2), np.nan, np.float32)),
    "descriptors of another number": swap("descriptors", np.zeros((128, 3), np.uint8)),
    "descriptors without end": edited(shadow),
    "size of one number": swap("image_size", np.array([7])),
    "link to itself": edited(
        lambda file: (file.__delitem__(GOOD), file.__setitem__(GOOD, h5py.SoftLink(f"/{GOOD}")))
    ),
    "link to another file": edited(
        lambda file: (file.__delitem__(GOOD), file.__setitem__(GOOD, h5py.ExternalLink("/etc/passwd", "/")))
    ),
    "another kind": edited(lambda file: file.attrs.__setitem__("kind", "matches")),
    "a format of the future": edited(lambda file: file.attrs.__setitem__("format", 99)),
}


@pytest.mark.parametrize("kind", HDF5)
def test_hostile_parts(cli: Cli, run: Path, tmp_path: Path, kind: str) -> None:
    (part,) = run.glob(PART)
    HDF5[kind](part)
    fails(cli, cli("digest", run), str(part))
    config = config_of(run, tmp_path)
    code = cli("match", config, "-o", run, "--workers", "1")
    fails(cli, code, str(part))
    part.unlink()  # the next step that both errors named
    assert cli("extract", config, "-o", run, "--workers", "1") == 0, cli.err
    assert cli("digest", run) == 0, cli.err


def test_an_item_called_like_a_way_out_stays_inside(tmp_path: Path) -> None:
    """A key of a store is a path inside the file: `..` is a name there like any other."""
    key = ItemKey("../../outside", "0" * 16)
    none = np.zeros(0, np.float32)
    with FeatureStore(tmp_path / "store", {}).writer() as writer:
        writer.put(key, LocalFeatures(np.zeros((0, 2), np.float32), none, np.zeros((0, 4), np.uint8), (1, 1)))
    assert len(FeatureStore(tmp_path / "store").get(key)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


PAIRS: dict[str, tuple[str, str]] = {
    "unknown name": (f"{GOOD} missing.png\n", "missing.png"),
    "one name": (f"{GOOD}\n", "expected two image names"),
    "three names": (f"{GOOD} {GOOD} {GOOD}\n", "expected two image names"),
    "parent folder": (f"{GOOD} ../{GOOD}\n", "no image of this scene"),
    "with itself": (f"{GOOD} {GOOD}\n", "there are no pairs"),
    "none": ("", "there are no pairs"),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_pair_lists(cli: Cli, run: Path, tmp_path: Path, kind: str) -> None:
    content, message = PAIRS[kind]
    path = tmp_path / "pairs.txt"
    path.write_text(content)
    config = config_of(run, tmp_path, pairs=[{"use": "list", "path": str(path), "for": "map"}])
    fails(cli, cli("map", config, "-o", run), message)
