"""What a few photos show of a run before it is made: sizes and times, measured in a temporary folder."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.images import image_header
from loc.runtime.runtime import Runtime
from loc.stages.artefacts import Matched, Pair
from loc.stages.correspond import match_images
from loc.stages.extract import extract_features
from loc.stages.match import match_pairs
from loc.types import ImageRecord


@dataclass(frozen=True)
class Rates:
    """What a few photos showed; zeros where none were tried. Pixels are those the extractor sees."""

    bytes_per_px: float = 0.0
    keypoints_per_px: float = 0.0
    seconds_per_px: float = 0.0
    matches_per_pair: float = 0.0
    seconds_per_pair: float = 0.0


def shown_pixels(images: list[ImageRecord], extractor: ResolvedPlugin) -> np.ndarray:
    """How many pixels the extractor will see of each image, ``(n,)`` float64."""
    limit = extractor.stage_options.get("resize_max")
    out = []
    for image in images:
        (width, height), _ = image_header(image.path)
        factor = min(1.0, limit / max(width, height)) if limit else 1.0
        out.append(width * height * factor**2)
    return np.array(out, np.float64)


@contextmanager
def sampled_rates(
    images: list[ImageRecord],
    sample: int,
    extractor: ResolvedPlugin,
    matcher: ResolvedPlugin,
    runtime: Runtime,
) -> Iterator[Rates]:
    """Rates measured on up to ``sample`` photos, evenly spaced over the set."""
    if not images or sample == 0:
        yield Rates()
        return
    chosen = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, sample).round().astype(int))]
    with tempfile.TemporaryDirectory(prefix="loc-plan-") as folder:
        # One worker: the time of one photo, without the start of processes.
        alone = Runtime(device=runtime.device, workers=1, batch_size=runtime.batch_size)
        started = time.perf_counter()
        features = extract_features(chosen, plugin=extractor, workdir=Path(folder), runtime=alone)
        spent = time.perf_counter() - started
        pixels = shown_pixels(chosen, extractor).sum()
        names = sorted(features.keys)
        pairs = list(combinations(names, 2))[:10]

        def match(some: list[Pair]) -> Matched:
            where: dict[str, Any] = {"plugin": matcher, "workdir": Path(folder), "runtime": alone}
            if matcher.reads_images:
                return match_images(features, some, images=chosen, **where)
            return match_pairs(features, some, **where)

        match(pairs[:1])
        started = time.perf_counter()
        matched = match(pairs)
        keypoints = sum(matched.keypoints.count(name) for name in names)
        matching = time.perf_counter() - started
        count = sum(matched.count(pair) for pair in pairs)
        yield Rates(
            bytes_per_px=features.store.nbytes / pixels,
            keypoints_per_px=keypoints / pixels,
            seconds_per_px=spent / pixels,
            matches_per_pair=count / max(1, len(pairs)),
            seconds_per_pair=matching / max(1, len(pairs) - 1),
        )
