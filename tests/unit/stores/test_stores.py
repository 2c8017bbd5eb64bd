from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import h5py
import numpy as np
import pytest

from loc.errors import DataError, ResourceError, StoreError
from loc.stores import files, parts
from loc.stores.features import FeatureStore, GlobalStore, as_stored
from loc.stores.matches import MatchStore, PairKey
from loc.stores.parts import ItemKey
from loc.stores.products import check_product, is_done, make_product, read_manifest
from loc.types import LocalFeatures, Matches

RNG = np.random.default_rng(0)


def features(n: int, dtype: str = "uint8", d: int = 16) -> LocalFeatures:
    return LocalFeatures(
        keypoints=(RNG.random((n, 2)) * 4000).astype(np.float32),
        scores=RNG.random(n).astype(np.float32),
        descriptors=(RNG.random((n, d)) * 255).astype(dtype),
        image_wh=(4000, 3000),
        scales=RNG.random(n).astype(np.float32),
        orientations_rad=(RNG.random(n) * 6).astype(np.float32),
        noise_px=0.7,
    )


def assert_same(a: LocalFeatures, b: LocalFeatures) -> None:
    for name in ("keypoints", "scores", "descriptors", "scales", "orientations_rad"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        assert np.array_equal(x, y), name
    assert (a.image_wh, a.noise_px) == (b.image_wh, b.noise_px)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16"])
def test_features_come_back_as_stored(tmp_path, dtype: str) -> None:
    items = {ItemKey(f"a b/ü-{n}.jpg", f"hash{n}"): features(n, dtype) for n in (0, 1, 50)}
    store = FeatureStore(tmp_path / "s", {"x": 1})
    with store.writer() as writer:
        for key, item in items.items():
            writer.put(key, item)
    again = FeatureStore(tmp_path / "s")
    assert again.fields == {"x": 1}
    assert again.keys() == sorted(items)
    for key, item in items.items():
        assert_same(again.get(key), as_stored(item))
        assert again.count(key) == len(item)
        # Keypoints keep float32 precision through the change of origin.
        assert np.abs(again.keypoints(key) - item.keypoints).max(initial=0) < 3e-4


def test_a_part_is_hlocs_layout(tmp_path) -> None:
    item = features(5)
    store = FeatureStore(tmp_path, {})
    with store.writer() as writer:
        writer.put(ItemKey("db/1.jpg", "h"), item)
    store.close()
    (part,) = (tmp_path / "parts").glob("*.h5")
    names: set[str] = set()
    with h5py.File(part, "r") as file:
        file.visititems(
            lambda _, node: names.add(node.parent.name.strip("/")) if isinstance(node, h5py.Dataset) else None
        )
        group = file["db/1.jpg"]
        assert names == {"db/1.jpg"}  # what hloc's list_h5_names finds
        assert group["keypoints"].dtype == np.float32
        assert np.allclose(group["keypoints"][()], item.keypoints - 0.5, atol=3e-4)  # centre origin
        assert group["descriptors"].shape == (16, 5)
        assert group["image_size"][()].tolist() == [4000, 3000]
        assert np.allclose(np.radians(group["oris"][()]), item.orientations_rad, atol=1e-5)


def test_changed_photo_is_another_item(tmp_path) -> None:
    store = FeatureStore(tmp_path, {})
    old, new = features(2), features(3)
    with store.writer() as writer:
        writer.put(ItemKey("a.jpg", "old"), old)
        writer.put(ItemKey("a.jpg", "new"), new)
    assert_same(store.get(ItemKey("a.jpg", "old")), as_stored(old))
    assert_same(store.get(ItemKey("a.jpg", "new")), as_stored(new))
    assert store.missing([ItemKey("a.jpg", "newer")]) == [ItemKey("a.jpg", "newer")]


def test_removal_is_a_tombstone(tmp_path) -> None:
    store = FeatureStore(tmp_path, {})
    keys = [ItemKey("a", "1"), ItemKey("b", "1")]
    with store.writer() as writer:
        for key in keys:
            writer.put(key, features(2))
    before = sorted((tmp_path / "parts").glob("*.h5"))
    store.remove([keys[0]])
    assert sorted((tmp_path / "parts").glob("*.h5")) == before
    assert FeatureStore(tmp_path).keys() == [keys[1]]
    with FeatureStore(tmp_path).writer() as writer:
        writer.put(keys[0], features(2))
    assert FeatureStore(tmp_path).keys() == keys


def test_digest_ignores_how_items_were_written(tmp_path, monkeypatch) -> None:
    items = [(ItemKey(f"{n}.jpg", "h"), features(n + 1)) for n in range(7)]
    digests = []
    for order, size in ((1, 64), (-1, 2)):
        monkeypatch.setattr(FeatureStore, "max_items", size)
        store = FeatureStore(tmp_path / str(size), {})
        with store.writer() as writer:
            for key, item in items[::order]:
                writer.put(key, item)
        assert len(list((tmp_path / str(size) / "parts").glob("*.h5"))) == -(-7 // size)
        digests.append(store.digest(key for key, _ in items))
    assert digests[0] == digests[1]


def test_matches_round_trip_and_order(tmp_path) -> None:
    images = [ItemKey(f"ü {n}", "h") for n in range(4)]
    pairs = {}
    for first in range(4):
        for second in range(first):
            m = first * second
            rows = np.stack([np.arange(m), RNG.permutation(m)], 1).astype(np.int32)
            pairs[PairKey(images[first], images[second])] = Matches(rows, RNG.random(m).astype(np.float32))
    store = MatchStore(tmp_path, {})
    with store.writer() as writer:
        for key, matches in pairs.items():
            writer.put(key, matches)
    again = MatchStore(tmp_path)
    assert len(again) == len(pairs)
    for key, matches in again.items(pairs):
        assert np.array_equal(matches.indices, pairs[key].indices)
        assert np.array_equal(matches.scores, pairs[key].scores)
        assert again.count(key) == len(matches)
    assert again.digest(pairs) == store.digest(reversed(list(pairs)))


def test_globals_round_trip(tmp_path) -> None:
    store = GlobalStore(tmp_path, {})
    vectors = RNG.random((3, 8)).astype(np.float32)
    keys = [ItemKey(f"{n}", "h") for n in range(3)]
    with store.writer() as writer:
        for key, vector in zip(keys, vectors, strict=True):
            writer.put(key, vector)
    assert np.array_equal(GlobalStore(tmp_path).matrix(keys[::-1]), vectors[::-1])


def one_part(folder) -> tuple[FeatureStore, os.PathLike[str]]:
    store = FeatureStore(folder, {})
    with store.writer() as writer:
        writer.put(ItemKey("a.jpg", "h"), features(2000))
    store.close()
    (part,) = (folder / "parts").glob("*.h5")
    return store, part


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_part_names_the_file_and_the_cure(tmp_path, damage: str) -> None:
    _, part = one_part(tmp_path)
    data = part.read_bytes()
    part.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello " * 999}[damage])
    with pytest.raises(StoreError) as caught:
        FeatureStore(tmp_path)
    assert str(part) in str(caught.value)
    assert "delete this file and run the command that made the run again" in str(caught.value)


def test_a_flipped_bit_is_an_error_not_a_number(tmp_path) -> None:
    store, part = one_part(tmp_path)
    expected = store.digest([ItemKey("a.jpg", "h")])
    store.close()
    data = bytearray(part.read_bytes())
    outcomes = set()
    for position in RNG.integers(2048, len(data), 60):
        changed = bytearray(data)
        changed[position] ^= 16
        part.write_bytes(changed)
        try:
            found = FeatureStore(tmp_path).digest([ItemKey("a.jpg", "h")])
            outcomes.add("harmless" if found == expected else "silent")
        except StoreError:
            outcomes.add("error")
    assert "error" in outcomes
    assert "silent" not in outcomes


def test_full_disk_is_a_resource_error_and_leaves_no_part(tmp_path, monkeypatch) -> None:
    store = FeatureStore(tmp_path, {})

    def full(path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts, "sync", full)
    with pytest.raises(ResourceError, match="no space left"), store.writer() as writer:
        writer.put(ItemKey("a", "h"), features(2))
    assert list((tmp_path / "parts").iterdir()) == []


def test_read_only_folder_is_a_data_error(tmp_path, monkeypatch) -> None:
    def refused(self, *args, **kwargs) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.Path, "mkdir", refused)
    with pytest.raises(DataError, match=r"cannot write to [\s\S]*choose a folder you may write to"):
        files.make_folder(tmp_path / "x" / "y")


WRITER = """
import sys, time
import numpy as np
from pathlib import Path
from loc.stores.features import FeatureStore
from loc.stores.parts import ItemKey
from loc.types import LocalFeatures
FeatureStore.max_items = 3
store = FeatureStore(Path(sys.argv[1]), {})
print("ready", flush=True)
with store.writer() as writer:
    for n in range(60):
        key = ItemKey(f"{n}.jpg", "h")
        if key in store:
            continue
        rng = np.random.default_rng(n)
        f = LocalFeatures(rng.random((200, 2), np.float32), np.ones(200, np.float32),
                          rng.random((200, 64), np.float32), (9, 9))
        writer.put(key, f)
        time.sleep(0.002)
"""


def test_sigkill_loses_at_most_the_unfinished_part(tmp_path) -> None:
    script = textwrap.dedent(WRITER)
    rounds = 0
    while rounds < 40:
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(RNG.uniform(0, 0.15)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        rounds += 1
        store = FeatureStore(tmp_path, {})  # opens whatever happened
        if len(store) == 60 or rounds >= 12:
            break
    finished = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)
    assert finished.returncode == 0
    undisturbed = tmp_path / "undisturbed"
    subprocess.run([sys.executable, "-c", script, str(undisturbed)], check=True, capture_output=True)
    killed, clean = FeatureStore(tmp_path), FeatureStore(undisturbed)
    assert len(killed) == 60
    assert killed.digest(killed.keys()) == clean.digest(clean.keys())
    assert not list((tmp_path / "parts").glob(".*.tmp"))  # orphans of the dead writers are gone


def test_product_is_whole_or_absent(tmp_path) -> None:
    def fail(folder) -> None:
        (folder / "half").write_text("x")
        raise DataError("no")

    target = tmp_path / "map" / "abc"
    with pytest.raises(DataError):
        make_product(target, {}, fail)
    assert not is_done(target)
    calls = []

    def build(folder) -> None:
        calls.append(1)
        (folder / "whole").write_text("xyz")

    assert make_product(target, {"k": 1}, build) == make_product(target, {"k": 1}, build) == target
    assert calls == [1]
    assert not (target / "half").exists()
    assert read_manifest(target)["fields"] == {"k": 1}
    (target / "whole").write_text("x")
    with pytest.raises(StoreError, match="expected 3 bytes, got 1 bytes"):
        read_manifest(target)


def test_a_flipped_bit_of_a_product_is_an_error(tmp_path) -> None:
    target = tmp_path / "poses"
    make_product(target, {"k": 1}, lambda folder: (folder / "whole").write_bytes(b"xyz") and None)
    read_manifest(target, content=("whole",))
    (target / "whole").write_bytes(b"xyy")
    assert read_manifest(target)["fields"] == {"k": 1}  # the size alone is right
    with pytest.raises(StoreError, match="do not match their hash") as caught:
        check_product(target)
    assert caught.value.next_step == f"delete the folder {target} and run the command that made the run again"
    check_product(target, "other")  # nothing of what is read is damaged


@pytest.mark.parametrize("text", ['{"kept": 8', '{"kept": 8}\n', "[]", "7", "\xff", "[" * 100_000])
def test_sealed_json(tmp_path, text: str) -> None:
    path = tmp_path / "run.json"
    files.write_sealed(path, {"kept": 7, "ü": [1.5, (2, 3)], "n": {"1": None}})
    assert files.read_sealed(path) == {"kept": 7, "ü": [1.5, [2, 3]], "n": {"1": None}}
    sealed = path.read_text(encoding="utf-8")
    path.write_text(sealed.replace('"kept": 7', '"kept": 8'), encoding="utf-8")
    with pytest.raises(StoreError, match="does not match its sha256") as caught:
        files.read_sealed(path, cure="delete it")
    assert caught.value.next_step == "delete it"
    path.write_bytes(text.encode("latin-1"))
    if text == '{"kept": 8}\n':  # an older file, without a hash
        assert files.read_sealed(path) == {"kept": 8}
        return
    with pytest.raises(StoreError, match="is damaged"):
        files.read_sealed(path)


def test_a_store_without_its_note_still_opens(tmp_path) -> None:
    one_part(tmp_path)[0].close()
    note = tmp_path / "store.json"
    note.write_text(note.read_text().replace("features", "featurez"))
    with pytest.raises(StoreError, match=r"store\.json is damaged") as caught:
        FeatureStore(tmp_path)
    assert caught.value.next_step == f"delete {note}: the parts beside it stay as they are"
    note.unlink()
    assert len(FeatureStore(tmp_path)) == 1
