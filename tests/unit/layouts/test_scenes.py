"""The three layouts on small folders, the odd ones, and the text of what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loc.config import SceneConfig
from loc.errors import ConfigError, DataError
from loc.layouts import load_scene

ODD_NAMES = ["day/a b.jpg", "day/ü-ñ 日本.JPG", "x-y/z.png", "x/y-z.png", "#5/1.jpg", "top.jpg"]


def photo(root: Path, name: str, wh=(80, 60)) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", wh, "gray").save(path)


def photos(root: Path, *names: str, wh=(80, 60)) -> Path:
    for name in names:
        photo(root, name, wh)
    return root


def scene(**options):
    return load_scene(SceneConfig(**options))


def names(records):
    return [record.name for record in records]


# --- folder ----------------------------------------------------------------------------------


def test_folder_with_odd_names(tmp_path):
    root = photos(tmp_path, *ODD_NAMES[:4], "top.jpg")
    loaded = scene(images=root)
    assert names(loaded.db) == sorted([*ODD_NAMES[:4], "top.jpg"])
    assert loaded.queries == ()
    assert loaded.skipped == {}
    assert all(image.path.is_file() and image.pose is None for image in loaded.db)
    assert {image.camera_id for image in loaded.db} == {
        f"{folder} [80x60]" for folder in ("day", "x-y", "x", ".")
    }


def test_queries_inside_the_image_root_are_no_database_images(tmp_path):
    root = photos(tmp_path / "images", "db/1.jpg", "query/night/1.jpg", "query/Day/2.jpg")
    loaded = scene(images=root, queries=root / "query")
    assert names(loaded.db) == ["db/1.jpg"]
    assert [(q.name, q.group) for q in loaded.queries] == [
        ("query/Day/2.jpg", "day"),
        ("query/night/1.jpg", "night"),
    ]
    assert {image.group for image in loaded.db} == {"all"}


def test_queries_outside_are_named_after_their_folder(tmp_path):
    root = photos(tmp_path / "images", "1.jpg")
    photos(tmp_path / "new photos", "1.jpg", "sub/2.jpg")
    loaded = scene(images=root, queries=tmp_path / "new photos")
    assert names(loaded.queries) == ["new photos/1.jpg", "new photos/sub/2.jpg"]
    assert names(loaded.db) == ["1.jpg"]


def test_relative_paths(tmp_path, monkeypatch):
    photos(tmp_path / "images", "db/1.jpg", "q/2.jpg")
    monkeypatch.chdir(tmp_path)
    loaded = scene(images=Path("images"), queries=Path("images/q"))
    assert (names(loaded.db), names(loaded.queries)) == (["db/1.jpg"], ["q/2.jpg"])


def test_query_folder_that_is_the_image_root(tmp_path):
    photos(tmp_path, "images/1.jpg")
    for folder in (tmp_path / "images", tmp_path):
        with pytest.raises(DataError, match=r"scene\.queries .* is, or contains, the image root"):
            scene(images=tmp_path / "images", queries=folder)


def test_unreadable_photos_are_skipped_with_the_reason(tmp_path):
    root = photos(tmp_path / "images", "good.jpg", "q/good.jpg")
    (root / "empty.jpg").write_bytes(b"")
    (root / "text.jpg").write_text("hello")
    (root / "line\nbreak.jpg").write_bytes((root / "good.jpg").read_bytes())
    (root / "#1.jpg").write_bytes((root / "good.jpg").read_bytes())
    (root / "q" / "bad.png").write_text("hello")
    loaded = scene(images=root, queries=root / "q")
    assert names(loaded.images) == ["good.jpg", "q/good.jpg"]
    assert sorted(loaded.skipped) == ["#1.jpg", "empty.jpg", "line\nbreak.jpg", "q/bad.png", "text.jpg"]
    assert "is empty (0 bytes)" in loaded.skipped["empty.jpg"]
    assert "is not an image" in loaded.skipped["text.jpg"]
    assert "control character" in loaded.skipped["line\nbreak.jpg"]
    assert "rename the file" in loaded.skipped["#1.jpg"]
    assert loaded.skipped_queries == ("q/bad.png",)


def test_no_photos(tmp_path):
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match="there is no photo in") as caught:
        scene(images=tmp_path)
    assert ".jpg" in caught.value.next_step


def test_image_root_that_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"scene\.images: .*nowhere does not exist") as caught:
        scene(images=tmp_path / "nowhere")
    assert "working directory" in caught.value.next_step
    photo(tmp_path, "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is a file, not a folder"):
        scene(images=tmp_path / "a.jpg")
    with pytest.raises(ConfigError, match=r"scene\.images is not set") as caught:
        scene()
    assert "--set scene.images=" in caught.value.next_step


def test_options_of_another_layout(tmp_path):
    with pytest.raises(ConfigError, match=r"scene\.model is not used by the layout 'folder'"):
        scene(images=photos(tmp_path, "a.jpg"), model=tmp_path)


def test_masks(tmp_path):
    root = photos(tmp_path / "images", "a b.jpg", "s/b.png", "c.jpg")
    photos(root / "masks", "a b.jpg.png", "s/b.png")  # inside the image root, yet no photos
    loaded = scene(images=root, masks=root / "masks")
    assert {image.name: image.mask for image in loaded.images} == {
        "a b.jpg": root / "masks" / "a b.jpg.png",
        "s/b.png": root / "masks" / "s" / "b.png",
        "c.jpg": None,
    }
    beside = photos(tmp_path / "beside", "a.jpg", "a.jpg.png", "b.png")
    assert names(scene(images=beside, masks=beside).images) == ["a.jpg", "b.png"]


def test_masks_of_other_photos(tmp_path):
    root = photos(tmp_path / "images", "a.jpg")
    photos(tmp_path / "masks", "z.png")
    with pytest.raises(DataError, match=r"no file in .*masks belongs to a photo") as caught:
        scene(images=root, masks=tmp_path / "masks")
    assert "a.jpg.png" in caught.value.next_step


def test_intrinsics_list(tmp_path):
    root = photos(tmp_path / "images", "a b.jpg", "c.jpg")
    (tmp_path / "k.txt").write_text("a b.jpg PINHOLE 80 60 70 70 40 30")
    loaded = scene(images=root, intrinsics=tmp_path / "k.txt")
    assert loaded.camera_of(loaded["a b.jpg"]).focal_px == 70
    assert loaded.camera_of(loaded["c.jpg"]).focal_px == 96
    (tmp_path / "k.txt").write_text("images/a b.jpg PINHOLE 80 60 70 70 40 30")
    with pytest.raises(DataError, match=r"no image of the scene is in the intrinsics list .*images/a b\.jpg"):
        scene(images=root, intrinsics=tmp_path / "k.txt")


def test_ground_truth_by_name_or_by_the_end_of_it(tmp_path):
    root = photos(tmp_path / "images", "db.jpg")
    photos(tmp_path / "q", "a b.jpg", "s/c.jpg", "t/c.jpg")
    truth = tmp_path / "gt.txt"
    truth.write_text("a b.jpg 1 0 0 0 1 2 3\nq/s/c.jpg 1 0 0 0 4 5 6\nother.jpg 1 0 0 0 0 0 0")
    loaded = scene(images=root, queries=tmp_path / "q", ground_truth=truth)
    assert sorted(loaded.ground_truth) == ["q/a b.jpg", "q/s/c.jpg"]
    assert loaded.ground_truth["q/s/c.jpg"].translation.tolist() == [4, 5, 6]
    truth.write_text("c.jpg 1 0 0 0 1 2 3")
    with pytest.raises(
        DataError, match=r"ground truth 'c\.jpg' .* fits 2 queries: 'q/s/c\.jpg', 'q/t/c\.jpg'"
    ):
        scene(images=root, queries=tmp_path / "q", ground_truth=truth)
    truth.write_text("z.jpg 1 0 0 0 1 2 3")
    with pytest.raises(DataError, match=r"no query has a pose in the ground truth .*'z\.jpg'"):
        scene(images=root, queries=tmp_path / "q", ground_truth=truth)


# --- hloc ------------------------------------------------------------------------------------


def test_hloc_lists_with_globs(tmp_path):
    root = photos(tmp_path / "images", "db/1.jpg", "db/2.jpg", "query/day/1 a.jpg", "query/night/1.jpg")
    (tmp_path / "db.txt").write_text("db/1.jpg\n")
    for time, name in (("day", "1 a"), ("night", "1")):
        line = f"query/{time}/{name}.jpg SIMPLE_RADIAL 80 60 75 40 30 0.1\n"
        (tmp_path / f"{time}_time_queries_with_intrinsics.txt").write_text(line)
    config = {"layout": "hloc", "images": root, "queries": tmp_path / "*_time_queries_with_intrinsics.txt"}
    loaded = scene(**config, image_list=tmp_path / "db.txt")
    assert names(loaded.db) == ["db/1.jpg"]
    assert [(q.name, q.group) for q in loaded.queries] == [
        ("query/day/1 a.jpg", "day"),
        ("query/night/1.jpg", "night"),
    ]
    assert all(loaded.camera_of(query).focal_px == 75 for query in loaded.queries)
    assert names(scene(**config).db) == ["db/1.jpg", "db/2.jpg"]


def test_hloc_missing_images(tmp_path):
    root = photos(tmp_path / "images", "sub/db/1.jpg")
    (tmp_path / "db.txt").write_text("db/1.jpg\ndb/2.jpg")
    config = {"layout": "hloc", "image_list": tmp_path / "db.txt"}
    with pytest.raises(DataError, match=r"none of the 2 images of the list .*missing: 'db/1\.jpg'") as caught:
        scene(**config, images=root)
    assert "sub/db/1.jpg exists: scene.images must be the folder" in caught.value.next_step
    loaded = scene(**config, images=root / "sub")
    assert names(loaded.db) == ["db/1.jpg"]
    assert "no photo at" in loaded.skipped["db/2.jpg"]


def test_hloc_wrong_lists(tmp_path):
    root = photos(tmp_path / "images", "a.jpg")
    (tmp_path / "q.txt").write_text("../a.jpg PINHOLE 80 60 1 1 1 1")
    with pytest.raises(DataError, match=r"'\.\./a\.jpg' \(.*q\.txt line 1\)"):
        scene(layout="hloc", images=root, queries=tmp_path / "q.txt")
    (tmp_path / "q.txt").write_text("a.jpg PINHOLE 60 80 70 70 30 40")
    with pytest.raises(DataError, match="fit only the rotated size"):
        scene(layout="hloc", images=root, queries=tmp_path / "q.txt")
    with pytest.raises(DataError, match="is a folder; the layout 'hloc' takes a list"):
        scene(layout="hloc", images=root, queries=root)
    (tmp_path / "q.txt").write_text("# nothing")
    with pytest.raises(DataError, match="there is no image in"):
        scene(layout="hloc", images=root, image_list=tmp_path / "q.txt")
    assert names(scene(layout="hloc", images=root, queries=tmp_path / "q.txt").images) == ["a.jpg"]


# --- colmap ----------------------------------------------------------------------------------


def model(folder: Path, *names: str, wh=(80, 60)) -> Path:
    """A text model: image i at (i, 0, 0), one camera, no points."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"1 PINHOLE {wh[0]} {wh[1]} 70 70 {wh[0] / 2} {wh[1] / 2}\n")
    lines = [f"{i + 1} 1 0 0 0 {-i} 0 0 1 {name}\n\n" for i, name in enumerate(names)]
    (folder / "images.txt").write_text("".join(lines))
    (folder / "points3D.txt").write_text("")
    return folder


