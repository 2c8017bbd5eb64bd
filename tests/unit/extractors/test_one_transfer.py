"""However many scales a pyramid has: a photo is decoded once, and goes to the device once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loc.bench.delf import _made_model
from loc.extractors.delf import Delf
from loc.extractors.delg import Delg
from loc.plugins.blocks import resolve_block
from loc.runtime import extraction
from loc.runtime.extraction import PhotoFile, extract_many
from loc.runtime.runtime import Runtime

SCALES = [0.25, 0.3536, 0.5, 0.7071, 1.0, 1.4142, 2.0]
WIDTH, HEIGHT = 80, 64
#: What else goes up is of this size at most: means of colours, numbers of chosen cells.
SMALL_BYTES = 1024 * 8


@lru_cache
def model(kind: Any) -> Any:
    return _made_model(kind)


class MadeDelf(Delf):
    """On random weights."""

    def __init__(self, config: Any, *, device: str = "cpu", dtype: str = "float32") -> None:
        super().__init__(config, device=device, dtype=dtype, model=model("delf"))


class MadeDelg(Delg):
    """On random weights."""

    def __init__(self, config: Any, *, device: str = "cpu", dtype: str = "float32") -> None:
        super().__init__(config, device=device, dtype=dtype, model=model("delg"))


@pytest.fixture
def photos(tmp_path: Path) -> list[PhotoFile]:
    rng = np.random.default_rng(0)
    files = []
    for name in ("a.png", "b.png"):
        small = rng.integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
        Image.fromarray(small).resize((WIDTH, HEIGHT)).save(tmp_path / name)
        files.append(PhotoFile(name, tmp_path / name))
    return files


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Any]]]:
    """Names of decoded photos; bytes of what came from NumPy, and of what was sent to a device."""
    found: dict[str, list[Any]] = {"decoded": [], "made": [], "sent": []}
    read, to = extraction.read_photo, torch.Tensor.to

    def reading(path: Path, **options: Any) -> Any:
        found["decoded"].append(path.name)
        return read(path, **options)

    def sending(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        if isinstance(options.get("device", args[0] if args else None), str | torch.device):
            found["sent"].append(self.nbytes)
        return to(self, *args, **options)

    def noting(make: Any) -> Any:
        def made(*args: Any, **options: Any) -> torch.Tensor:
            out: torch.Tensor = make(*args, **options)
            found["made"].append(out.nbytes)
            return out

        return made

    monkeypatch.setattr(extraction, "read_photo", reading)
    monkeypatch.setattr(torch.Tensor, "to", sending)
    for owner, names in ((torch, ("from_numpy", "tensor", "as_tensor")), (torch.Tensor, ("new_tensor",))):
        for name in names:
            monkeypatch.setattr(owner, name, noting(getattr(owner, name)))
    return found


@pytest.mark.parametrize(
    ("section", "block"),
    [
        ("features", {"use": f"{__name__}:MadeDelf", "score_threshold": 0}),
        ("features", {"use": f"{__name__}:MadeDelg", "score_threshold": 0}),
        ("features", {"use": "delf_ots"}),
        ("features", {"use": "d2net", "weights": "ots"}),
        ("globals", {"use": "gem"}),
        ("globals", {"use": "rmac"}),
    ],
    ids=["delf", "delg", "delf_ots", "d2net", "gem", "rmac"],
)
def test_one_decode_and_one_transfer(
    section: Any,
    block: dict[str, Any],
    photos: list[PhotoFile],
    seen: dict[str, list[Any]],
    shared: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(shared / "weights"))
    plugin = resolve_block(section, {**block, "scales": SCALES})
    runtime = Runtime(device="cpu", workers=1, batch_size=1)
    built = plugin.build(device="cpu")  # what weights take is not counted
    for each in ("made", "sent"):
        seen[each].clear()
    monkeypatch.setattr(type(plugin), "build", lambda *_args, **_options: built)
    results = dict(extract_many(plugin, photos, runtime=runtime))
    assert len(results) == 2
    if section == "features":
        assert all(len(np.unique(features.scales)) >= 2 for features in results.values())
    assert sorted(seen["decoded"]) == ["a.png", "b.png"]
    for each in ("made", "sent"):
        assert [size for size in seen[each] if size > SMALL_BYTES] == [3 * WIDTH * HEIGHT * 4] * len(photos)
