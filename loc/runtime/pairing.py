"""Running matchers that look at pixels: reading, resizing, one preparation per image, stored pixels.

What extractors get from :mod:`loc.runtime.extraction`, matchers that find their own points get here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from loc.conventions import resize_wh
from loc.errors import ContractError, LocError, PluginError, ResourceError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.extraction import PhotoFile, out_of_memory
from loc.runtime.images import Photo, prepare, read_photo, seen_through, xy_to_stored
from loc.types import Array, Correspondences

#: Bytes of prepared images kept for the next pairs: feature maps of a megapixel are 100 MB.
_CACHE_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Shown:
    """An image as a matcher has prepared it; ``value`` is None where it is too small to be shown."""

    file: PhotoFile
    photo: Photo  # its pixels dropped
    wh: tuple[int, int]
    value: Any


class PairMatcher:
    """A matcher of images together with what the runtime does around it."""

    def __init__(self, plugin: ResolvedPlugin, *, device: str = "cpu") -> None:
        self.plugin = plugin
        self.device = device
        self._call = plugin.build(device=device)
        self._cache: OrderedDict[Hashable, tuple[Shown, int]] = OrderedDict()
        self._bytes = 0

    def shown(self, file: PhotoFile, *, key: Hashable) -> Shown:
        """A photo file, read and prepared; kept under ``key`` until the cache is full.

        Raises:
            DataError: it cannot be read.
        """
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key][0]
        shown = self.prepared(file, read_photo(file.path, color=self.plugin.cls.color))
        size = _nbytes(shown.value)
        self._cache[key] = (shown, size)
        self._bytes += size
        while self._bytes > _CACHE_BYTES and len(self._cache) > 2:
            self._bytes -= self._cache.popitem(last=False)[1][1]
        return shown

    def prepared(self, file: PhotoFile, photo: Photo) -> Shown:
        """A photo in memory, resized and prepared by the plug-in."""
        import torch

        height, width = photo.pixels.shape[:2]
        wh = resize_wh((width, height), self.plugin.stage_options.get("resize_max"))
        value = None
        if min(wh) >= self.plugin.cls.min_side:
            image = torch.from_numpy(prepare(photo, to_wh=wh)).to(self.device)
            value = self._guarded(self._call.prepare, image, f"{file.name} ({wh[0]} x {wh[1]} px)")
        return Shown(file, replace(photo, pixels=photo.pixels[:0]), wh, value)

    def match(self, pairs: Sequence[tuple[Shown, Shown]]) -> list[Correspondences]:
        """Correspondences of each pair in px of the stored images (corner origin), masks applied."""
        seen = [pair for pair in pairs if pair[0].value is not None and pair[1].value is not None]
        what = ", ".join(f"{first.file.name} and {second.file.name}" for first, second in seen[:2])
        found = self._guarded(self._call, [(one.value, two.value) for one, two in seen], what) if seen else []
        if not isinstance(found, list) or len(found) != len(seen):
            count = len(found) if isinstance(found, list) else type(found).__name__
            raise ContractError(
                f"{self.plugin.name} returned {count} results for {len(seen)} pairs",
                "a matcher returns one Correspondences per pair, in a list",
            )
        results = iter(found)
        return [
            self._stored(next(results), *pair)
            if pair[0].value is not None and pair[1].value is not None
            else Correspondences.empty()
            for pair in pairs
        ]

    def _stored(self, found: Any, first: Shown, second: Shown) -> Correspondences:
        if not isinstance(found, Correspondences):
            raise ContractError(
                f"{self.plugin.name} returned {type(found).__name__}, expected Correspondences",
                "a matcher that requires images returns loc.types.Correspondences",
            )
        good = np.ones(len(found), bool)
        stored: list[Array] = []
        for shown, xy in ((first, found.xy0), (second, found.xy1)):
            carried, inside = xy_to_stored(xy, shown.photo, shown.wh, self.plugin.cls.pixel_origin)
            good &= inside
            if shown.file.mask is not None and len(carried):
                good &= seen_through(shown.file.mask, carried, shown.photo.stored_wh)
            stored.append(carried)
        return Correspondences(stored[0], stored[1], found.scores.astype(np.float32)).select(good)

    def _guarded(self, function: Any, argument: Any, what: str) -> Any:
        """Call the plug-in; whatever it raises names it and the images."""
        try:
            return function(argument)
        except ContractError as error:
            raise ContractError(f"{self.plugin.name} on {what}: {error.message}", error.next_step) from error
        except LocError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise ResourceError(
                    f"{self.plugin.name} ran out of memory on {what}",
                    "lower resize_max, e.g. --set matcher.resize_max=640, or use --device cpu",
                ) from error
            raise PluginError(
                f"matcher {self.plugin.name} failed on {what}: {type(error).__name__}: {error}",
                "run with --debug for the traceback; loc.plugins.contract checks a plug-in",
            ) from error


def _nbytes(value: Any) -> int:
    """Bytes of the arrays and tensors in what a plug-in prepared."""
    if isinstance(value, dict):
        return sum(map(_nbytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_nbytes, value))
    return int(getattr(value, "nbytes", 0))
