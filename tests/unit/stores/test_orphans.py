"""What killed writers leave is removed, what others are writing is not."""

from __future__ import annotations

import subprocess
import sys

from loc.stores.files import host, remove_orphans


def test_only_of_dead_processes_of_this_machine_and_of_this_file(tmp_path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as alive:
        kept = (
            f".bundle.json.{host()}-{alive.pid}.tmp",
            f".bundle.json.elsewhere-{dead.pid}.tmp",
            f".other.json.{host()}-{dead.pid}.tmp",
            "bundle.json",
        )
        for name in (*kept, f".bundle.json.{host()}-{dead.pid}.tmp"):
            (tmp_path / name).touch()
        remove_orphans(tmp_path, prefix=".bundle.json.")
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
        alive.communicate(b"\n")
