"""Running extractors over photos: reading, resizing, batching, worker processes, back-off.

The plug-in sees one thing: float images in [0, 1], upright, at most ``resize_max`` px long. What
comes back is in px of the stored image with corner origin, whatever the plug-in's convention.
Memory is bounded: a few images per worker are in flight, never the whole set.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from loc.conventions import resize_wh
from loc.errors import ContractError, DataError, LocError, PluginError, ResourceError
from loc.plugins.blocks import ResolvedPlugin
from loc.plugins.joint import Described
from loc.runtime.images import Photo, apply_mask, features_to_stored, prepare, read_photo
from loc.runtime.runtime import Runtime
from loc.runtime.workers import WorkerPool
from loc.types import LocalFeatures

log = logging.getLogger(__name__)
_PREFETCH_THREADS = 4


@dataclass(frozen=True)
class PhotoFile:
    """A photo to extract from."""

    name: str
    path: Path
    mask: Path | None = None


@dataclass(frozen=True)
class Skipped:
    """Why a photo has no result."""

    reason: str


@dataclass(frozen=True)
class _Prepared:
    file: PhotoFile
    photo: Photo  # its pixels dropped: only sizes and orientation are needed later
    image: np.ndarray  # (c, h, w) float32


class PhotoExtractor:
    """An extractor (local, or global from pixels) together with what the runtime does around it."""

    def __init__(self, plugin: ResolvedPlugin, *, device: str = "cpu") -> None:
        self.plugin = plugin
        self.device = device
        self._call = plugin.build(device=device)

    @property
    def instance(self) -> Any:
        """The plug-in itself."""
        return self._call

    def read(self, file: PhotoFile) -> _Prepared:
        """Decode and resize one photo; raises :class:`DataError` where it cannot be read."""
        photo = read_photo(file.path, color=self.plugin.cls.color)
        return self._prepared(file, photo)

    def extract(self, photo: Photo, *, name: str = "image", mask: Path | None = None) -> Any:
        """The result for a photo in memory: LocalFeatures, or a ``(d,)`` descriptor."""
        file = PhotoFile(name, Path(name), mask)
        return self.run([self._prepared(file, photo)])[0]

    def run(self, batch: list[_Prepared]) -> list[Any]:
        """Results of images of one size, in stored px."""
        smallest = min(batch[0].image.shape[1:])
        if smallest < getattr(self.plugin.cls, "min_side", 1):
            return [self._nothing(item) for item in batch]
        images = np.stack([item.image for item in batch])
        outputs = self._run_plugin(images, batch)
        return [self._finish(item, output) for item, output in zip(batch, outputs, strict=True)]

    def _prepared(self, file: PhotoFile, photo: Photo) -> _Prepared:
        image = prepare(photo, to_wh=self._resized_wh(photo.pixels.shape[1], photo.pixels.shape[0]))
        return _Prepared(file, replace(photo, pixels=photo.pixels[:0]), image)

    def _resized_wh(self, width: int, height: int) -> tuple[int, int]:
        """Size at which the plug-in sees an upright photo; a plug-in may have a rule of its own."""
        limit = self.plugin.stage_options.get("resize_max")
        if hasattr(self._call, "resized_wh"):
            own: tuple[int, int] = self._call.resized_wh((width, height), limit)
            return own
        return resize_wh((width, height), limit)

    def _run_plugin(self, images: np.ndarray, batch: list[_Prepared]) -> Any:
        shown: Any = images
        names = ", ".join(item.file.name for item in batch[:3])
        if getattr(self.plugin.cls, "parallel", "batch") == "batch":
            import torch

            shown = torch.from_numpy(images).to(self.device)
        try:
            outputs = self._call(shown)
        except ContractError as error:
            raise ContractError(f"{self.plugin.name} on {names}: {error.message}", error.next_step) from error
        except LocError:
            raise
        except (Exception, SystemExit) as error:
            if out_of_memory(error):
                raise
            raise PluginError(
                f"{self.plugin.name} failed on {names}: {type(error).__name__}: {error}",
                "run with --debug for the traceback; loc.plugins.contract checks a plug-in",
            ) from error
        if not hasattr(outputs, "__len__"):
            raise ContractError(
                f"{self.plugin.name} returned {type(outputs).__name__} for {len(batch)} images",
                "a plug-in returns one result per image of the batch, in a list",
            )
        if len(outputs) != len(batch):
            raise ContractError(
                f"{self.plugin.name} returned {len(outputs)} results for {len(batch)} images",
                "a plug-in returns one result per image of the batch",
            )
        return outputs

    def _finish(self, item: _Prepared, output: Any) -> Any:
        if self.plugin.kind == "global":
            return np.asarray(output, np.float32)
        if isinstance(output, Described):
            return Described(self._finish(item, output.features), np.asarray(output.vector, np.float32))
        if not isinstance(output, LocalFeatures):
            raise ContractError(
                f"{self.plugin.name} returned {type(output).__name__}, expected LocalFeatures"
            )
        height, width = item.image.shape[1:]
        features = features_to_stored(
            output, item.photo, resized_wh=(width, height), pixel_origin=self.plugin.cls.pixel_origin
        )
        return features if item.file.mask is None else apply_mask(features, item.file.mask)

    def _nothing(self, item: _Prepared) -> Any:
        if self.plugin.kind == "global":
            raise DataError(
                f"{item.file.name} is smaller than the {self.plugin.cls.min_side} px {self.plugin.name} needs"
            )
        none = np.zeros(0, np.float32)
        return LocalFeatures(
            keypoints=np.zeros((0, 2), np.float32),
            scores=none,
            descriptors=np.zeros((0, 0), np.float32),
            image_wh=item.photo.stored_wh,
        )


def extract_many(
    plugin: ResolvedPlugin, files: list[PhotoFile], *, runtime: Runtime
) -> Iterator[tuple[PhotoFile, Any]]:
    """Results of many photos, in the order they are done: ``(file, result or Skipped)``.

    A photo that cannot be read, or that crashes a worker process, is skipped with its reason; a
    plug-in that raises stops the run, since it would raise again.
    """
    if getattr(plugin.cls, "parallel", "batch") == "process":
        if runtime.workers == 1:
            yield from _one_by_one(plugin, files)
        else:  # even a single photo: what crashes must not take the run along
            yield from _in_processes(plugin, files, min(runtime.num_workers, len(files)))
    else:
        yield from _in_batches(plugin, files, runtime)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that the device or the host ran out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def _one_by_one(plugin: ResolvedPlugin, files: list[PhotoFile]) -> Iterator[tuple[PhotoFile, Any]]:
    extractor = PhotoExtractor(plugin)
    for file in files:
        yield file, _extract_one(extractor, file)


def _extract_one(extractor: PhotoExtractor, file: PhotoFile) -> Any:
    try:
        return extractor.run([extractor.read(file)])[0]
    except DataError as error:
        return Skipped(error.message)


def _in_processes(
    plugin: ResolvedPlugin, files: list[PhotoFile], workers: int
) -> Iterator[tuple[PhotoFile, Any]]:
    """Worker processes; when one dies, its images are tried again alone to find the culprit."""
    waiting = deque(files)
    while waiting:
        in_flight: dict[Future[Any], PhotoFile] = {}
        try:
            with WorkerPool(PhotoExtractor, (plugin,), workers=workers) as pool:
                while waiting or in_flight:
                    while waiting and len(in_flight) < 2 * workers:
                        in_flight[pool.submit(_extract_one, waiting[0])] = waiting[0]
                        waiting.popleft()  # not before: a broken pool refuses, and the file stays
                    for future in pool.first_done(in_flight):
                        result = future.result()
                        yield in_flight.pop(future), result
        except BrokenProcessPool:
            for file in sorted(in_flight.values(), key=lambda file: file.name):
                yield file, _alone(plugin, file)


def _alone(plugin: ResolvedPlugin, file: PhotoFile) -> Any:
    try:
        with WorkerPool(PhotoExtractor, (plugin,), workers=1) as pool:
            return pool.submit(_extract_one, file).result()
    except BrokenProcessPool:
        log.warning("%s crashed on %s", plugin.name, file.path)
        return Skipped(f"{plugin.name} crashed on it (the process died)")


def _in_batches(
    plugin: ResolvedPlugin, files: list[PhotoFile], runtime: Runtime
) -> Iterator[tuple[PhotoFile, Any]]:
    """Batches of images of one size, decoded ahead by a few threads."""
    extractor = PhotoExtractor(plugin, device=runtime.torch_device())
    batch_size = runtime.batch_size
    buckets: dict[tuple[int, ...], list[_Prepared]] = {}
    ahead = min(_PREFETCH_THREADS, runtime.num_workers)
    with ThreadPoolExecutor(ahead) as threads:
        for file, item in _prefetched(threads, extractor, files, window=ahead + batch_size):
            if isinstance(item, Skipped):
                yield file, item
                continue
            buckets.setdefault(item.image.shape, []).append(item)
            crowded = sum(len(items) for items in buckets.values()) >= 4 * batch_size
            fullest = max(buckets, key=lambda shape: len(buckets[shape]))
            if crowded or len(buckets[fullest]) >= batch_size:
                batch_size = yield from _run_batches(extractor, buckets.pop(fullest), batch_size)
        for shape in sorted(buckets):
            batch_size = yield from _run_batches(extractor, buckets[shape], batch_size)


def _prefetched(
    threads: ThreadPoolExecutor, extractor: PhotoExtractor, files: list[PhotoFile], *, window: int
) -> Iterator[tuple[PhotoFile, _Prepared | Skipped]]:
    def read(file: PhotoFile) -> _Prepared | Skipped:
        try:
            return extractor.read(file)
        except DataError as error:
            return Skipped(error.message)

    yield from _windowed(read, files, threads, window)


def _windowed(
    work: Callable[[PhotoFile], Any], files: Iterable[PhotoFile], threads: ThreadPoolExecutor, window: int
) -> Iterator[tuple[PhotoFile, Any]]:
    """Results in order, with at most ``window`` of them waiting in memory."""
    pending: deque[tuple[PhotoFile, Future[Any]]] = deque()
    for file in files:
        pending.append((file, threads.submit(work, file)))
        if len(pending) >= window:
            done, future = pending.popleft()
            yield done, future.result()
    for done, future in pending:
        yield done, future.result()


def _run_batches(
    extractor: PhotoExtractor, items: list[_Prepared], batch_size: int
) -> Generator[tuple[PhotoFile, Any], None, int]:
    """Run a bucket; halve the batch when memory runs out. Returns the batch size that worked."""
    start = 0
    while start < len(items):
        batch = items[start : start + batch_size]
        try:
            results = extractor.run(batch)
        except DataError as error:
            results = [Skipped(error.message)] * len(batch)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if len(batch) == 1:
                height, width = batch[0].image.shape[1:]
                raise ResourceError(
                    f"{extractor.plugin.name} ran out of memory on {batch[0].file.name} "
                    f"({width} x {height} px)",
                    "lower resize_max, e.g. --set features.resize_max=1024, or use --device cpu",
                ) from error
            batch_size = max(1, len(batch) // 2)
            log.warning("out of memory: batches of %d images from here on", batch_size)
            continue
        for item, result in zip(batch, results, strict=True):
            yield item.file, result
        start += len(batch)
    return batch_size
