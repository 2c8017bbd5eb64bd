import numpy as np
import pytest
from synthetic_map import synthesize

from loc.colmap import pycolmap
from loc.errors import MapError
from loc.sfm.database import DatabaseImage, camera_ids, image_ids, reference_model, write_database
from loc.sfm.verify import VerifiedPair
from loc.types import Camera, Pose

POSE = Pose(np.array([0.0, 0.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0]))


def _camera(focal: float) -> Camera:
    return Camera("SIMPLE_PINHOLE", 640, 480, np.array([focal, 320.0, 240.0]), has_prior_focal_length=False)


IMAGES = [
    DatabaseImage("z/b c.jpg", "first", _camera(500), POSE),
    DatabaseImage("a-ü.jpg", "second", _camera(600), POSE),
    DatabaseImage("m.jpg", "first", _camera(500)),
]
XY = {image.name: np.arange(8, dtype=np.float32).reshape(4, 2) + 0.5 for image in IMAGES}


def _pair(first: str, second: str, indices: list[list[int]]) -> VerifiedPair:
    return VerifiedPair(first, second, np.array(indices, np.int32).reshape(-1, 2), 2, E=np.eye(3))


def test_ids_do_not_depend_on_the_order_of_images():
    assert image_ids(IMAGES) == image_ids(IMAGES[::-1]) == {"a-ü.jpg": 1, "m.jpg": 2, "z/b c.jpg": 3}
    assert camera_ids(IMAGES) == camera_ids(IMAGES[::-1]) == {"second": 1, "first": 2}


def test_what_is_written_reads_back(tmp_path):
    pairs = [_pair("m.jpg", "z/b c.jpg", [[0, 1], [2, 3]]), _pair("a-ü.jpg", "m.jpg", [])]
    write_database(tmp_path / "database.db", IMAGES, keypoints=XY.__getitem__, pairs=iter(pairs))
    assert [path.name for path in tmp_path.iterdir()] == ["database.db"]  # no write-ahead log left
    database = pycolmap.Database.open(tmp_path / "database.db")
    assert {image.name: image.camera_id for image in database.read_all_images()} == {
        "a-ü.jpg": 1,
        "m.jpg": 2,
        "z/b c.jpg": 2,
    }
    assert [camera.params[0] for camera in database.read_all_cameras()] == [600, 500]
    assert not any(camera.has_prior_focal_length for camera in database.read_all_cameras())
    np.testing.assert_array_equal(database.read_keypoints(1), XY["a-ü.jpg"])
    geometry = database.read_two_view_geometry(2, 3)
    assert geometry.config == pycolmap.TwoViewGeometryConfiguration.CALIBRATED
    assert geometry.inlier_matches.tolist() == [[0, 1], [2, 3]]
    assert database.num_verified_image_pairs() == 1
    database.close()


def test_a_match_beyond_the_keypoints_is_refused(tmp_path):
    with pytest.raises(MapError) as error:
        write_database(
            tmp_path / "database.db",
            IMAGES,
            keypoints=XY.__getitem__,
            pairs=[_pair("a-ü.jpg", "m.jpg", [[0, 4]])],
        )
    assert str(error.value) == (
        "matches of a-ü.jpg and m.jpg refer to keypoint 4 of m.jpg, which has 4\n"
        "  the features changed after they were matched: delete the folder of matches and run again"
    )


def test_the_reference_model_has_the_known_poses():
    model = reference_model(IMAGES, poses=True)
    assert model.num_images() == 3
    assert sorted(model.reg_image_ids()) == [1, 3]
    np.testing.assert_allclose(model.images[3].cam_from_world().translation, [1, 2, 3])


def test_the_order_in_which_pairs_arrive_does_not_matter(tmp_path):
    scene = synthesize(tmp_path, images=4)
    digests = []
    for order in (1, -1):
        pairs = scene.pairs.pairs[::order]
        keys = {pair: scene.matches.keys[pair] for pair in pairs}
        store = scene.matches.store
        items = [(keys[pair], store.get(keys[pair])) for pair in pairs]
        patched = pytest.MonkeyPatch()
        patched.setattr(store, "items", lambda _, items=items: iter(items))
        digests.append(scene.map(tmp_path / str(order), mode="reconstruct").stats["digest"])
        patched.undo()
    assert digests[0] == digests[1]
