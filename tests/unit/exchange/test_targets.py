"""Exports appear whole, and replace only what an export made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from loc.errors import DataError
from loc.exchange.targets import export_file, export_folder, refuse_inside


def _export(target: Path, text: str = "new", **options) -> None:
    with export_folder(target, {"kind": "test"}, **options) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(text)


def _siblings(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def test_a_folder_is_filled_and_named_in_its_manifest(tmp_path):
    _export(tmp_path / "deep" / "out")
    assert (tmp_path / "deep" / "out" / "sub" / "file.txt").read_text() == "new"
    manifest = (tmp_path / "deep" / "out" / "export.json").read_text()
    assert '"sub/file.txt": 3' in manifest
    assert '"kind": "test"' in manifest
    assert _siblings(tmp_path / "deep" / "out") == ["out"]


def test_a_former_export_needs_force(tmp_path):
    _export(tmp_path / "out", "old")
    with pytest.raises(DataError, match=r"out is not empty\n  add --force"):
        _export(tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "file.txt").read_text() == "old"
    _export(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "sub" / "file.txt").read_text() == "new"
    assert _siblings(tmp_path / "out") == ["out"]


def test_force_does_not_delete_what_no_export_made(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    with pytest.raises(DataError, match="holds files that no export made"):
        _export(tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "a.jpg").read_text() == "precious"
    assert _siblings(tmp_path / "photos") == ["photos"]


def test_an_error_leaves_the_former_folder(tmp_path):
    _export(tmp_path / "out", "old")

    def interrupted() -> None:
        with export_folder(tmp_path / "out", {}, force=True) as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "out" / "sub" / "file.txt").read_text() == "old"
    assert _siblings(tmp_path / "out") == ["out"]


def test_a_killed_export_leaves_the_former_folder_and_does_not_disturb_the_next(tmp_path):
    _export(tmp_path / "out", "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from loc.exchange.targets import export_folder\n"
        "with export_folder(Path(sys.argv[1]), {}, force=True) as folder:\n"
        "    (folder / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "out" / "sub" / "file.txt").read_text() == "old"
    _export(tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "half").exists()
    assert _siblings(tmp_path / "out") == ["out"]


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    _export(tmp_path / "out", "old")
    (tmp_path / "out").rename(tmp_path / ".out.former")
    with pytest.raises(DataError, match="out is not empty"):
        _export(tmp_path / "out")
    assert (tmp_path / "out" / "sub" / "file.txt").read_text() == "old"


def test_two_exports_to_one_place(tmp_path):
    with export_folder(tmp_path / "out", {}), pytest.raises(DataError, match="another process is writing"):
        _export(tmp_path / "out")


def test_the_working_directory_is_a_target(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    _export(Path())
    assert (tmp_path / "empty" / "sub" / "file.txt").is_file()


def test_a_file_is_a_target_of_its_own(tmp_path):
    def write(path: Path) -> None:
        path.write_text("points")

    with pytest.raises(DataError, match="is a folder"):
        export_file(tmp_path, write, begins=b"po")
    export_file(tmp_path / "sub" / "a.ply", write, begins=b"po")
    with pytest.raises(DataError, match=r"exists already\n  add --force"):
        export_file(tmp_path / "sub" / "a.ply", write, begins=b"po")
    export_file(tmp_path / "sub" / "a.ply", write, begins=b"po", force=True)
    with pytest.raises(DataError, match="is a file, not a folder"):
        _export(tmp_path / "sub" / "a.ply")
    assert _siblings(tmp_path / "sub" / "a.ply") == ["a.ply"]


def test_force_replaces_no_file_of_another_kind(tmp_path):
    def write(path: Path) -> None:
        path.write_text("points")

    for name, content in (("run.json", "{}"), ("empty", ""), ("short", "p")):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=f"{name} is no former export of this kind: it is not replaced"):
            export_file(tmp_path / name, write, begins=b"po", force=True)
        assert (tmp_path / name).read_text() == content
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is not replaced"):  # and does not wait for a writer
        export_file(tmp_path / "pipe", write, begins=b"po", force=True)


def test_nothing_goes_into_a_run_folder(tmp_path):
    run = tmp_path / "export" / "run"
    (run / "map" / "1").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    (tmp_path / "link").symlink_to(run)
    for target in (run, run / "new" / "a.ply", tmp_path / "link" / "run.json", run / "map" / ".." / "x"):
        for source in (run, run / "map" / "1"):
            with pytest.raises(DataError, match=r"is inside the run folder .*\n  give a place beside"):
                refuse_inside(source, target)
    with pytest.raises(DataError, match="holds the run folder"):  # --force would move it away
        refuse_inside(run, tmp_path / "export")
    for target in (tmp_path / "export" / "run2", tmp_path / "a.ply", Path("a.ply")):
        refuse_inside(run, target)
