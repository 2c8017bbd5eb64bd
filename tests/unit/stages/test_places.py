"""An index of photos: what is found, what is written, what a kill leaves, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from walls import PLACES, VIEWS, wall_photo

from loc.config.index import IndexConfig
from loc.config.ranking import RerankConfig
from loc.errors import ConfigError, DataError, LocError, StoreError
from loc.retrieval.index import VectorIndex
from loc.retrieval.rejection import generic
from loc.runtime.runtime import Runtime
from loc.stages import places as module
from loc.stages.landmarks import Retriever, search_vectors
from loc.stages.places import Added, Places
from loc.stages.places_build import build_places
from loc.stages.places_files import ImageTable, read_card, write_card
from loc.stores.files import write_sealed
from loc.weights.card import WeightFile

RUNTIME = Runtime(device="cpu", workers=1)
SIFT = {"use": "sift", "max_keypoints": 200, "first_octave": 0}
VLAD = {"use": "vlad", "words": 4, "pca_dim": None}
VERIFY = RerankConfig(candidates=6, trials=200)


class Killed(BaseException):
    """A process that ends: nothing in `loc` may catch it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of four places in three folders, and an index of them."""
    folder = tmp_path_factory.mktemp("made")
    for place in range(PLACES):
        for number in range(VIEWS):
            wall_photo(folder / "photos" / f"view {number}" / f"plätze-{place}.png", place, number)
    for place in range(PLACES + 1):
        wall_photo(folder / "queries" / f"{place}.png", place, 3)
    (folder / "photos" / "notes.txt").write_text("no photo")
    (folder / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    cv2.imwrite(str(folder / "photos" / "blank.png"), np.full((200, 240, 3), 128, np.uint8))
    places, added = built(folder / "photos", folder / "index")
    assert len(added.new) == PLACES * VIEWS + 1
    assert added.blank == ["blank.png"]
    assert list(added.skipped) == ["broken.jpg"]
    assert places.card.complete
    return folder


@pytest.fixture(scope="module")
def expected(made: Path) -> list[list[tuple[str, float]]]:
    return hits(made / "index", made / "queries")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change, with its photos beside it."""
    shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.copytree(made / "index", tmp_path / "index")
    places = Places.open(tmp_path / "index")
    added = places.add([tmp_path / "photos"], runtime=RUNTIME)  # photos that have moved
    assert (added.new, added.changed) == ([], [])
    assert str(places.path("blank.png")) == str((tmp_path / "photos" / "blank.png").resolve())
    return tmp_path


def built(photos: Path, folder: Path, **options: Any) -> tuple[Places, Added]:
    chosen = {"features": SIFT, "globals_": VLAD} | options
    return build_places([photos], folder, runtime=RUNTIME, **chosen)


def hits(folder: Path, queries: Path, k: int = 20) -> list[list[tuple[str, float]]]:
    retriever = Retriever(Places.open(folder), runtime=RUNTIME)
    return [
        [(found.name, found.score) for found in retriever.search(query, k).images]
        for query in sorted(queries.iterdir())
    ]


