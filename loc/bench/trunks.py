"""Networks in benchmarks: what everything but the trunk takes, memory of a fresh process, made pictures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loc.bench.ratio import Ratio, Timed, clocked, seconds
from loc.plugins.contract_samples import textured_canvas

if TYPE_CHECKING:
    import torch

#: An object and the name of its function that runs the trunk.
Part = tuple[Any, str]


def besides_trunk(whole: Timed, trunk: Sequence[Part], repeats: int, device: str) -> tuple[float, ...]:
    """Time of all but the trunk over that of the trunk: one share per repeat, after an uncounted call."""
    for owner, name in trunk:
        setattr(owner, name, waiting(getattr(owner, name), device))
    whole()
    shares = []
    for _ in range(repeats):
        with ExitStack() as stack:
            clocks = [stack.enter_context(clocked(owner, name)) for owner, name in trunk]
            total = seconds(whole)
        inside = sum(clock.seconds for clock in clocks)
        shares.append((total - inside) / inside)
    return tuple(shares)


def waiting(call: Any, device: str) -> Any:
    """``call`` that returns when its result is there: a GPU works on while Python goes on."""
    if not device.startswith("cuda"):
        return call
    import torch

    def waited(*args: Any) -> Any:
        out = call(*args)
        torch.cuda.synchronize(device)
        return out

    return waited


def made_image(wh: tuple[int, int]) -> torch.Tensor:
    """``(1, 3, h, w)``: a made picture, repeated."""
    import torch

    canvas = textured_canvas(0)
    times = -(-wh[1] // canvas.shape[1]), -(-wh[0] // canvas.shape[2])
    return torch.from_numpy(np.tile(canvas, (1, *times))[None, :, : wh[1], : wh[0]].copy())


def peak_memory(benchmark: str, what: str, call: str, argv: Sequence[str], most_gb: float) -> Ratio:
    """Largest resident size of a fresh process as a share of ``most_gb``, Python and torch included.

    Args:
        call: ``module:function``; it gets ``argv`` and ends with :func:`say_peak`.
    """
    module, function = call.split(":")
    script = f"import sys; from {module} import {function}; {function}(*sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", script, *argv], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        note = f"not measured: {(done.stderr.strip().splitlines() or ['the system does not tell'])[-1]}"
        return Ratio(benchmark, what, (), note=note)
    peak, before = (int(number) * 1024 for number in done.stdout.split())
    note = f"{peak / 1e9:.2f} GB, of which {before / 1e9:.2f} before the photo"
    return Ratio(benchmark, what, (peak / (most_gb * 1e9),), 1.0, ceiling=True, note=note)


def say_peak(work: Timed) -> None:
    """KiB of this process at its peak and before ``work``, on one line."""
    before = _peak_kib()
    work()
    sys.stdout.write(f"{_peak_kib()} {before}\n")


def _peak_kib() -> int:
    """Of this process alone: what ``getrusage`` says includes that of the one that started it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
