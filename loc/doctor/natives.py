"""Native libraries, each imported in a process of its own, so that a crash is a finding; GPU; Open3D."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

from loc.doctor.findings import Finding, environment

_TIMEOUT_S = 120.0
_AT_ONCE = 2

#: Name → code that imports it and does something small with it.
_PROBES = {
    "numpy": "import numpy; numpy.linalg.inv(numpy.eye(50))",
    "h5py": "import h5py; h5py.File('x', 'w', driver='core', backing_store=False).close()",
    "Pillow": "from PIL import Image; Image.new('L', (8, 8)).tobytes()",
    "OpenCV": "import cv2, numpy; cv2.resize(numpy.zeros((8, 8), 'uint8'), (4, 4))",
    "faiss": "import faiss, numpy; faiss.IndexFlatIP(8).add(numpy.ones((2, 8), 'float32'))",
    "pycolmap": "from loc.colmap import pycolmap; pycolmap.Reconstruction()",
}
_WHEELS = {
    "Pillow": "pillow",
    "OpenCV": "opencv-python-headless",
    "faiss": "faiss-cpu",
}
#: pycolmap brings a zlib of its own: imported first it breaks a later one (loc imports zlib before).
_TOGETHER = (
    "from loc.colmap import pycolmap\n"
    "import torch, cv2, faiss, h5py, numpy, zlib\n"
    "data = numpy.random.default_rng(0).integers(0, 255, (64, 64), 'uint8')\n"
    "zlib.compress(data.tobytes())\n"
    "cv2.imencode('.png', data)\n"
    "pycolmap.Reconstruction()"
)
_BARE_FIRST = "import pycolmap, zlib\nzlib.compress(bytes(range(256)) * 400)"
_TORCH = (
    "import json, torch\n"
    "(torch.ones(8, 8) @ torch.ones(8, 8)).sum().item()\n"
    "there = torch.cuda.is_available()\n"
    "print(json.dumps({'cuda': torch.version.cuda, 'hip': getattr(torch.version, 'hip', None),"
    " 'there': there, 'name': torch.cuda.get_device_name(0) if there else None,"
    " 'bytes': torch.cuda.get_device_properties(0).total_memory if there else 0,"
    " 'mps': torch.backends.mps.is_available()}))"
)
_OPEN3D = "import open3d"
_OPEN3D_LIBRARIES = {
    "libusb-1.0.so.0": "libusb-1.0-0",
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgomp.so.1": "libgomp1",
    "libX11.so.6": "libx11-6",
}
_LIBRARIES = (
    "import ctypes, json, sys\nmissing = []\n"
    "for name in sys.argv[1:]:\n"
    "    try:\n        ctypes.CDLL(name)\n"
    "    except OSError:\n        missing.append(name)\n"
    "print(json.dumps(missing))"
)


@dataclass(frozen=True)
class Outcome:
    """How a child process ended: ``failure`` is empty where it did well; ``out`` is its stdout."""

    failure: str
    out: str = ""


def run_child(code: str, *arguments: str, timeout_s: float = _TIMEOUT_S) -> Outcome:
    """Run Python code in a process of its own and say in words how it failed, if it did."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(f"hangs (more than {timeout_s:g} s)")
    except OSError as error:
        return Outcome(f"cannot be tried: {error.strerror}")
    if done.returncode == 0:
        return Outcome("", done.stdout)
    if done.returncode < 0:
        return Outcome(f"crashes with {_signal(-done.returncode)}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return Outcome(f"fails: {lines[-1][:200] if lines else f'exit code {done.returncode}'}")


def examine_natives() -> list[Finding]:
    """Findings about native libraries; takes some seconds, most of them torch's."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        together = threads.submit(run_child, _TOGETHER)
        torch = threads.submit(run_child, _TORCH)
        probes = {name: threads.submit(run_child, code) for name, code in _PROBES.items()}
        bare = threads.submit(run_child, _BARE_FIRST)
        has_open3d = find_spec("open3d") is not None
        open3d = threads.submit(run_child, _OPEN3D) if has_open3d else None
        libraries = threads.submit(run_child, _LIBRARIES, *_OPEN3D_LIBRARIES)
    outcomes = {name: probe.result() for name, probe in probes.items()}
    findings = list(_imports({**outcomes, "torch": torch.result()}))
    findings += _order(together.result(), bare.result(), findings)
    findings += _gpu(torch.result())
    findings += _open3d(None if open3d is None else open3d.result(), libraries.result())
    return findings


def _imports(outcomes: dict[str, Outcome]) -> Iterator[Finding]:
    fine = [name for name, outcome in outcomes.items() if not outcome.failure]
    if fine:
        yield environment("ok", "imports", f"{', '.join(fine)} can be imported")
    for name, outcome in outcomes.items():
        if outcome.failure:
            wheel = _WHEELS.get(name, name)
            yield environment(
                "problem",
                "imports",
                f"{name} {outcome.failure}",
                f"pip install --force-reinstall --no-deps {wheel}",
            )


def _order(together: Outcome, bare: Outcome, before: list[Finding]) -> Iterator[Finding]:
    if together.failure:
        if not any(finding.level == "problem" for finding in before):  # each alone can be imported
            yield environment(
                "problem",
                "import order",
                f"torch, OpenCV, faiss, h5py and pycolmap in one process: {together.failure}",
                "their wheels do not go together: pip install -c constraints.txt visloc",
            )
    elif bare.failure:
        yield environment(
            "ok",
            "import order",
            "loc's order of imports works; in scripts of your own import loc.colmap, or zlib, before "
            f"pycolmap (pycolmap first: zlib {bare.failure})",
        )
    else:
        yield environment("ok", "import order", "torch, OpenCV, faiss, h5py and pycolmap go together")


def _gpu(outcome: Outcome) -> Iterator[Finding]:
    if outcome.failure:  # that torch cannot be imported is said already
        return
    found = json.loads(outcome.out.splitlines()[-1])
    driver = shutil.which("nvidia-smi") is not None
    if found["there"]:
        yield environment("ok", "gpu", f"{found['name']}, {found['bytes'] / (1 << 30):.0f} GiB")
    elif found["mps"]:
        yield environment("ok", "gpu", "Apple GPU (--device mps)")
    elif found["cuda"] or found["hip"]:
        kind = f"CUDA {found['cuda']}" if found["cuda"] else f"ROCm {found['hip']}"
        yield environment(
            "warning",
            "gpu",
            f"torch is a build for {kind}, but "
            + ("the driver does not work with it" if driver else "there is no GPU: gigabytes for nothing"),
            "nvidia-smi shows the driver's version; pip install a torch that it supports"
            if driver
            else "it works as it is; to save the space reinstall torch's CPU build",
        )
    elif driver:
        yield environment(
            "warning",
            "gpu",
            "there is an NVIDIA driver, but torch is a build for CPUs",
            "pip install --force-reinstall torch, with a CUDA build",
        )
    else:
        yield environment("ok", "gpu", "no GPU; torch is a build for CPUs, as it should be")


def _open3d(imported: Outcome | None, libraries: Outcome) -> Iterator[Finding]:
    if imported is None:
        yield environment(
            "ok", "open3d", 'Open3D is not installed; only loc show needs it: pip install "visloc[view]"'
        )
        return
    missing: list[str] = []
    if sys.platform.startswith("linux") and not libraries.failure:
        missing = json.loads(libraries.out)
    if missing:
        packages = " ".join(_OPEN3D_LIBRARIES[name] for name in missing)
        yield environment(
            "warning",
            "open3d",
            f"loc show lacks {len(missing)} system libraries: {', '.join(missing)}",
            f"apt-get install {packages}",
        )
    elif imported.failure:
        yield environment(
            "warning",
            "open3d",
            f"loc show will not work: Open3D {imported.failure}",
            'pip install --force-reinstall "visloc[view]"',
        )
    else:
        yield environment("ok", "open3d", "Open3D can be imported, its system libraries are there")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
