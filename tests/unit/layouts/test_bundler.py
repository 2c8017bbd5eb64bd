"""Bundler files: frames, pixels, distortion, and every mistake with its line."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from loc.errors import DataError
from loc.layouts.bundler import read_bundler
from loc.layouts.nvm import parse_nvm

WH = (400, 300)


def write_bundle(folder: Path, *, corner: bool = False) -> tuple[Path, Path]:
    """A bundle by Bundler's own formulas: P = R X + t, p = -P / P.z, p' = f r(p) p, y up."""
    random = np.random.default_rng(0)
    points = random.uniform(-1, 1, (20, 3))
    f, k1, k2 = 350.0, -0.08, 0.02
    lines, seen = ["# Bundle file v0.3", f"4 {len(points)}"], [[] for _ in points]
    for camera in range(4):
        if camera == 1:  # not registered
            lines += ["0 0 0", *(["0 0 0"] * 4)]
            continue
        rotation = Rotation.from_rotvec(random.normal(0, 0.2, 3)).as_matrix()
        translation = np.array([0.1 * camera, 0, -6])
        lines.append(f"{f} {k1} {k2}")
        lines += [" ".join(map(repr, map(float, row))) for row in [*rotation, translation]]
        in_camera = points @ rotation.T + translation
        p = -in_camera[:, :2] / in_camera[:, 2:]
        squared = (p**2).sum(axis=1, keepdims=True)
        pixels = f * (1 + k1 * squared + k2 * squared**2) * p
        if corner:  # as in the Aachen data set: from the top left, y up (so negative)
            pixels += np.array([WH[0] / 2, -WH[1] / 2])
        for number, (x, y) in enumerate(pixels):
            seen[number].append(f"{camera} {7 * number} {float(x)!r} {float(y)!r}")
    for point, views in zip(points, seen, strict=True):
        lines += [" ".join(map(repr, map(float, point))), "10 20 30", f"{len(views)} {' '.join(views)}"]
    (folder / "bundle.out").write_text("\n".join(lines) + "\n")
    (folder / "list.txt").write_text("./db/a.jpg 0 350.5\ndb/b.jpg\n\ndb/c.jpg\ndb/d.jpg\n")
    return folder / "bundle.out", folder / "list.txt"


@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize("keep_world", [False, True])
def test_points_project_where_they_were_seen(tmp_path, corner, keep_world):
    found = read_bundler(*write_bundle(tmp_path, corner=corner), keep_world=keep_world)
    columns = found.columns
    assert columns.names == ("db/a.jpg", "db/c.jpg", "db/d.jpg")  # the unregistered one is left out
    assert columns.is_centered is not corner
    shift = np.zeros(2) if corner else np.array(WH) / 2
    rows = np.repeat(np.arange(20), np.diff(columns.offsets))
    for image, point, xy in zip(columns.image, rows, columns.xy, strict=True):
        pose = columns.poses[image]
        x, y, z = pose.rotation @ columns.xyz[point] + pose.translation
        assert z > 0  # in front, as COLMAP has it
        k1, k2 = found.distortion[image]
        squared = (x**2 + y**2) / z**2
        factor = 350 * (1 + k1 * squared + k2 * squared**2) / z
        np.testing.assert_allclose(xy + shift, [factor * x + 200, factor * y + 150], atol=1e-9)
    assert columns.feature.tolist() == (7 * rows).tolist()
    assert (columns.rgb == [10, 20, 30]).all()


def test_the_world_is_turned_unless_it_is_kept(tmp_path):
    files = write_bundle(tmp_path)
    turned, kept = read_bundler(*files).columns, read_bundler(*files, keep_world=True).columns
    np.testing.assert_array_equal(turned.xyz, kept.xyz * [1, -1, -1])
    for one, other in zip(turned.poses, kept.poses, strict=True):
        np.testing.assert_allclose(one.center_in_world, other.center_in_world * [1, -1, -1], atol=1e-12)


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "NVM_V3", "is not a Bundler file: it begins with 'NVM_V3'"),
        (1, "4", r"line 2: expected the numbers of cameras and points \(2 numbers\), got 1"),
        (1, "9 20", r"has 9 cameras, .*list.txt names 4 images"),
        (1, "4.5 20", "line 2: the numbers of cameras and points must be whole"),
        (2, "350 x 0", "line 3: expected a camera's f k1 k2, got '350 x 0'"),
        (3, "1 1 1", "line 7: the camera that ends here has no rotation matrix"),
        (6, "0 nan 0", "line 7: a camera's translation hold NaN"),
        (24, "3 0 0 1 1", "line 25: a point's views are: n"),
        (24, "1 8 0 1 1", "line 25: a view refers to camera 8 of 4"),
        (-1, "", "ends where a point's views should be"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path, line, text, message):
    bundle, names = write_bundle(tmp_path)
    lines = bundle.read_text().splitlines()
    lines[line] = text
    bundle.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message) as error:
        read_bundler(bundle, names)
    assert error.value.next_step


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\na.jpg\nb.jpg\nc.jpg\n", "line 2: 'a.jpg' is on line 1 already"),
        ("../a.jpg\nb.jpg\nc.jpg\nd.jpg\n", "it leaves the image root"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path, text, message):
    bundle, names = write_bundle(tmp_path)
    names.write_text(text)
    with pytest.raises(DataError, match=message):
        read_bundler(bundle, names)


def test_missing_and_binary_files(tmp_path):
    bundle, names = write_bundle(tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*gone"):
        read_bundler(tmp_path / "gone", names)
    with pytest.raises(DataError, match=r"cannot read the list .*gone"):
        read_bundler(bundle, tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"# Bundle \xff\xfe")
    with pytest.raises(DataError, match="is not a text file"):
        read_bundler(tmp_path / "binary", names)


def test_the_aachen_sample_agrees_with_its_nvm(shared):
    folder = shared / "data" / "aachen_lists" / "format_sample" / "3D-models"
    stem = folder / "aachen_cvpr2018_db"
    bundler = read_bundler(stem.with_suffix(".out"), stem.with_suffix(".list.txt")).columns
    nvm = parse_nvm(stem.with_suffix(".nvm"))
    assert bundler.names == nvm.names
    for one, other in zip(bundler.poses, nvm.poses, strict=True):
        np.testing.assert_allclose(one.rotation, other.rotation, atol=1e-9)
        np.testing.assert_allclose(one.center_in_world, other.center_in_world, atol=1e-6)
    np.testing.assert_allclose(bundler.xyz, nvm.xyz, atol=1e-9)
    np.testing.assert_array_equal(bundler.rgb, nvm.rgb)
    np.testing.assert_array_equal(bundler.image, nvm.image)
    np.testing.assert_array_equal(bundler.feature, nvm.feature)
    np.testing.assert_allclose(bundler.xy, nvm.xy, atol=1e-3)
    assert bundler.is_centered is nvm.is_centered is False