def binary(text_model: Path, folder: Path) -> Path:
    from loc.colmap import pycolmap

    folder.mkdir()
    pycolmap.Reconstruction(text_model).write_binary(folder)
    return folder


@pytest.mark.parametrize("kind", ["text", "binary"])
def test_colmap_model_with_queries(tmp_path, kind):
    root = photos(tmp_path / "images", "db/1.jpg", "db/2.jpg", "q/day/a.jpg", "q/b.jpg", "unused.jpg")
    reference = model(tmp_path / "model", "db/1.jpg", "db/2.jpg", "q/day/a.jpg")
    reference = binary(reference, tmp_path / "binary") if kind == "binary" else reference
    (tmp_path / "q.txt").write_text("q/day/a.jpg\nq/b.jpg")
    loaded = scene(layout="colmap", images=root, model=reference, queries=tmp_path / "q.txt")
    assert names(loaded.db) == ["db/1.jpg", "db/2.jpg"]
    assert names(loaded.queries) == ["q/b.jpg", "q/day/a.jpg"]
    np.testing.assert_allclose(loaded["db/2.jpg"].pose.center_in_world, [1, 0, 0])
    assert all(query.pose is None for query in loaded.queries)
    assert list(loaded.ground_truth) == ["q/day/a.jpg"]
    assert loaded.ground_truth["q/day/a.jpg"].translation.tolist() == [-2, 0, 0]
    assert loaded["db/1.jpg"].camera_id == loaded["db/2.jpg"].camera_id == "model:1"
    known, guessed = (loaded.camera_of(loaded[name]) for name in ("q/day/a.jpg", "q/b.jpg"))
    assert (known.focal_px, known.has_prior_focal_length) == (70, True)
    assert (guessed.focal_px, guessed.has_prior_focal_length) == (96, False)
    assert loaded["q/day/a.jpg"].group == "day"


