"""`loc doctor` on folders with one thing wrong each: found, named, with what to do; never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scenes import Cli, small_scene, write_photo

from loc.colmap import pycolmap


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        write_photo(tmp_path / "photos" / "db" / f"{number}.png", seed=number)
    return tmp_path / "photos"


def _doctor(cli: Cli, *argv: object) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit code, and the findings by check."""
    code = cli("doctor", *argv, "--no-environment", "--json")
    assert "Traceback" not in cli.err
    by_check: dict[str, list[dict[str, Any]]] = {}
    for finding in cli.json["findings"]:
        assert finding["level"] in ("ok", "warning", "problem")
        assert finding["what"]
        if finding["level"] == "problem":
            assert finding["todo"], finding
        by_check.setdefault(finding["check"], []).append(finding)
    problems = sum(each["level"] == "problem" for found in by_check.values() for each in found)
    assert cli.json["problems"] == problems
    assert code == (3 if problems else 0)
    return code, by_check


def _of_level(findings: list[dict[str, Any]], level: str) -> dict[str, Any]:
    return next(finding for finding in findings if finding["level"] == level)


def test_a_good_folder(cli: Cli, photos: Path) -> None:
    code, found = _doctor(cli, photos)
    assert code == 0
    assert found["files"][0]["what"].startswith("4 of 4 photos can be opened")
    assert found["scene"][0]["what"].startswith("a run would use 4 database images and 0 queries")
    assert found["focal length"][0]["level"] == "warning"
    assert _doctor(cli, photos, "--full")[1]["files"][0]["what"] == "4 of 4 photos can be decoded"


def test_the_environment_here(cli: Cli) -> None:
    assert cli("doctor") in (0, 1)  # 1: this machine may be short of disk or memory
    for check in ("python", "versions", "imports", "import order", "gpu", "open3d", "disk"):
        assert f"  {check}: " in cli.out
    assert "ok       imports: numpy, h5py, Pillow, OpenCV, faiss, pycolmap, torch can be imported" in cli.out


def test_files_that_cannot_be_read(cli: Cli, photos: Path) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.png").write_text("no picture")
    cut = write_photo(photos / "cut.jpg", wh=(640, 480))
    cut.write_bytes(cut.read_bytes()[:-500])
    (photos / "gone.jpg").symlink_to(photos / "nothing.jpg")
    code, found = _doctor(cli, photos)
    assert code == 3
    bad = [finding for finding in found["files"] if finding["level"] == "problem"]
    assert sorted(finding["names"][0] for finding in bad) == ["cut.jpg", "empty.jpg", "gone.jpg", "text.png"]
    assert _of_level(found["files"], "ok")["what"].startswith("4 of 8 photos")


def test_many_bad_files_are_counted(cli: Cli, photos: Path) -> None:
    for number in range(30):
        (photos / f"bad{number:02}.jpg").touch()
    _, found = _doctor(cli, photos)
    bad = [finding for finding in found["files"] if finding["level"] == "problem"]
    assert len(bad) == 11
    assert bad[-1]["what"].startswith("20 more photos cannot be read: bad10.jpg")
    assert len(bad[-1]["names"]) == 20


def test_names(cli: Cli, photos: Path) -> None:
    write_photo(photos / "db" / "A.png", seed=8)
    write_photo(photos / "db" / "a.PNG", seed=9)
    write_photo(photos / "db" / "line\nbreak.png", seed=10)
    _, found = _doctor(cli, photos)
    assert _of_level(found["names"], "warning")["names"] == ["db/A.png", "db/a.PNG"]
    assert "control character" in _of_level(found["names"], "problem")["what"]


def test_copies(cli: Cli, photos: Path, tmp_path: Path) -> None:
    shutil.copyfile(photos / "db" / "0.png", photos / "db" / "again.png")
    (photos / "query").mkdir()
    shutil.copyfile(photos / "db" / "1.png", photos / "query" / "q.png")
    (tmp_path / "config.yaml").write_text(
        f"scene: {{layout: folder, images: {photos}, queries: {photos}/query}}\n"
    )
    code, found = _doctor(cli, tmp_path / "config.yaml")
    assert code == 0
    across, within = found["copies"]
    assert "1 queries are copies of database images: db/1.png = query/q.png" in across["what"]
    assert within["names"] == ["db/again.png"]


