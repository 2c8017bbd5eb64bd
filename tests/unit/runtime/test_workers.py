"""A pool that is left while its workers send results must not wait for the rest of a message."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_WORK = "def build(): return None\ndef work(held, size): return b'x' * size\n"
_LEAVE = """
from loc.runtime.workers import WorkerPool
from sender import build, work
if __name__ == "__main__":
    for _ in range(4):
        try:
            with WorkerPool(build, (), workers=2) as pool:
                waiting = [pool.submit(work, 3_000_000) for _ in range(200)]
                pool.first_done(waiting[:1])
                raise ValueError
        except ValueError:
            print("left")
"""


def test_leaving_kills_workers_in_the_middle_of_a_result(tmp_path: Path) -> None:
    (tmp_path / "sender.py").write_text(_WORK, encoding="utf-8")
    (tmp_path / "leave.py").write_text(_LEAVE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(tmp_path / "leave.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,  # before the mend it waited for ever
        check=True,
    )
    assert done.stdout.split() == ["left"] * 4