def test_colmap_lists_take_precedence_over_the_model(tmp_path):
    root = photos(tmp_path / "images", "1.jpg", "2.jpg")
    (tmp_path / "q.txt").write_text("2.jpg PINHOLE 80 60 71 71 40 30")
    (tmp_path / "gt.txt").write_text("2.jpg 1 0 0 0 9 9 9")
    loaded = scene(
        layout="colmap",
        images=root,
        model=model(tmp_path / "model", "1.jpg", "2.jpg"),
        queries=tmp_path / "q.txt",
        ground_truth=tmp_path / "gt.txt",
    )
    assert loaded.camera_of(loaded["2.jpg"]).focal_px == 71
    assert loaded.ground_truth["2.jpg"].translation.tolist() == [9, 9, 9]


def test_colmap_image_list_restricts(tmp_path):
    root = photos(tmp_path / "images", "1.jpg", "2.jpg", "3.jpg")
    config = {"layout": "colmap", "images": root, "model": model(tmp_path / "model", "1.jpg", "2.jpg")}
    (tmp_path / "db.txt").write_text("2.jpg")
    assert names(scene(**config, image_list=tmp_path / "db.txt").images) == ["2.jpg"]
    (tmp_path / "db.txt").write_text("2.jpg\n3.jpg")
    with pytest.raises(DataError, match=r"1 of 2 images of .*db\.txt are not in the model .*'3\.jpg'"):
        scene(**config, image_list=tmp_path / "db.txt")


