"""D2-Net: what comes after the trunk against the trunk, number formats, layouts, memory, and on photos the
inliers that half precision keeps and how evenly a cap of keypoints lies.

Without weights of the authors on this machine the network is a random one: its times are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loc.bench.ratio import Ratio, Size, speed_of
from loc.bench.trunks import besides_trunk, made_image, peak_memory, say_peak, waiting
from loc.errors import DataError
from loc.extractors.d2net import D2Net, D2NetConfig, capped
from loc.nets.vgg import CONVOLUTIONS, Parameters
from loc.plugins.blocks import resolve_block
from loc.plugins.precision import Precision, resolve_precision
from loc.runtime.extraction import PhotoExtractor, PhotoFile
from loc.runtime.images import list_photos, prepare, read_photo
from loc.runtime.select import coverage
from loc.sfm.twoview import fundamental_matrix
from loc.types import LocalFeatures
from loc.weights.files import find

if TYPE_CHECKING:
    import torch

MOST_AFTER_TRUNK, LEAST_BF16_SPEED, LEAST_INLIERS, MOST_MEMORY_GB = 0.10, 1.8, 0.97, 3.0
_PYRAMIDS: dict[str, tuple[float, ...]] = {"single-scale": (1.0,), "multi-scale": (0.5, 1.0, 2.0)}
_NATIVE_BF16 = ("amx_bf16", "avx512_bf16", "bf16")
_PHOTOS = 6
_PAIRS_PX, _COVERAGE_PX = 480, 800
_CAPS = (250, 500, 1000)


def d2net(size: Size, photos: Sequence[Path] = (), *, device: str = "cpu") -> Iterator[Ratio]:
    """Measure D2-Net.

    Args:
        photos: folders; consecutive photos of a folder show the same thing.
        device: for torch; memory is always that of a CPU.
    """
    wh = (64, 48) if size.quick else (640, 480)
    yield from _shares(size, _image(wh, photos), device)
    yield from _number_formats(size, _image((32, 32) if size.quick else (320, 240), photos), device)
    yield _layouts(size, _image(wh, photos), device)
    yield _memory((64, 48) if size.quick else (1600, 1200), photos)
    for name in _PYRAMIDS if photos else ():
        yield _parity(name, photos, device)
    for folder in photos:
        yield from _coverages(folder, device)


# ---- time


def _shares(size: Size, image: torch.Tensor, device: str) -> Iterator[Ratio]:
    """Everything but the trunk as a share of the trunk."""
    height, width = image.shape[2:]
    for name, scales in _PYRAMIDS.items():
        net = _net("auto", device, scales=scales)
        shown = image.to(device)
        found = len(net(shown)[0])
        shares = besides_trunk(partial(net, shown), [(net, "_trunk")], size.repeats, device)
        what = f"{name}, {width} x {height} px: all but the trunk / trunk"
        note = f"{resolve_precision('auto', device)}, {_weights() or 'random'} weights, {found} keypoints"
        yield Ratio("d2net", what, shares, MOST_AFTER_TRUNK, ceiling=True, note=note)


def _number_formats(size: Size, image: torch.Tensor, device: str) -> Iterator[Ratio]:
    """Speed of the trunk in bf16 and fp16 against fp32, and what `auto` makes of it."""
    chosen, has = resolve_precision("auto", device), ", ".join(_native(device))
    why = f"precision auto takes {chosen}: {device} has {has or 'no native bf16'}"
    shown = image.to(device)

    def trunk(precision: Precision) -> Callable[[], object]:
        run = waiting(_net(precision, device)._trunk, device)
        return lambda: run(shown)

    for precision in ("bf16", "fp16"):
        speed = speed_of(trunk(precision), trunk("fp32"), size.repeats)
        goal = LEAST_BF16_SPEED if precision == chosen else None
        yield Ratio("d2net", f"trunk: speed of {precision} / of fp32", speed, goal, note=why)


def _layouts(size: Size, image: torch.Tensor, device: str) -> Ratio:
    """The trunk with the channels of a pixel together, as it runs, against one plane per channel."""
    import torch

    net = _net("auto", device)._trunk
    planes = _net("auto", device)._trunk._net.to(memory_format=torch.contiguous_format)
    shown = image.to(device)
    dtype = next(planes.parameters()).dtype

    def plain(image: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            out: torch.Tensor = planes(image.to(dtype))[0].permute(1, 2, 0).float().contiguous()
            return out

    ours, theirs = waiting(net, device), waiting(plain, device)
    speed = speed_of(lambda: ours(shown), lambda: theirs(shown), size.repeats)
    note = f"{resolve_precision('auto', device)}; both end with the channels of a cell together"
    return Ratio("d2net", "trunk: speed of channels last / of planes", speed, note=note)


def _native(device: str) -> list[str]:
    """What multiplies bf16 on a device."""
    import torch

    if device.startswith("cuda"):
        return [torch.cuda.get_device_name(device)] if resolve_precision("auto", device) == "bf16" else []
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in _NATIVE_BF16 if known.get(name)]


# ---- memory


def _memory(wh: tuple[int, int], photos: Sequence[Path]) -> Ratio:
    what = f"multi-scale on {wh[0]} x {wh[1]} px, fp32: peak memory of the process / {MOST_MEMORY_GB:g} GB"
    argv = [str(wh[0]), str(wh[1]), str(_listed(photos[0])[0]) if photos else ""]
    return peak_memory("d2net", what, "loc.bench.d2net:print_peak", argv, MOST_MEMORY_GB)


def print_peak(width: str, height: str, photo: str) -> None:
    """The work of that process."""
    net = _net("fp32", "cpu", scales=_PYRAMIDS["multi-scale"])
    image = _read(Path(photo), (int(width), int(height))) if photo else made_image((int(width), int(height)))
    say_peak(lambda: net(image))


# ---- photos


def _parity(name: str, photos: Sequence[Path], device: str) -> Ratio:
    """Inliers of neighbouring photos in half precision against fp32."""
    inliers = {
        precision: [count for folder in photos for count in _inliers(folder, name, precision, device)]
        for precision in ("bf16", "fp32")
    }
    half, full = sum(inliers["bf16"]), sum(inliers["fp32"])
    what = f"{name}, {len(inliers['fp32'])} pairs at {_PAIRS_PX} px: inliers of bf16 / of fp32"
    ratio = (half / full,) if full else ()
    return Ratio("d2net", what, ratio, LEAST_INLIERS, note=f"{half} / {full}")


def _inliers(folder: Path, name: str, precision: str, device: str) -> list[int]:
    options = {"precision": precision, "scales": _PYRAMIDS[name], "resize_max": _PAIRS_PX}
    features = _described(folder, options, device)
    matcher = resolve_block("matcher", "nearest").build(device=device)
    prepared = [matcher.prepare(each) for each in features]
    counts = []
    for row, found in enumerate(matcher(list(pairwise(prepared)))):
        shrunk = [_PAIRS_PX / max(each.image_wh) for each in features[row : row + 2]]
        xy = [
            each.keypoints[found.indices[:, side]].astype(float) * min(1.0, shrunk[side])
            for side, each in enumerate(features[row : row + 2])
        ]
        counts.append(int(fundamental_matrix(xy[0], xy[1])[1].sum()))
    return counts


def _coverages(folder: Path, device: str) -> Iterator[Ratio]:
    """How much of the image a cap of keypoints covers, spread against the highest scores."""
    features = _described(folder, {"resize_max": _COVERAGE_PX}, device)
    for cap in _CAPS:
        covered = {
            select: [
                coverage(kept.keypoints, kept.image_wh)
                for kept in (capped(each, D2NetConfig(max_keypoints=cap, select=select)) for each in features)
            ]
            for select in ("even", "score")
        }
        what = f"{folder}: share of a 16 x 16 grid that {cap} keypoints cover, even / by score"
        ratios = tuple(even / score for even, score in zip(*covered.values(), strict=True) if score)
        even, score = (float(np.mean(values)) for values in covered.values())
        count = int(np.mean([len(each) for each in features]))
        note = f"means of {len(features)} photos of {count} keypoints: {even:.0%} / {score:.0%}"
        yield Ratio("d2net", what, ratios, note=note)


def _described(folder: Path, options: dict[str, Any], device: str) -> list[LocalFeatures]:
    plugin = resolve_block("features", {"use": "d2net", "weights": _weights() or "tf", **options})
    extractor = PhotoExtractor(plugin.ready(lambda: device), device=device)
    return [extractor.run([extractor.read(PhotoFile(path.name, path))])[0] for path in _listed(folder)]


def _listed(folder: Path) -> list[Path]:
    paths = [folder / name for name in list_photos(folder)[:_PHOTOS]]
    if len(paths) < 2:
        raise DataError(
            f"{folder} has fewer than two photos", "give a folder of photos of one place: --photos"
        )
    return paths


# ---- networks and images


def _weights() -> str | None:
    """Which of the authors' weights are on this machine."""
    here = [file.name for file in D2Net.weights if find(file) is not None]
    return here[0].removeprefix("d2_").removesuffix(".pth") if here else None


def _net(precision: Precision, device: str, **options: Any) -> D2Net:
    weights = _weights()
    config = D2NetConfig.model_validate(
        {"precision": precision, "max_sum_edges": 1 << 20, **options}
        | ({"weights": weights} if weights else {})
    )
    return D2Net(config, device=device, parameters=None if weights else _made())


@lru_cache(maxsize=1)
def _made() -> Parameters:
    """Random weights by He's rule."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return {
        index: (
            torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5,
            torch.zeros(outputs),
        )
        for index, (inputs, outputs) in CONVOLUTIONS.items()
    }


def _image(wh: tuple[int, int], photos: Sequence[Path] = ()) -> torch.Tensor:
    """``(1, 3, h, w)``: the first photo at that size, or a made picture."""
    return _read(_listed(photos[0])[0], wh) if photos else made_image(wh)


def _read(path: Path, wh: tuple[int, int]) -> torch.Tensor:
    import torch

    return torch.from_numpy(prepare(read_photo(path, color="rgb"), to_wh=wh)[None])