def tree(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


def test_the_right_place_comes_first_and_an_unknown_one_is_no_match(made: Path) -> None:
    retriever = Retriever(Places.open(made / "index"), verification=VERIFY, runtime=RUNTIME)
    for place in range(PLACES):
        answer = retriever.retrieve(made / "queries" / f"{place}.png", 3)
        assert answer.status == "match"
        assert {found.name for found in answer.images} == {
            f"view {n}/plätze-{place}.png" for n in range(VIEWS)
        }
        best = answer.images[0]
        assert best.verified is not None
        assert best.image_xy is not None
        assert answer.keypoints is not None
        assert best.verified.inliers >= 30
        moved = answer.keypoints[best.verified.pairs[:, 0]] - best.image_xy
        assert np.abs(np.median(moved, axis=0) - [-16, -12]).max() < 1  # view 2 beside view 3
        assert best.path is not None
        assert best.path.is_file()
    unknown = retriever.retrieve(made / "queries" / f"{PLACES}.png", 3)
    assert unknown.status == "no_match"
    assert unknown.probability is not None
    assert unknown.probability < 0.5
    assert "inliers" in unknown.reason
    assert retriever.rejection == generic()


def test_photos_that_cannot_be_asked_with(made: Path, tmp_path: Path) -> None:
    retriever = Retriever(Places.open(made / "index"), verification=VERIFY, runtime=RUNTIME)
    (tmp_path / "empty.jpg").touch()
    cv2.imwrite(str(tmp_path / "tiny.png"), np.zeros((2, 3, 3), np.uint8))
    assert retriever.retrieve(tmp_path / "empty.jpg").status == "unreadable"
    assert retriever.retrieve(tmp_path / "gone.jpg").status == "unreadable"
    assert retriever.retrieve(tmp_path).status == "unreadable"
    for photo in (tmp_path / "tiny.png", made / "photos" / "blank.png"):
        answer = retriever.retrieve(photo)
        assert answer.status == "nothing_found"
        assert answer.images == ()
    pixels = cv2.imread(str(made / "queries" / "0.png"))[:, :, ::-1]
    answer = retriever.retrieve(np.ascontiguousarray(pixels), name="mine")
    assert (answer.query, answer.status) == ("mine", "match")
    with pytest.raises(DataError, match="uint8"):
        retriever.retrieve(pixels.astype(np.float32))


def test_adding_again_writes_nothing(copied: Path) -> None:
    before = tree(copied / "index")
    added = Places.open(copied / "index").add([copied / "photos"], runtime=RUNTIME)
    assert (added.new, added.changed, added.unchanged) == ([], [], PLACES * VIEWS + 1)
    _, added = built(copied / "photos", copied / "index")
    assert added.new == []
    assert tree(copied / "index") == before


def test_an_addition_writes_what_is_new_and_touches_nothing_else(copied: Path) -> None:
    before = tree(copied / "index")
    wall_photo(copied / "photos" / "later" / "new.png", 9, 0)
    places = Places.open(copied / "index")
    added = places.add([copied / "photos" / "later"], runtime=RUNTIME)  # a folder within a known one
    assert added.new == ["later/new.png"]
    after = tree(copied / "index")
    assert {name for name in before if before[name] != after[name]} <= {"vectors/index.json"}
    written = [copied / "index" / name for name in after if before.get(name) != after[name]]
    size = sum(path.stat().st_size for path in written)
    assert size < 150_000  # one photo's features, descriptor and vector
    wall_photo(copied / "extra" / "one.png", 10, 0)
    added = places.add([copied / "extra" / "one.png"], runtime=RUNTIME)
    assert added.new == ["one.png"]
    assert places.path("one.png") == (copied / "extra" / "one.png").resolve()


def test_add_remove_and_compact_give_what_a_build_gives(copied: Path, made: Path) -> None:
    """To the bit, with a descriptor that learns nothing."""
    means = {"features": "none", "globals_": "tile_means:TileMeans"}
    built(copied / "photos", copied / "whole", **means)
    expected = hits(copied / "whole", made / "queries")
    assert len(expected[0]) == PLACES * VIEWS
    shutil.move(copied / "photos" / "view 1", copied / "aside")
    grown = copied / "grown"
    places, _ = built(copied / "photos", grown, **means)
    shutil.move(copied / "aside", copied / "photos" / "view 1")
    places.add([copied / "photos"], runtime=RUNTIME)
    assert hits(grown, made / "queries") == expected
    gone = places.remove(["view 0/*", "blank.png"])
    assert gone == ["blank.png", *(f"view 0/plätze-{n}.png" for n in range(PLACES))]
    left = [[hit for hit in found if not hit[0].startswith("view 0")] for found in expected]
    assert hits(grown, made / "queries") == left
    places.compact()
    assert hits(grown, made / "queries") == left
    assert len(list((grown / "images").iterdir())) == 1
    places.add([copied / "photos"], runtime=RUNTIME)
    assert hits(grown, made / "queries") == expected


def test_local_descriptors_vote_and_are_verified(made: Path, tmp_path: Path) -> None:
    places, added = built(made / "photos", tmp_path / "index", of="local", globals_=None)
    assert added.blank == ["blank.png"]
    assert places.vectors.vectors == sum(each.vectors for each in places.table.images.values())
    retriever = Retriever(places, verification=VERIFY.model_copy(update={"candidates": 13}), runtime=RUNTIME)
    best = retriever.retrieve(made / "queries" / "1.png", 1).images[0]
    assert best.name == "view 2/plätze-1.png"
    assert best.score == int(best.score)  # votes
    places.remove([best.name])
    assert retriever.places is places
    assert retriever.retrieve(made / "queries" / "1.png", 1).images[0].name == "view 1/plätze-1.png"


def test_what_was_learned_at_the_first_build_is_used_for_later_photos(
    copied: Path, made: Path, expected: Any
) -> None:
    fits = sorted(path.name for path in (copied / "index" / "fits").iterdir())
    places = Places.open(copied / "index")
    places.remove(["view 2/*"])
    places.add([copied / "photos" / "view 2"], runtime=RUNTIME)
    assert hits(copied / "index", made / "queries") == expected
    assert sorted(path.name for path in (copied / "index" / "fits").iterdir()) == fits
    assert places.info()["fits"]["globals"] in fits


def test_what_an_extractor_learned_is_frozen_too(made: Path, tmp_path: Path) -> None:
    learning = SIFT | {"use": "learning_sift:LearningSift"}
    places, _ = built(made / "photos" / "view 0", tmp_path / "index", features=learning)
    fits = tree(tmp_path / "index" / "fits")
    assert sorted(places.card.fits) == ["features", "globals"]
    added = places.add([made / "photos" / "view 1"], runtime=RUNTIME, prefix="more")
    assert added.new == [f"more/plätze-{n}.png" for n in range(PLACES)]
    assert tree(tmp_path / "index" / "fits") == fits
    assert len(list((tmp_path / "index" / "features").iterdir())) == 1
    retriever = Retriever(Places.open(tmp_path / "index"), verification=VERIFY, runtime=RUNTIME)
    assert retriever.retrieve(made / "queries" / "2.png", 1).images[0].name == "more/plätze-2.png"


def test_a_changed_photo_replaces_the_old_one(copied: Path, made: Path) -> None:
    wall_photo(copied / "photos" / "view 0" / "plätze-0.png", 3, 3)
    places = Places.open(copied / "index")
    added = places.add([copied / "photos"], runtime=RUNTIME)
    assert (added.new, added.changed) == ([], ["view 0/plätze-0.png"])
    assert hits(copied / "index", made / "queries")[3][0][0] == "view 0/plätze-0.png"
    assert len(places.vectors) == PLACES * VIEWS


STEPS: list[tuple[Any, str, int]] = [
    (module, "describe", 1),
    (ImageTable, "add", 1),
    (ImageTable, "add", 2),
    (VectorIndex, "create", 1),
    (VectorIndex, "add", 1),
    (VectorIndex, "add", 3),
    (VectorIndex, "compact", 1),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name", "call"), STEPS, ids=[f"{name}-{call}" for _, name, call in STEPS])
def test_a_build_that_is_killed_goes_on(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    expected: Any,
    owner: Any,
    name: str,
    call: int,
    after: bool,
) -> None:
    """Ended before and after every step that writes; run again, it is what it would have been."""
    for part in ("features", "fits", "globals"):  # only to save time: they survive a kill anyway
        shutil.copytree(made / "index" / part, tmp_path / "index" / part)
    monkeypatch.setattr(module, "_PORTION_IMAGES", 4)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_at(getattr(owner, name), call, after=after))
        with pytest.raises(Killed):
            built(made / "photos", tmp_path / "index")
    with pytest.raises(StoreError, match="half built") as caught:
        Places.open(tmp_path / "index")
    assert "loc index build" in str(caught.value)
    built(made / "photos", tmp_path / "index")
    assert hits(tmp_path / "index", made / "queries") == expected


CHANGES: list[tuple[Any, str]] = [
    (module, "forget"),
    (VectorIndex, "remove"),
    (ImageTable, "add"),
    (ImageTable, "remove"),
    (VectorIndex, "add"),
]


def test_a_kind_that_cannot_be_trained_may_be_changed(made: Path, tmp_path: Path, expected: Any) -> None:
    for part in ("features", "fits", "globals"):
        shutil.copytree(made / "index" / part, tmp_path / "index" / part)
    with pytest.raises(DataError, match="too few to train"):
        built(made / "photos", tmp_path / "index", index=IndexConfig(kind="ivf"))
    built(made / "photos", tmp_path / "index", index=IndexConfig(kind="exact"))
    assert hits(tmp_path / "index", made / "queries") == expected
    places = Places.open(tmp_path / "index")
    places.remove(["*"])
    retriever = Retriever(places, verification=VERIFY, runtime=RUNTIME)
    assert "holds no image" in retriever.retrieve(made / "queries" / "0.png").reason


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), CHANGES, ids=[name for _, name in CHANGES])
def test_changes_that_are_killed(
    copied: Path, made: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, after: bool
) -> None:
    """An old photo's vector is never found under the new one's content; the command run again finishes."""
    wall_photo(copied / "photos" / "view 0" / "plätze-0.png", 3, 3)
    places = Places.open(copied / "index")

    def change() -> None:
        places.add([copied / "photos"], runtime=RUNTIME)
        places.remove([each for each in places.table.images if each.startswith("view 1/")] or ["view 0/*"])

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed_at(getattr(owner, name), 1, after=after))
        with pytest.raises(Killed):
            change()
    half = Places.open(copied / "index")
    assert all(name in half.table.images for name in half.vectors.names)
    places = Places.open(copied / "index")
    added = places.add([copied / "photos"], runtime=RUNTIME)
    assert added.new in ([], ["view 0/plätze-0.png"]) or name == "remove"
    places.remove(
        [each for each in ("view 1/*",) if any(n.startswith("view 1/") for n in places.table.images)]
    )
    found = hits(copied / "index", made / "queries")
    assert found[3][0][0] == "view 0/plätze-0.png"
    assert {name for name, _ in found[0]} == {f"view {v}/plätze-{p}.png" for v in (0, 2) for p in range(4)}