def test_colmap_images_missing_on_disk(tmp_path):
    reference = model(tmp_path / "model", "db/1.jpg", "db/2.jpg", "db/3.jpg", "db/4.jpg")
    root = photos(tmp_path / "images", "other.jpg")
    with pytest.raises(DataError) as caught:
        scene(layout="colmap", images=root, model=reference)
    assert "none of the 4 images of the model" in caught.value.message
    assert "(missing: 'db/1.jpg', 'db/2.jpg', 'db/3.jpg', …)" in caught.value.message
    assert caught.value.next_step == "check scene.images: names are relative to it"
    photo(root, "db/2.jpg")
    loaded = scene(layout="colmap", images=root, model=reference)
    assert names(loaded.db) == ["db/2.jpg"]
    assert sorted(loaded.skipped) == ["db/1.jpg", "db/3.jpg", "db/4.jpg"]


def test_colmap_wrong_size(tmp_path):
    root = photos(tmp_path / "images", "1.jpg")
    reference = model(tmp_path / "model", "1.jpg", wh=(60, 80))
    with pytest.raises(DataError, match=r"'1\.jpg' \(model .*\) are for 60 x 80 px.*only the rotated size"):
        scene(layout="colmap", images=root, model=reference)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "points3D.txt").unlink(), r"not complete: points3D\.txt is missing"),
        (lambda m: (m / "images.txt").write_text("hello world\n\n"), "is damaged: "),
        (lambda m: (m / "images.txt").write_text("1 1 0 0 0 nan 0 0 1 1.jpg\n\n"), "damaged|not a pose"),
        (lambda m: (m / "images.txt").write_text("1 1 0 0 0 0 0 0 1 /abs/1.jpg\n\n"), "it is absolute"),
        (lambda m: (m / "images.txt").write_text("1 1 0 0 0 0 0 0 1 ../1.jpg\n\n"), r"by '\.\.'"),
        (
            lambda m: (m / "images.txt").write_text("1 1 0 0 0 0 0 0 1 1.jpg\n\n2 1 0 0 0 0 0 0 1 1.jpg\n\n"),
            r"two images called '1\.jpg'",
        ),
        (lambda m: (m / "cameras.txt").write_text("1 PINHOLE 80 60 -70 70 40 30\n"), "camera 1 of the model"),
        (lambda m: (m / "cameras.txt").write_text(""), "is damaged: "),
        (lambda m: (m / "images.txt").write_text(""), "has no registered image"),
        (lambda m: shutil.rmtree(m), "there is no COLMAP model in"),
    ],
)
def test_damaged_models(tmp_path, damage, message):
    root = photos(tmp_path / "images", "1.jpg")
    reference = model(tmp_path / "model", "1.jpg")
    damage(reference)
    with pytest.raises(DataError, match=message):
        scene(layout="colmap", images=root, model=reference)


