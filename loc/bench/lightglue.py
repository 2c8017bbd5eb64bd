"""LightGlue: alone, in padded batches, in half precision, and against the plain network that hloc runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from loc.bench.ratio import Ratio, Size, Timed, seconds
from loc.conventions import center_from_corner
from loc.errors import LocError
from loc.nets.kornia import import_kornia
from loc.plugins.blocks import resolve_block
from loc.plugins.contract_samples import SHIFT_XY, textured_canvas
from loc.plugins.precision import resolve_precision
from loc.runtime.extraction import PhotoExtractor, PhotoFile
from loc.runtime.images import list_photos
from loc.sfm.twoview import fundamental_matrix
from loc.types import LocalFeatures, Matches

MOST_OF_HLOC, LEAST_INLIERS = 1.0, 0.97
_KEYPOINTS, _PHOTOS, _RESIZE_MAX = 2048, 4, 1024
_PLAIN = "kornia's, layer for layer the authors' that hloc runs, with the same thresholds"

Pair = tuple[LocalFeatures, LocalFeatures]


def lightglue(size: Size, photos: Sequence[Path], *, device: str = "cpu") -> Iterator[Ratio]:
    """Measure LightGlue on ALIKED features.

    Args:
        photos: folders; all pairs of the first photos of each. Without: a drawn picture and a shifted copy.
        device: for torch.
    """
    try:
        count = 128 if size.quick else _KEYPOINTS
        pairs = _pairs(photos, count, device)
        yield from _measured(pairs, count, size, device)
    except LocError as error:  # no weights on this machine, or no kornia
        yield Ratio("match", "lightglue", (), note=f"not measured: {error.message}")


def _measured(pairs: list[Pair], count: int, size: Size, device: str) -> Iterator[Ratio]:
    native = resolve_precision("auto", device)
    runs: dict[str, _Run | _Plain] = {
        "alone": _Run(pairs, device, precision=native, batch="never"),
        "batched": _Run(pairs, device, precision=native, batch=len(pairs)),
        "fp32": _Run(pairs, device, precision="fp32", batch="never"),
        "plain": _Plain(pairs, device),
    }
    times = _in_turn({name: run.match for name, run in runs.items()}, size.repeats)
    rate = {name: f"{len(pairs) / median(values):.2g} pairs/s" for name, values in times.items()}
    inliers = {name: _inliers(pairs, run.found) for name, run in runs.items()}

    def ratios(above: str, below: str) -> tuple[float, ...]:
        return tuple(a / b for a, b in zip(times[above], times[below], strict=True))

    what = f"lightglue, {len(pairs)} pairs of {count} ALIKED keypoints, {device}:"
    yield Ratio(
        "match",
        f"{what} time alone in {native} / of the plain network in fp32",
        ratios("alone", "plain"),
        MOST_OF_HLOC,
        ceiling=True,
        note=f"{rate['alone']} against {rate['plain']}; the plain one is {_PLAIN}",
    )
    yield Ratio(
        "match",
        f"{what} time alone in fp32 / of the plain network in fp32",
        ratios("fp32", "plain"),
        MOST_OF_HLOC,
        ceiling=True,
        note=f"{rate['fp32']}; inliers {inliers['fp32']} / {inliers['plain']}",
    )
    batched = ratios("alone", "batched")
    faster = "alone" if median(batched) < 1 else "the batch"
    yield Ratio(
        "match",
        f"{what} speed of a padded batch / of pairs alone, which stop and shrink by themselves",
        batched,
        note=f"{rate['batched']} against {rate['alone']}: {faster} is faster here;"
        " `batch: auto` batches on a GPU only",
    )
    if native != "fp32":
        yield Ratio("match", f"{what} speed of {native} / of fp32", ratios("fp32", "alone"))
        yield Ratio(
            "match",
            f"{what} inliers in {native} / in fp32",
            (inliers["alone"] / max(1, inliers["fp32"]),),
            LEAST_INLIERS,
            note=f"{inliers['alone']} / {inliers['fp32']}",
        )


class _Run:
    """All pairs through the plug-in; an image is prepared once."""

    def __init__(self, pairs: list[Pair], device: str, **options: Any) -> None:
        plugin = resolve_block("matcher", {"use": "lightglue", "features": "aliked", **options})
        matcher = plugin.ready(lambda: device).build(device=device)
        known = {id(each): matcher.prepare(each) for pair in pairs for each in pair}
        self._prepared = [(known[id(first)], known[id(second)]) for first, second in pairs]
        self._matcher = matcher
        self.found: list[Any] = []

    def match(self) -> None:
        found: list[Matches] = self._matcher(self._prepared)
        self.found = [each.indices for each in found]


class _Plain:
    """All pairs through kornia's network, whose cross-attention stores its matrices on a CPU."""

    def __init__(self, pairs: list[Pair], device: str) -> None:
        import torch

        from loc.matchers.lightglue import LightGlue, read_weights

        path = resolve_block("matcher", {"use": "lightglue", "features": "aliked"}).weights[0]
        net = import_kornia("loc bench match", "LightGlue")(None, weights=None, input_dim=128)
        net.load_state_dict(read_weights(path, 128), strict=False)
        self._net = net.to(device).eval()
        kept = LightGlue.Config().max_keypoints
        self._data = [
            {
                f"image{side}": {
                    "keypoints": torch.from_numpy(center_from_corner(each.keypoints[:kept]))[None].to(device),
                    "descriptors": torch.from_numpy(each.descriptors[:kept])[None].float().to(device),
                    "image_size": torch.tensor([each.image_wh], dtype=torch.float32, device=device),
                }
                for side, each in enumerate(pair)
            }
            for pair in pairs
        ]
        self.found: list[Any] = []

    def match(self) -> None:
        import torch

        with torch.inference_mode():
            self.found = [self._net(data)["matches"][0].cpu().numpy() for data in self._data]


def _in_turn(calls: dict[str, Timed], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, one per repeat; all run once uncounted, and every second round goes backwards."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats):
        for name in list(calls)[:: -1 if number % 2 else 1]:
            times[name].append(seconds(calls[name]))
    return times


def _pairs(photos: Sequence[Path], count: int, device: str) -> list[Pair]:
    options = {"use": "aliked", "max_keypoints": count, "resize_max": _RESIZE_MAX}
    plugin = resolve_block("features", options).ready(lambda: device)
    if not photos:
        return [_drawn(plugin.build(device=device), device)] * 3
    extractor = PhotoExtractor(plugin, device=device)
    out: list[Pair] = []
    for folder in photos:
        files = [PhotoFile(name, folder / name) for name in list_photos(folder)[:_PHOTOS]]
        found = [extractor.run([extractor.read(file)])[0] for file in files]
        out += combinations(found, 2)
    return out


def _drawn(extractor: Any, device: str) -> Pair:
    """Features of a drawn picture and of the same one shifted."""
    import torch

    canvas = torch.from_numpy(textured_canvas(0)).to(device)
    dx, dy = SHIFT_XY
    images = canvas[None, :, :-dy, :-dx], canvas[None, :, dy:, dx:]
    first, second = (extractor(image.contiguous())[0] for image in images)
    return first, second


def _inliers(pairs: list[Pair], found: list[Any]) -> int:
    """Sum over all pairs of the matches that agree with a fundamental matrix."""
    return sum(
        int(
            fundamental_matrix(
                *(each.keypoints[rows[:, side]].astype(float) for side, each in enumerate(pair))
            )[1].sum()
        )
        for pair, rows in zip(pairs, found, strict=True)
    )