def killed_at(plain: Callable[..., Any], call: int, *, after: bool) -> Callable[..., Any]:
    calls = []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call and not after:
            raise Killed
        result = plain(*args, **kwargs)
        if len(calls) == call:
            raise Killed
        return result

    return killed


def test_names_that_would_mean_two_photos(copied: Path) -> None:
    places = Places.open(copied / "index")
    wall_photo(copied / "other" / "view 0" / "plätze-0.png", 7, 0)
    with pytest.raises(DataError, match=r"two photos would be called 'view 0/plätze-0\.png'") as caught:
        places.add([copied / "other"], runtime=RUNTIME)
    assert "--prefix" in str(caught.value)
    added = places.add([copied / "other"], runtime=RUNTIME, prefix="other")
    assert added.new == ["other/view 0/plätze-0.png"]
    assert places.add([copied / "other"], runtime=RUNTIME).unchanged == 1  # known by its folder from now on
    with pytest.raises(DataError, match="in the index already, as"):
        places.add([copied], runtime=RUNTIME)
    assert places.add([copied / "photos" / ".." / "photos"], runtime=RUNTIME).new == []


def test_an_index_made_otherwise_is_not_gone_on_with(copied: Path) -> None:
    folder, photos = copied / "index", copied / "photos"
    for options, told in (
        ({"globals_": "rvlad"}, "globals vlad, and rvlad was asked for"),
        ({"globals_": VLAD | {"words": 8}}, "globals words=4, and words=8"),
        ({"features": "none"}, "features sift, and none"),
        ({"of": "local"}, "of global, and local"),
        ({"index": IndexConfig(kind="ivf")}, "index kind=auto, and kind=ivf"),
    ):
        with pytest.raises(StoreError, match=told) as caught:
            built(photos, folder, **options)
        assert "-o" in str(caught.value)
    build_places([photos], folder, runtime=RUNTIME)  # what is not said is as it was