def test_truncated_binary_model(tmp_path):
    root = photos(tmp_path / "images", "1.jpg")
    reference = binary(model(tmp_path / "model", "1.jpg"), tmp_path / "binary")
    data = (reference / "images.bin").read_bytes()
    (reference / "images.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="is damaged"):
        scene(layout="colmap", images=root, model=reference)


def test_colmap_without_a_model(tmp_path):
    with pytest.raises(ConfigError, match=r"scene\.model is not set"):
        scene(layout="colmap", images=photos(tmp_path, "1.jpg"))


# --- real ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kermit", "virtual_gallery", "lund_door"])
def test_real_models(shared, name):
    folder = shared / "data" / name
    config = {"layout": "colmap", "images": folder / "images", "model": folder / "gt_colmap"}
    loaded = scene(**config, queries=folder / "splits" / "queries_with_intrinsics.txt")
    listed = (folder / "splits" / "mapping_images.txt").read_text().split()
    assert names(loaded.db) == sorted(listed)
    assert loaded.skipped == {}
    assert sorted(loaded.ground_truth) == names(loaded.queries)
    plain = scene(**config, queries=folder / "splits" / "query_images.txt")
    for query in loaded.queries:
        np.testing.assert_allclose(
            loaded.camera_of(query).params, plain.camera_of(plain[query.name]).params, atol=1e-6
        )
