"""Photos as a plug-in is shown them, one at a time: what a global extractor of pixels learns from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float32

from loc.conventions import resize_wh
from loc.errors import DataError
from loc.plugins.blocks import ResolvedPlugin
from loc.runtime.extraction import PhotoFile
from loc.runtime.images import prepare, read_photo
from loc.types import Array


@dataclass(frozen=True)
class Pictures:
    """``(c, h, w)`` float32 in [0, 1] of each photo that can be read and is large enough.

    May be read more than once; nothing is kept.
    """

    plugin: ResolvedPlugin
    files: Sequence[PhotoFile]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Float32[Array, "c h w"]]:
        for file in self.files:
            try:
                photo = read_photo(file.path, color=self.plugin.cls.color)
            except DataError:  # told where it is described
                continue
            height, width = photo.pixels.shape[:2]
            image = prepare(
                photo, to_wh=resize_wh((width, height), self.plugin.stage_options.get("resize_max"))
            )
            if min(image.shape[1:]) >= self.plugin.cls.min_side:
                yield image
