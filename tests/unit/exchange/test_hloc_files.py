"""hloc's files: written as hloc's readers expect them, read as hloc's writers make them."""

import h5py
import numpy as np
import pytest

from loc.errors import DataError
from loc.exchange.hloc_files import (
    check_escapes,
    find_pairs,
    list_names,
    opened,
    read_features,
    read_matches,
    transposed,
    write_features,
    write_matches,
)
from loc.types import LocalFeatures, Matches

WH = (64, 48)


def _features(n: int = 5, dtype: str = "uint8", seed: int = 0) -> LocalFeatures:
    random = np.random.default_rng(seed)
    descriptors = random.integers(0, 256, (n, 8)).astype(dtype)
    return LocalFeatures(
        keypoints=(random.random((n, 2)) * WH).astype(np.float32),
        scores=random.random(n).astype(np.float32),
        descriptors=descriptors,
        image_wh=WH,
        scales=random.random(n).astype(np.float32),
        orientations_rad=None,
        noise_px=1.5,
    )


def _written(path, features, name="db/1.jpg"):
    with h5py.File(path, "w") as file:
        write_features(file.create_group(name), features)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_features_as_hloc_reads_them(tmp_path, dtype, n):
    features = _features(n, dtype)
    with h5py.File(_written(tmp_path / "f.h5", features), "r") as file:
        group = file["db/1.jpg"]
        assert group["keypoints"].dtype == np.float32  # never half
        assert group["keypoints"].shape == (n, 2)
        np.testing.assert_array_equal(group["keypoints"][()], features.keypoints - np.float32(0.5))
        assert group["keypoints"].attrs["uncertainty"] == 1.5
        assert group["descriptors"].shape == (8, n)
        assert group["descriptors"].dtype == ("float32" if dtype == "float32" else "float16")
        assert group["scores"].shape == (n,)
        assert group["image_size"][()].tolist() == list(WH)
        assert group["image_size"].dtype == np.int64
        assert list_names(file, "keypoints") == ["db/1.jpg"]
    with opened(tmp_path / "f.h5") as file:
        again = read_features(file, "db/1.jpg", WH)
    for name in ("scores", "descriptors", "scales"):
        values = getattr(again, name)
        np.testing.assert_array_equal(values, getattr(features, name))
        assert values.dtype == getattr(features, name).dtype
    np.testing.assert_allclose(again.keypoints, features.keypoints, rtol=0, atol=4e-6)
    assert again.noise_px == 1.5


def test_sift_descriptors_are_unit_vectors_for_hloc(tmp_path):
    unit = np.sqrt(np.random.default_rng(0).dirichlet(np.ones(128), 9))
    sift = np.round(512 * unit).clip(0, 255).astype(np.uint8)
    features = LocalFeatures(np.ones((9, 2), np.float32), np.ones(9, np.float32), sift, WH)
    with h5py.File(_written(tmp_path / "f.h5", features), "r") as file:
        norms = np.linalg.norm(file["db/1.jpg/descriptors"][()].astype(np.float32), axis=0)
    np.testing.assert_allclose(norms, 1, atol=0.01)


def test_what_other_extractors_leave_out(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        group = file.create_group("aliked.jpg")
        group["keypoints"] = np.array([[0.0, 0.0], [63.0, 47.0]], np.float16)
        group["keypoint_scores"] = np.array([0.25, 0.5], np.float16)
        group["descriptors"] = np.eye(2, dtype=np.float64)
        file.create_group("dense.jpg")["keypoints"] = np.zeros((3, 2), np.float32)
    with opened(tmp_path / "f.h5") as file:
        aliked, dense = read_features(file, "aliked.jpg", WH), read_features(file, "dense.jpg", WH)
    assert aliked.keypoints.tolist() == [[0.5, 0.5], [63.5, 47.5]]
    assert aliked.scores.tolist() == [0.25, 0.5]
    assert aliked.descriptors.dtype == np.float32
    assert dense.descriptors.shape == (3, 0)
    assert dense.scores.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": np.array([640, 480])}, "are for 640 x 480 px, the photo is 64 x 48"),
        (
            {"keypoints": np.full((5, 2), 300.0)},
            r"keypoint at \(300.5, 300.5\), outside the photo of 64 x 48",
        ),
        ({"keypoints": np.full((5, 2), np.nan)}, "keypoints of .* hold NaN"),
        ({"keypoints": np.zeros((5, 3))}, r"expected float \(n, 2\)"),
        ({"descriptors": np.zeros((5, 8))}, r"are \(5, 8\), expected \(d, 5\): a column per keypoint"),
        ({"scores": np.zeros(4)}, r"scores of .* are \(4,\), expected \(5,\)"),
        ({"descriptors": np.full((8, 5), np.inf)}, "descriptors of .* hold NaN"),
    ],
)
def test_features_that_do_not_fit(tmp_path, change, message):
    _written(tmp_path / "f.h5", _features())
    with h5py.File(tmp_path / "f.h5", "a") as file:
        for name, values in change.items():
            del file[f"db/1.jpg/{name}"]
            file[f"db/1.jpg/{name}"] = values
    with opened(tmp_path / "f.h5") as file, pytest.raises(DataError, match=message):
        read_features(file, "db/1.jpg", WH)


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    for name, message in (("text.h5", "damaged or no HDF5"), ("gone.h5", "does not exist")):
        with pytest.raises(DataError, match=message), opened(tmp_path / name):
            pass


# ---- matches


def _matches(pairs, scores=None) -> Matches:
    indices = np.array(pairs, np.int32).reshape(-1, 2)
    return Matches(indices, np.asarray(scores if scores is not None else np.ones(len(indices)), np.float32))


