"""Where and how a run computes: the only settings outside the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from loc.errors import ConfigError

T = TypeVar("T")
#: Called as ``progress(what, done, total)`` after every item; the command line draws it.
Progress = Callable[[str, int, int], None]


def _cores() -> int:
    """Processors this process may use (containers often show more than they give)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Runtime:
    """Device and parallelism. Nothing here changes the numbers of a run.

    Attributes:
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        workers: worker processes and threads; 0 means one per core. With exactly 1 everything runs in
            this process, where a plug-in that crashes natively ends the run.
        batch_size: images of one size shown to a batch plug-in at once; halved when memory runs out.
    """

    device: str = "auto"
    workers: int = 0
    batch_size: int = 8
    progress: Progress | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.workers < 0 or self.batch_size < 1:
            raise ConfigError(
                f"workers must be >= 0 and batch_size >= 1, got {self.workers} and {self.batch_size}",
                "workers 0 means one per core",
            )

    @property
    def num_workers(self) -> int:
        return self.workers or _cores()

    def track(self, items: Iterable[T], what: str, total: int) -> Iterator[T]:
        """Pass ``items`` through and report how many have been asked for."""
        if self.progress is not None:
            self.progress(what, 0, total)
        for done, item in enumerate(items, start=1):
            yield item
            if self.progress is not None:
                self.progress(what, done, total)

    def torch_device(self) -> str:
        """The device's name for torch; imports torch only where the answer needs it."""
        if self.device == "cpu":
            return "cpu"
        import torch

        if self.device == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # torch asserts that CUDA is compiled in
            raise ConfigError(
                f"device {self.device!r} cannot be used: {str(error).splitlines()[0]}",
                "use --device cpu, or install a torch build for this device",
            ) from error
        return self.device