def test_plugins_and_weights_of_another_version_are_refused(
    copied: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loc.extractors.sift import Sift
    from loc.globals.vlad import Vlad

    for plugin in (Sift, Vlad):
        with monkeypatch.context() as patch:
            patch.setattr(plugin, "version", 99)
            with pytest.raises(StoreError, match="was made with"):
                Retriever(Places.open(copied / "index"), runtime=RUNTIME)
            with pytest.raises(StoreError, match="was made with"):
                Places.open(copied / "index").add([copied / "photos"], runtime=RUNTIME)
    other = WeightFile("http://127.0.0.1:9/other.pth", "0" * 64, "MIT", "none")
    with monkeypatch.context() as patch:
        patch.setattr(Vlad, "weights", (other,))
        with pytest.raises(StoreError, match=r"other weights of vlad .*: other\.pth"):  # and no download
            Retriever(Places.open(copied / "index"), runtime=RUNTIME)
    (fit,) = (copied / "index" / "fits").glob("vlad-*/")
    fit.rename(copied / "fit")
    with pytest.raises(StoreError, match="is missing: what the globals of this index have learned"):
        Retriever(Places.open(copied / "index"), runtime=RUNTIME)
    shutil.copytree(copied / "fit", fit)
    (fit / "state.npz").write_bytes((fit / "state.npz").read_bytes()[:-9])
    with pytest.raises(StoreError, match="is damaged"):
        Retriever(Places.open(copied / "index"), runtime=RUNTIME)


def test_vectors_of_another_index_are_refused(copied: Path, made: Path) -> None:
    built(copied / "photos", copied / "other", globals_=VLAD | {"words": 8})
    shutil.rmtree(copied / "index" / "vectors")
    shutil.copytree(copied / "other" / "vectors", copied / "index" / "vectors")
    with pytest.raises(StoreError, match="vlad-"):
        Places.open(copied / "index")


def test_lost_vectors_are_made_again_from_the_descriptors(copied: Path, made: Path, expected: Any) -> None:
    shutil.rmtree(copied / "index" / "vectors")
    with pytest.raises(StoreError, match="vectors is missing"):
        Places.open(copied / "index").vectors  # noqa: B018
    before = tree(copied / "index" / "features")
    build_places([copied / "photos"], copied / "index", runtime=RUNTIME)
    assert tree(copied / "index" / "features") == before
    assert hits(copied / "index", made / "queries") == expected


@pytest.mark.parametrize(
    "change",
    [
        {"of": "everything"},
        {"features_store": "../../etc"},
        {"fits": {"globals": ".."}},
        {"fits": {"globals": "a/b"}},
        {"roots": [{"path": 3}]},
        {"roots": "photos"},
        {"extra": 1},
        {"complete": "perhaps"},
        {"format": 2},
        {"kind": "map"},
        {"features": "sift"},
    ],
)
def test_cards_that_cannot_be(copied: Path, change: dict[str, Any]) -> None:
    data = json.loads((copied / "index" / "index.json").read_text())
    data.pop("sha256")
    write_sealed(copied / "index" / "index.json", data | change)
    with pytest.raises(StoreError, match=r"index\.json") as caught:
        Places.open(copied / "index")
    assert caught.value.next_step


@pytest.mark.parametrize(
    "row",
    [
        ["../../climbs.png", 0, "0" * 16, 1],
        ["/etc/passwd", 0, "0" * 16, 1],
        ["a.png", 5, "0" * 16, 1],
        ["a.png", -2, "0" * 16, 1],
        ["a.png", True, "0" * 16, 1],
        ["a.png", 0, "../x", 1],
        ["a.png", 0, "0" * 16, -1],
        ["a.png", 0, "0" * 16, 1e99],
        [7, 0, "0" * 16, 1],
        ["a.png"],
        "abcd",
        None,
    ],
)
def test_tables_that_cannot_be(copied: Path, row: Any) -> None:
    write_sealed(copied / "index" / "images" / "000009.json", {"images": [row]})
    with pytest.raises(StoreError, match=r"000009\.json is damaged") as caught:
        Places.open(copied / "index")
    assert caught.value.next_step


def test_a_flipped_bit_is_an_error(copied: Path) -> None:
    path = min((copied / "index" / "images").iterdir())
    path.write_text(path.read_text().replace('"images"', '"imagez"'))
    with pytest.raises(StoreError, match="sha256"):
        Places.open(copied / "index")
    write_card(copied / "index", read_card(copied / "index"))


@pytest.mark.parametrize("lost", [[0], [1], []], ids=["first", "second", "all"])
def test_a_table_that_has_lost_a_file_is_an_error(copied: Path, lost: list[int]) -> None:
    """Without it images would be there no more, or again, and nobody would be told."""
    places = Places.open(copied / "index")
    for number in (1, 2):
        places.remove([f"view {number}/*"])
    files = sorted((copied / "index" / "images").glob("*.json"))
    for number in lost or range(len(files)):
        files[number].unlink()
    with pytest.raises(StoreError, match="missing") as caught:
        Places.open(copied / "index")
    assert "build" in (caught.value.next_step or "")


def test_folders_that_are_no_index(tmp_path: Path, made: Path) -> None:
    with pytest.raises(DataError, match="is not an index of photos"):
        Places.open(tmp_path)
    with pytest.raises(DataError, match=r"no index, and it is not empty: it has 'blank.png'"):
        built(made / "photos", made / "photos")
    assert not (made / "photos" / "index.json").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="there is no photo in"):
        built(tmp_path / "none", tmp_path / "i")
    cv2.imwrite(str(tmp_path / "none" / "blank.png"), np.full((60, 60), 9, np.uint8))
    with pytest.raises(LocError, match="nothing to learn from"):
        built(tmp_path / "none", tmp_path / "i")
    with pytest.raises(DataError, match="nothing to index"):  # a build that came to nothing binds nobody
        built(tmp_path / "none", tmp_path / "i", of="local", globals_=None)
    with pytest.raises(ConfigError, match="are visual words"):
        built(made / "photos", tmp_path / "j", globals_="asmk")
    with pytest.raises(ConfigError, match="without local features"):
        built(made / "photos", tmp_path / "j", features="none")
    assert not (tmp_path / "j").exists()