def _hloc_get_matches(file, name0, name1):
    """What hloc does: the key of (A, B), else of (B, A), with the columns exchanged."""

    def find(first, second):
        for key in (
            f"{first.replace('/', '-')}/{second.replace('/', '-')}",
            f"{first.replace('/', '-')}_{second.replace('/', '-')}",
        ):
            if key in file:
                return key
        return None

    key, reverse = find(name0, name1), False
    if key is None:
        key, reverse = find(name1, name0), True
    matches, scores = file[key]["matches0"][()], file[key]["matching_scores0"][()]
    rows = np.where(matches != -1)[0]
    indices = np.stack([rows, matches[rows]], -1)
    return (indices[:, ::-1] if reverse else indices), scores[rows]


def test_matches_as_hloc_reads_them(tmp_path):
    matches = _matches([[0, 3], [2, 1]], [0.5, 0.1])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        assert write_matches(file, ("db/1.jpg", "q/2.jpg"), matches, (4, 5)) == 0
    with opened(tmp_path / "m.h5") as file:
        assert file["db-1.jpg/q-2.jpg/matches0"].dtype == np.int16
        assert file["db-1.jpg/q-2.jpg/matches0"][()].tolist() == [3, -1, 1, -1]
        for names, column in ((("db/1.jpg", "q/2.jpg"), 0), (("q/2.jpg", "db/1.jpg"), 1)):
            indices, scores = _hloc_get_matches(file, *names)
            assert indices[:, column].tolist() == [0, 2]
            assert scores.tolist() == [0.5, np.float32(0.1)]
        again = read_matches(file, "db-1.jpg/q-2.jpg", (4, 5))
    np.testing.assert_array_equal(again.indices, matches.indices)
    np.testing.assert_array_equal(again.scores, matches.scores)


@pytest.mark.parametrize(("keypoints", "dtype"), [(32767, np.int16), (32768, np.int32), (70000, np.int32)])
def test_indices_do_not_overflow(tmp_path, keypoints, dtype):
    matches = _matches([[0, keypoints - 1]])
    with h5py.File(tmp_path / "m.h5", "w") as file:
        write_matches(file, ("a", "b"), matches, (1, keypoints))
        assert file["a/b/matches0"].dtype == dtype
        assert file["a/b/matches0"][0] == keypoints - 1


def test_of_several_matches_of_a_keypoint_the_best_is_kept(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        lost = write_matches(file, ("a", "b"), _matches([[0, 1], [0, 2], [3, 0]], [0.2, 0.9, 0.4]), (4, 3))
        assert lost == 1
        assert file["a/b/matches0"][()].tolist() == [2, -1, -1, 0]


def test_empty_pairs(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        write_matches(file, ("a", "b"), Matches.empty(), (3, 0))
        write_matches(file, ("a", "c"), Matches.empty(), (0, 2))
        assert len(read_matches(file, "a/b", (3, 0))) == len(read_matches(file, "a/c", (0, 2))) == 0


def test_transposed_is_sorted_and_its_own_inverse():
    matches = _matches([[0, 7], [1, 2], [5, 3]], [0.1, 0.2, 0.3])
    turned = transposed(matches)
    assert turned.indices.tolist() == [[2, 1], [3, 5], [7, 0]]
    np.testing.assert_array_equal(transposed(turned).indices, matches.indices)
    np.testing.assert_array_equal(transposed(turned).scores, matches.scores)


def _with_keys(path, *keys):
    with h5py.File(path, "w") as file:
        for key in keys:
            file[f"{key}/matches0"] = np.array([0], np.int16)
    return path


def test_keys_are_resolved_in_both_layouts(tmp_path):
    names = ["db/1.jpg", "db/2_x.jpg", "q/3.jpg"]
    path = _with_keys(tmp_path / "m.h5", "q-3.jpg/db-1.jpg", "q-3.jpg_db-2_x.jpg", "other.jpg/db-1.jpg")
    with opened(path) as file:
        found = find_pairs(file, names)
    assert found.found == {
        ("q/3.jpg", "db/1.jpg"): "q-3.jpg/db-1.jpg",
        ("q/3.jpg", "db/2_x.jpg"): "q-3.jpg_db-2_x.jpg",
    }
    assert found.unknown == ("other.jpg/db-1.jpg",)


def test_an_ambiguous_key_names_both_and_a_list_decides(tmp_path):
    names = ["a/b.jpg", "a-b.jpg", "c.jpg"]
    with opened(_with_keys(tmp_path / "m.h5", "a-b.jpg/c.jpg")) as file:
        with pytest.raises(DataError, match=r"\('a-b.jpg', 'c.jpg'\) and \('a/b.jpg', 'c.jpg'\)"):
            find_pairs(file, names)
        assert list(find_pairs(file, names, [("c.jpg", "a/b.jpg")]).found) == [("a/b.jpg", "c.jpg")]


def test_ambiguous_names_are_not_exported():
    check_escapes(["a/b.jpg", "a/c.jpg", "a/b.jpg"])
    with pytest.raises(DataError, match=r"'a-b.jpg' and 'a/b.jpg' are one name in hloc's matches file"):
        check_escapes(["a/b.jpg", "a/c.jpg", "a-b.jpg"])


@pytest.mark.parametrize(
    ("matches0", "message"),
    [
        (np.array([0, 1]), "the first image has 3 keypoints"),
        (np.array([0, 1, 9]), "refers to keypoint 9, the second image has 4"),
        (np.array([0.0, 1.0, 2.0]), "matches0 of .* is float64"),
    ],
)
def test_matches_of_other_features(tmp_path, matches0, message):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["a/b/matches0"] = matches0
    with opened(tmp_path / "m.h5") as file, pytest.raises(DataError, match=message):
        read_matches(file, "a/b", (3, 4))
