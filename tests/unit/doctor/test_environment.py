"""The environment: versions, wheels in each other's way, native libraries, GPU, disk."""

import sys
from collections import namedtuple
from importlib.metadata import PackageNotFoundError

import pytest

from loc.doctor import environment, natives
from loc.doctor.findings import Diagnosis, data
from loc.doctor.findings import environment as about
from loc.doctor.natives import Outcome, run_child


def _levels(findings) -> dict[str, str]:
    return {finding.check: finding.level for finding in findings}


# ---- children


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("import os; os.abort()", "crashes with SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashes with SIGSEGV"),
        ("import not_a_module", "fails: ModuleNotFoundError: No module named 'not_a_module'"),
        ("raise SystemExit(3)", "fails: exit code 3"),
        ("import time; time.sleep(60)", "hangs (more than 0.5 s)"),
    ],
)
def test_what_a_child_does_is_said_in_words(code, failure):
    timeout_s = 0.5 if "sleep" in code else 30
    assert run_child(code, timeout_s=timeout_s).failure == failure


def test_a_child_that_does_well():
    assert run_child("import sys; print(sys.argv[1])", "said") == Outcome("", "said\n")


# ---- native libraries, with the outcomes of children given


def _examined(monkeypatch, outcomes: dict[str, Outcome], *, open3d: bool = False, driver: bool = False):
    fine = {
        natives._TORCH: Outcome("", '{"cuda": null, "hip": null, "there": false, "mps": false}\n'),
        natives._LIBRARIES: Outcome("", "[]"),
    }

    def run(code: str, *_: str) -> Outcome:
        name = next((name for name, probe in natives._PROBES.items() if probe == code), code)
        return outcomes.get(name, fine.get(name, Outcome("")))

    monkeypatch.setattr(natives, "run_child", run)
    monkeypatch.setattr(natives, "find_spec", lambda name: object() if open3d else None)
    monkeypatch.setattr(natives.shutil, "which", lambda name: "/bin/smi" if driver else None)
    return natives.examine_natives()


def test_all_is_well(monkeypatch):
    assert set(_levels(_examined(monkeypatch, {})).values()) == {"ok"}


def test_a_library_that_crashes_is_a_problem(monkeypatch):
    findings = _examined(monkeypatch, {"faiss": Outcome("crashes with SIGILL")})
    (problem,) = [finding for finding in findings if finding.level == "problem"]
    assert problem.what == "faiss crashes with SIGILL"
    assert problem.todo == "pip install --force-reinstall --no-deps faiss-cpu"
    assert Diagnosis(tuple(findings)).exit_code == 1


def test_libraries_that_only_crash_together(monkeypatch):
    findings = _examined(monkeypatch, {natives._TOGETHER: Outcome("crashes with SIGABRT")})
    (problem,) = [finding for finding in findings if finding.level == "problem"]
    assert problem.check == "import order"


def test_pycolmap_first_is_told_and_no_problem(monkeypatch):
    findings = _examined(monkeypatch, {natives._BARE_FIRST: Outcome("crashes with SIGABRT")})
    assert _levels(findings)["import order"] == "ok"
    assert any("import loc.colmap, or zlib, before pycolmap" in finding.what for finding in findings)


@pytest.mark.parametrize(
    ("torch", "driver", "level", "text"),
    [
        ('{"cuda": "13.0", "hip": null, "there": false, "mps": false}', False, "warning", "there is no GPU"),
        ('{"cuda": "13.0", "hip": null, "there": false, "mps": false}', True, "warning", "driver does not"),
        ('{"cuda": null, "hip": null, "there": false, "mps": false}', True, "warning", "a build for CPUs"),
        ('{"cuda": null, "hip": null, "there": false, "mps": true}', False, "ok", "Apple GPU"),
        (
            '{"cuda": "13.0", "hip": null, "there": true, "mps": false, "name": "G", "bytes": 150754820096}',
            True,
            "ok",
            "G, 140 GiB",
        ),
    ],
)
def test_gpu_and_torch_build(monkeypatch, torch, driver, level, text):
    findings = _examined(monkeypatch, {natives._TORCH: Outcome("", torch)}, driver=driver)
    (gpu,) = [finding for finding in findings if finding.check == "gpu"]
    assert gpu.level == level
    assert text in gpu.what
    assert bool(gpu.todo) is (level != "ok")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the libraries are Linux's")
