"""Worker processes that hold one built object each, and die with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from types import TracebackType
from typing import Any

_held: Any = None
_failure: Exception | None = None


class WorkerPool:
    """Spawned processes, each with ``build(*args)`` made once; ``submit(work, x)`` calls ``work(held, x)``.

    Spawned, not forked: forking after native threads have started deadlocks sooner or later.
    """

    def __init__(self, build: Callable[..., Any], args: tuple[Any, ...], *, workers: int) -> None:
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(build, args),
        )

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # do not wait for work whose result nobody will take
            for process in list((self._pool._processes or {}).values()):
                process.kill()  # a SIGTERM would make glog (pycolmap) print a stack per worker
            # A worker killed while it sends a result leaves half a message; the executor's thread reads
            # on for the rest, forever, since this process holds the pipe's other end open too.
            results = getattr(self._pool, "_result_queue", None)
            if results is not None:
                results._writer.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, work: Callable[[Any, Any], Any], item: Any) -> Future[Any]:
        with _main_hidden():
            return self._pool.submit(_call, work, item)

    @staticmethod
    def first_done(futures: Iterable[Future[Any]]) -> list[Future[Any]]:
        """Block until at least one is done; all that are."""
        ordered = list(futures)
        done, _ = wait(ordered, return_when=FIRST_COMPLETED)
        return [future for future in ordered if future in done]


@contextlib.contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep spawned workers from importing the user's script again.

    They need nothing of it, and a script without ``if __name__ == "__main__"`` would start itself.
    """
    main = sys.modules["__main__"]
    saved = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    try:
        if "__file__" in saved:
            del main.__file__
        main.__spec__ = None
        yield
    finally:
        for name, value in saved.items():
            setattr(main, name, value)


def _start_worker(build: Callable[..., Any], args: tuple[Any, ...]) -> None:
    global _held, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interruption means
    threading.Thread(target=_die_with_parent, daemon=True).start()
    import cv2

    cv2.setNumThreads(1)
    try:
        _held = build(*args)
    except Exception as error:  # noqa: BLE001  raised by the first call: a pool only says it is broken
        _failure = error


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(work: Callable[[Any, Any], Any], item: Any) -> Any:
    if _failure is not None:
        raise _failure
    return work(_held, item)