def test_names_to_remove_that_are_not_there(copied: Path) -> None:
    places = Places.open(copied / "index")
    with pytest.raises(DataError, match=r"is called 'view 0/platze-0\.png'") as caught:
        places.remove(["blank.png", "view 0/platze-0.png"])
    assert "view 0/plätze-0.png" in str(caught.value)
    assert "blank.png" in Places.open(copied / "index").table.images


def test_photos_that_are_gone(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Features in the index need no photo; without them a photo that is gone cannot be verified."""
    query = wall_photo(copied / "q.png", 1, 3)
    shutil.rmtree(copied / "photos" / "view 2")
    answer = Retriever(Places.open(copied / "index"), verification=VERIFY, runtime=RUNTIME).retrieve(query)
    assert answer.images[0].name == "view 2/plätze-1.png"
    assert Places.open(copied / "index").info()["photos_missing"] == PLACES
    shutil.rmtree(copied / "index" / "features")
    answer = Retriever(Places.open(copied / "index"), verification=VERIFY, runtime=RUNTIME).retrieve(query)
    assert answer.images[0].name == "view 1/plätze-1.png"
    assert "view 2/plätze-1.png cannot be verified" in caplog.text
    caplog.clear()
    again = Retriever(Places.open(copied / "index"), verification=VERIFY, runtime=RUNTIME).retrieve(query)
    assert [(each.name, each.score) for each in again.images] == [
        (each.name, each.score) for each in answer.images
    ]


def unit(rng: np.random.Generator, n: int, d: int = 16) -> np.ndarray:
    rows = rng.normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_made_elsewhere(tmp_path: Path) -> None:
    rows = unit(np.random.default_rng(0), 50)
    names = [f"db/{number:02d}.jpg" for number in range(50)]
    with h5py.File(tmp_path / "global.h5", "w") as file:
        for name, row in zip(names, rows, strict=True):
            file.create_group(name).create_dataset("global_descriptor", data=3 * row)  # scaled to unit length
    np.save(tmp_path / "global.npy", rows)
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    from_h5, _ = build_places([tmp_path / "global.h5"], tmp_path / "a", of="vectors", runtime=RUNTIME)
    from_npy, added = build_places(
        [tmp_path / "global.npy"],
        tmp_path / "b",
        of="vectors",
        runtime=RUNTIME,
        names_file=tmp_path / "names.txt",
    )
    assert added.new == names
    found = [search_vectors(each, tmp_path / "global.h5", 3) for each in (from_h5, from_npy)]
    for row, (one, other) in enumerate(zip(*found, strict=True)):
        assert one.query == other.query == one.images[0].name == names[row]
        best = np.argsort(-(rows @ rows[row]), kind="stable")[:3]
        assert (
            [each.name for each in one.images]
            == [each.name for each in other.images]
            == [names[i] for i in best]
        )
    everything = search_vectors(from_npy, tmp_path / "global.h5", 10**12)  # of which 50 are there
    assert {len(each.images) for each in everything} == {50}
    rows[7] = -rows[7]
    np.save(tmp_path / "global.npy", rows)
    again = from_npy.add([tmp_path / "global.npy"], names_file=tmp_path / "names.txt")
    assert (again.new, again.changed, again.unchanged) == ([], ["db/07.jpg"], 49)
    with pytest.raises(ConfigError, match="cannot describe a photo"):
        Retriever(from_npy)


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: path.write_bytes(b"no array"), "no array of NumPy"),
        (lambda path: np.save(path, np.zeros(5, np.float32)), r"expected floats \(n, d\)"),
        (lambda path: np.save(path, np.array([[object()]]), allow_pickle=True), "no array of NumPy"),
        (lambda path: np.save(path, np.full((2, 3), np.nan)), "NaN or infinity"),
        (lambda path: np.save(path, np.ones((3, 3))), "has 2 names"),
    ],
)
def test_vectors_that_cannot_be_used(tmp_path: Path, write: Callable[[Path], Any], told: str) -> None:
    write(tmp_path / "v.npy")
    (tmp_path / "names.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=told):
        build_places(
            [tmp_path / "v.npy"],
            tmp_path / "i",
            of="vectors",
            runtime=RUNTIME,
            names_file=tmp_path / "names.txt",
        )


def test_hdf5_files_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(90))
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file.create_group("a.jpg").create_dataset("keypoints", data=np.zeros((3, 2)))
    with h5py.File(tmp_path / "climbs.h5", "w") as file:
        file.create_group("a/../../b").create_dataset("global_descriptor", data=np.ones(4))
        file.create_group("#x").create_dataset("global_descriptor", data=np.ones(4))
    for name, told in (
        ("damaged", "no HDF5 file of hloc"),
        ("features", "holds no global_descriptor"),
        ("climbs", "cannot be used"),
    ):
        with pytest.raises(DataError, match=told):
            build_places([tmp_path / f"{name}.h5"], tmp_path / "i", of="vectors", runtime=RUNTIME)