def test_system_libraries_of_open3d(monkeypatch):
    missing = Outcome("", '["libGL.so.1", "libusb-1.0.so.0"]')
    outcomes = {natives._LIBRARIES: missing, natives._OPEN3D: Outcome("fails: ImportError: libGL.so.1")}
    findings = _examined(monkeypatch, outcomes, open3d=True)
    (finding,) = [each for each in findings if each.check == "open3d"]
    assert finding.level == "warning"  # everything but loc show works
    assert finding.todo == "apt-get install libgl1 libusb-1.0-0"
    assert run_child(natives._LIBRARIES, "libc.so.6", "libnone.so.9").out.strip() == '["libnone.so.9"]'


# ---- versions


def _with_versions(monkeypatch, **found: str | None):
    def version(name: str) -> str:
        known = found.get(name.replace("-", "_"), "999.0")
        if known is None:
            raise PackageNotFoundError(name)
        return known

    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setattr(environment, "minimum_versions", lambda: {"numpy": "1.26", "torch": "2.4"})
    monkeypatch.setattr(environment, "tested_versions", lambda: {"numpy": "2.4.6", "torch": "2.13.0"})
    return list(environment._versions())


def test_versions_that_are_fine(monkeypatch):
    (finding,) = _with_versions(monkeypatch, numpy="2.4.1", torch="2.13.1+cpu")
    assert finding.level == "ok"
    assert finding.what == "numpy 2.4.1, torch 2.13.1+cpu"


def test_versions_that_are_not(monkeypatch):
    old, other = _with_versions(monkeypatch, numpy="1.9.3", torch="2.5.0")
    assert (old.level, old.todo) == ("problem", "pip install -U numpy==2.4.6")
    assert old.what == "numpy 1.9.3 is older than 1.26, the oldest that works"
    assert (other.level, other.what) == ("warning", "torch 2.5.0 is not the tested 2.13.0")
    missing, _ = _with_versions(monkeypatch, numpy=None, torch="2.13.0")
    assert (missing.level, missing.todo) == ("problem", "pip install numpy==2.4.6")


def test_minimum_and_tested_versions_are_those_of_the_package():
    minimum, tested = environment.minimum_versions(), environment.tested_versions()
    assert {"numpy", "torch", "pycolmap", "h5py", "opencv-python-headless"} <= set(minimum)
    assert "pytest" not in minimum
    assert {name.lower() for name in minimum} - set(tested) == set()


def test_constraints_with_markers(monkeypatch):
    text = 'a==2; python_version >= "3.11"\na==1; python_version < "3.11"\n# c\nB==3.1\n'
    info = namedtuple("info", "major minor")
    for minor, expected in ((10, "1"), (11, "2"), (13, "2")):
        monkeypatch.setattr(environment.sys, "version_info", info(3, minor))
        assert dict(environment._constraints(text)) == {"a": expected, "b": "3.1"}


@pytest.mark.parametrize(
    ("info", "level"),
    [((3, 9, 1), "problem"), ((3, 10, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "warning")],
)
def test_python(monkeypatch, info, level):
    monkeypatch.setattr(environment.sys, "version_info", info)
    assert _levels(environment._python())["python"] == level


def test_two_wheels_of_opencv(monkeypatch):
    there = {"opencv-python", "opencv-python-headless"}
    monkeypatch.setattr(environment, "_installed", lambda name: name in there)
    (finding,) = environment._exclusive()
    assert finding.level == "problem"
    assert finding.todo == (
        "pip uninstall -y opencv-python-headless opencv-python && pip install opencv-python-headless"
    )
    there.remove("opencv-python")
    assert list(environment._exclusive()) == []


@pytest.mark.parametrize(("gib", "level"), [(0.5, "problem"), (5, "warning"), (50, "ok")])
def test_free_disk(monkeypatch, gib, level):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda place: usage(int(gib * (1 << 30))))
    findings = list(environment._disk())
    assert {finding.level for finding in findings} == {level}
    assert all(bool(finding.todo) is (level != "ok") for finding in findings)


@pytest.mark.parametrize(("gib", "level"), [(0.5, "problem"), (3, "warning"), (50, "ok")])
def test_memory(monkeypatch, gib, level):
    monkeypatch.setattr(environment, "_available_memory", lambda: int(gib * (1 << 30)))
    assert _levels(environment._memory()) == {"memory": level}


# ---- exit codes


def test_exit_codes():
    assert Diagnosis((about("warning", "a", ""), data("warning", "b", ""))).exit_code == 0
    assert Diagnosis((data("problem", "b", ""),)).exit_code == 3
    assert Diagnosis((data("problem", "b", ""), about("problem", "a", ""))).exit_code == 1
