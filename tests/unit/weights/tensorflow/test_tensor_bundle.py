"""Tensor bundles and the wire format: what TensorFlow wrote, what we write, and what is damaged."""

from __future__ import annotations

import numpy as np
import pytest
from tensorflow_files import write_bundle

from loc.errors import WeightsError
from loc.weights.tensorflow.bundle import Bundle
from loc.weights.tensorflow.crc import crc32c, masked
from loc.weights.tensorflow.wire import (
    Message,
    WireError,
    bytes_field,
    float_field,
    floats_field,
    int_field,
    ints_field,
    varint,
)


def bitwise(data: bytes) -> int:
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize("size", [0, 1, 7, 127, 128, 255, 256, 257, 1000, 4099, 20001])
def test_checksum_of_any_length(size) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()
    assert crc32c(data) == bitwise(data)


def test_published_checksums() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert masked(0) == 0xA282EAD8


@pytest.fixture
def prefix(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        f"scope/layer_{n:03d}/weights": rng.normal(size=(n % 7, 3)).astype(np.float32) for n in range(130)
    }
    tensors |= {"global_step": np.asarray(7, np.int64), "note": b"graph", "scope/wide": np.eye(3)}
    write_bundle(tmp_path / "variables", tensors, shards=2)
    return tmp_path / "variables", tensors


def test_many_blocks_and_shards(prefix) -> None:
    path, tensors = prefix
    bundle = Bundle(path)
    assert list(bundle.entries) == sorted(tensors)
    for name, value in tensors.items():
        if isinstance(value, bytes):
            assert bundle.read_string(name) == value
        else:
            got = bundle.read(name)
            assert got.dtype == value.dtype
            np.testing.assert_array_equal(got, value)


@pytest.mark.parametrize("folder", ["codebook_tf1_clusters", "codebook_tf2_checkpoint"])
def test_what_tensorflow_wrote(shared, folder) -> None:
    bundle = Bundle(shared / "fixtures/delf/aggregation_files" / folder / "codebook")
    key = next(name for name in bundle.entries if not name.startswith("_"))
    expected = np.load(shared / "fixtures/delf/aggregation.npz")["codebook"]
    np.testing.assert_array_equal(bundle.read(key), expected)
    if folder == "codebook_tf2_checkpoint":
        assert b"codebook" in bundle.read_string("_CHECKPOINTABLE_OBJECT_GRAPH")


def test_every_variable_of_the_fixtures(shared, delf_models) -> None:
    for where, table in (("delf_gld_like/model", "delf"), ("r50delg_like", "delg")):
        lines = (shared / f"fixtures/{table}/variables.tsv").read_text().splitlines()[1:]
        expected = {}
        for line in lines:
            name, shape = line.split("\t")[:2]
            expected[name] = () if shape == "scalar" else tuple(map(int, shape.split("x")))
        assert Bundle(delf_models / where / "variables/variables").shapes() == expected


def read_all(path) -> None:
    bundle = Bundle(path)
    for name, entry in bundle.entries.items():
        if entry.dtype == 7:
            bundle.read_string(name)
        else:
            bundle.read(name)


def test_no_bundle(tmp_path) -> None:
    with pytest.raises(WeightsError, match="no tensor bundle"):
        Bundle(tmp_path / "absent")


def test_damaged_index_is_never_believed(prefix) -> None:
    """One flipped byte anywhere, or any truncation: an error, never other numbers."""
    path, _ = prefix
    index = path.with_name("variables.index")
    good = index.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.choice(len(good) - 48, 40, replace=False).tolist():
        index.write_bytes(good[:place] + bytes([good[place] ^ 0x41]) + good[place + 1 :])
        with pytest.raises(WeightsError):
            Bundle(path)
    for size in (0, 10, 47, 48, len(good) // 2, len(good) - 1):
        index.write_bytes(good[:size])
        with pytest.raises(WeightsError, match="cannot be read"):
            Bundle(path)
    for byte in range(len(good) - 48, len(good), 3):  # the footer has no checksum
        index.write_bytes(good[:byte] + b"\xff" + good[byte + 1 :])
        try:
            read_all(path)
        except WeightsError:
            continue


def test_damaged_data_is_an_error(prefix) -> None:
    path, _ = prefix
    shard = path.with_name("variables.data-00001-of-00002")
    good = shard.read_bytes()
    shard.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    with pytest.raises(WeightsError, match="the checksum of scope/layer_"):
        read_all(path)
    shard.write_bytes(good[:-1])
    with pytest.raises(WeightsError, match="truncated"):
        read_all(path)
    shard.unlink()
    with pytest.raises(WeightsError, match=r"cannot read .*data-00001-of-00002"):
        read_all(path)


def test_unknown_tensor_and_type(tmp_path) -> None:
    write_bundle(tmp_path / "b", {"text": b"x", "number": np.ones(2, np.float32)})
    bundle = Bundle(tmp_path / "b")
    with pytest.raises(WeightsError, match="data type 7"):
        bundle.read("text")
    with pytest.raises(WeightsError, match="no single string"):
        bundle.read_string("number")
    with pytest.raises(WeightsError, match="no tensor other"):
        bundle.read("other")


def test_wire_values() -> None:
    data = int_field(1, -3) + float_field(2, 0.5) + floats_field(2, np.asarray([1.5, 2.5]))
    data += ints_field(3, [1, 300, 2**32 - 1]) + int_field(3, 9) + bytes_field(4, "é".encode())
    message = Message(data)
    assert message.number(1) == -3
    assert message.floats(2).tolist() == [0.5, 1.5, 2.5]
    assert message.real(2) == 2.5
    assert message.ints(3) == [1, 300, 2**32 - 1, 9]
    assert message.text(4) == "é"
    assert message.number(5, 7) == 7
    assert not message.message(6).ints(1)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",  # ends in the middle of a number
        b"\x08" + b"\xff" * 11,  # too long a number
        b"\x0a\x05abc",  # reaches beyond the end
        b"\x0b",  # a group, which proto3 does not have
        b"\x00\x01",  # field 0
        b"\x0d\x00\x00",  # half a fixed32
    ],
)
def test_wire_damage(data) -> None:
    with pytest.raises(WireError):
        Message(data)


def test_wire_types_are_checked() -> None:
    message = Message(int_field(1, 5) + bytes_field(2, b"\xff\xfe") + bytes_field(3, varint(1 << 20)[:2]))
    for read in (
        lambda: message.blob(1),
        lambda: message.floats(1),
        lambda: message.text(2),
        lambda: message.ints(3),
    ):
        with pytest.raises(WireError):
            read()