def test_intrinsics_against_sizes(cli: Cli, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "k.txt").write_text(
        "db/0.png SIMPLE_RADIAL 64 48 70 32 24 0\n"
        "db/1.png SIMPLE_RADIAL 48 64 70 24 32 0\n"
        "db/2.png SIMPLE_RADIAL 128 96 140 64 48 0\n"
        "db/3.png SIMPLE_RADIAL 64 48 70 0.5 0.5 0\n"
    )
    config = ["folder_sift", "--set", f"scene.images={photos}", "--set", f"scene.intrinsics={tmp_path}/k.txt"]
    code, found = _doctor(cli, *config)
    assert code == 3
    problems = [finding for finding in found["intrinsics"] if finding["level"] == "problem"]
    assert [finding["names"] for finding in problems] == [["db/1.png"], ["db/2.png"]]
    assert "fit only the rotated photo" in problems[0]["what"]
    assert "k.txt line 2: 48 x 64, photo 64 x 48" in problems[0]["what"]
    assert "at another scale" in problems[1]["what"]
    assert _of_level(found["intrinsics"], "warning")["names"] == ["db/3.png"]
    (tmp_path / "k.txt").write_text("db/0.png SIMPLE_RADIAL 64 48 nan 32 24 0\n")
    _, found = _doctor(cli, *config)
    assert "k.txt line 1" in found["intrinsics"][0]["what"]


def test_rotation_by_exif(cli: Cli, photos: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    write_photo(photos / "turned.png").unlink()
    Image.new("RGB", (64, 48), (90, 20, 30)).save(photos / "turned.jpg", exif=exif)
    _, found = _doctor(cli, photos)
    assert found["rotation"][0]["level"] == "ok"
    assert found["rotation"][0]["names"] == ["turned.jpg"]
    (tmp_path / "k.txt").write_text("turned.jpg SIMPLE_RADIAL 64 48 70 32 24 0\n")
    config = ["folder_sift", "--set", f"scene.images={photos}", "--set", f"scene.intrinsics={tmp_path}/k.txt"]
    _, found = _doctor(cli, *config)
    assert found["rotation"][0]["level"] == "warning"


def _lists(tmp_path: Path, photos: Path, *, db: str, queries: str) -> Path:
    (tmp_path / "db.txt").write_text(db)
    (tmp_path / "queries.txt").write_text(queries)
    (tmp_path / "config.yaml").write_text(
        f"scene: {{layout: hloc, images: {photos}, image_list: {tmp_path}/db.txt, "
        f"queries: {tmp_path}/queries.txt}}\n"
    )
    return tmp_path / "config.yaml"


def test_lists_and_an_image_root_one_level_off(cli: Cli, photos: Path, tmp_path: Path) -> None:
    config = _lists(tmp_path, photos / "..", db="db/0.png\ndb/1.png\ndb/2.png\n", queries="db/3.png\n")
    code, found = _doctor(cli, config)
    assert code == 3
    assert len(found["missing"]) == 2
    assert found["missing"][0]["what"].startswith(f"3 of 3 images of {tmp_path}/db.txt are not under")
    assert "did you mean another image root?" in found["missing"][0]["todo"]
    assert "photos'" in found["missing"][0]["todo"]
    root = found["missing"][0]["todo"].partition("scene.images='")[2].rstrip("'")
    assert _doctor(cli, config, "--set", f"scene.images={root}")[0] == 0  # what it says helps


def test_empty_query_groups_and_overlap(cli: Cli, photos: Path, tmp_path: Path) -> None:
    queries = "query/night/a.png\nquery/night/b.png\nquery/day/c.png\ndb/0.png\n"
    write_photo(photos / "query" / "day" / "c.png", seed=20)
    code, found = _doctor(cli, _lists(tmp_path, photos, db="db/0.png\ndb/1.png\n", queries=queries))
    assert code == 3
    (group,) = found["groups"]
    assert group["what"] == "the query group 'night' is empty: none of its 2 photos is there"
    assert found["overlap"][0]["names"] == ["db/0.png"]
    _, found = _doctor(cli, _lists(tmp_path, photos, db="db/0.png\n", queries="\n"))
    assert "names no photo" in found["groups"][0]["what"]
    assert found["groups"][0]["level"] == "warning"


def test_an_empty_list_among_others(cli: Cli, photos: Path, tmp_path: Path) -> None:
    """Each list is a group: one without a name is a group that a table of recall will not have."""
    for when, text in (("day", "# to do\n\n"), ("night", "db/3.png PINHOLE 64 48 70 70 32 24\n")):
        (tmp_path / f"{when}_list.txt").write_text(text)
    config = _lists(tmp_path, photos, db="db/0.png\ndb/1.png\n", queries="")
    code, found = _doctor(cli, config, "--set", f"scene.queries={tmp_path}/*_list.txt")
    assert code == 0
    empty = _of_level(found["groups"], "warning")
    assert empty["what"] == f"the query list {tmp_path}/day_list.txt names no photo: its group is empty"
    assert empty["todo"]


def test_an_empty_list_of_aachen(cli: Cli, shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "aachen"
    shutil.copytree(shared / "data" / "aachen_lists" / "format_sample", folder)
    (folder / "queries").mkdir(exist_ok=True)
    path = folder / "queries" / "day_time_queries_with_intrinsics.txt"
    path.unlink(missing_ok=True)
    path.write_text("# none yet\n")
    _, found = _doctor(cli, folder)
    assert f"the query list {path} names no photo" in _of_level(found["groups"], "warning")["what"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_map_needs_two_photos(cli: Cli, photos: Path, count: int) -> None:
    for number in range(count, 4):
        (photos / "db" / f"{number}.png").unlink()
    (photos / "db" / "bad.jpg").write_text("no photo")
    _, found = _doctor(cli, photos)
    assert ("map" in found) == (count < 2)
    if count < 2:
        what = f"a map needs two database images or more; a run would have {count}"
        assert [(each["level"], each["what"]) for each in found["map"]] == [("problem", what)]


def test_names_are_shown_escaped(cli: Cli, photos: Path) -> None:
    """A name may hold what a terminal obeys; no line of the doctor passes it on."""
    for number in (1, 2):
        shutil.copyfile(photos / "db" / "0.png", photos / "db" / f"a\x1b[2J\n\u202e{number}.png")
    (photos / "b\x1b[31m.jpg").touch()
    assert cli("doctor", photos, "--no-environment") == 3
    assert "db/a\\x1b[2J\\n\\u202e1.png = " in cli.out
    assert not [letter for letter in cli.out.replace("\n", "") if not letter.isprintable()]
    assert all(line[:7] in ("ok     ", "WARNING", "PROBLEM", "       ") for line in cli.out.splitlines()[:-1])


def test_empty_folders_of_queries(cli: Cli, photos: Path, tmp_path: Path) -> None:
    write_photo(photos / "query" / "day" / "a.png", seed=30)
    (photos / "query" / "night").mkdir()
    (tmp_path / "config.yaml").write_text(f"scene: {{images: {photos}, queries: {photos}/query}}\n")
    _, found = _doctor(cli, tmp_path / "config.yaml")
    assert found["groups"][0]["names"] == ["night"]


def test_broken_lists_and_models(cli: Cli, photos: Path, tmp_path: Path) -> None:
    config = _lists(tmp_path, photos, db="../escape.png\n", queries="q.png PINHOLE 1\n")
    _, found = _doctor(cli, config)
    assert "db.txt line 1" in found["image list"][0]["what"]
    assert "queries.txt line 1" in found["queries"][0]["what"]
    model = tmp_path / "model"
    model.mkdir()
    (model / "images.bin").write_bytes(b"garbage")
    argv = ["colmap_sift", "--set", f"scene.images={photos}", "--set", f"scene.model={model}"]
    _, found = _doctor(cli, *argv)
    assert "is not complete" in found["model"][0]["what"]


def test_a_model_of_other_photos(cli: Cli, tmp_path: Path) -> None:
    scene = small_scene(tmp_path / "scene").scene
    argv = ["colmap_sift", "--set", f"scene.images={scene.images}", "--set", f"scene.model={scene.model}"]
    code, found = _doctor(cli, *argv)
    assert code == 0
    assert found["intrinsics"][0]["what"] == "the given intrinsics of 6 photos fit their sizes"
    assert _doctor(cli, tmp_path / "scene") == (code, found)  # images/ beside model/ is recognised
    model = pycolmap.Reconstruction(scene.model)
    for image in model.images.values():
        image.name = f"images/{image.name}"
    model.write(scene.model)
    code, found = _doctor(cli, *argv)
    assert code == 3
    assert f"scene.images='{scene.images.parent}'" in found["missing"][0]["todo"]


def test_the_format_sample_of_aachen(cli: Cli, shared: Path) -> None:
    folder = shared / "data" / "aachen_lists" / "format_sample"
    code, found = _doctor(cli, folder)
    assert code == 3
    assert "database_intrinsics.txt does not exist" in found["intrinsics"][0]["what"]


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["nowhere"], 3, "there is no folder and no config nowhere"),
        (["no/where"], 3, "there is no folder and no config no/where"),
        (["gone.yaml"], 2, "no config gone.yaml"),
        (["folder_sift"], 3, "scene.images is not set"),
        (["folder_sift", "--set", "scene.images=gone"], 3, "scene.images: gone does not exist"),
        (["folder_sift", "--set", "scene.imagess=gone"], 2, "did you mean images"),
    ],
)
def test_targets_that_are_none(
    cli: Cli, argv: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("doctor", *argv, "--no-environment") == code
    assert message in cli.out + cli.err
    assert "Traceback" not in cli.err
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_a_run_folder(cli: Cli, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, found = _doctor(cli, tmp_path / "empty")
    assert code == 3
    assert "there is no photo under" in found["files"][0]["what"]
    overrides = ["--set", f"scene.images={photos}", "--workers", "1"]
    assert cli("extract", "folder_sift", "-o", tmp_path / "run", *overrides) == 0
    code, found = _doctor(cli, tmp_path / "run")
    assert code == 0
    assert found["files"][0]["what"].startswith("4 of 4 photos")
