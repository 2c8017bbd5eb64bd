"""Archives that would write elsewhere, link elsewhere, or end too early are refused."""

from __future__ import annotations

import io
import tarfile

import pytest

from loc.errors import WeightsError
from loc.weights.archives import unpack


def archive(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, changes in members:
            info = tarfile.TarInfo(name)
            data = changes.pop("data", b"x")
            info.size = len(data)
            for key, value in changes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_plain_files(tmp_path, mode) -> None:
    members = [("m", {"type": tarfile.DIRTYPE, "data": b""}), ("m/v/a.pb", {}), ("./b", {"data": b"yy"})]
    unpack(archive(tmp_path / "a.tar", *members, mode=mode), tmp_path / "out")
    assert (tmp_path / "out/m/v/a.pb").read_bytes() == b"x"
    assert (tmp_path / "out/b").read_bytes() == b"yy"


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", {}),
        ("m/../../evil", {}),
        ("/evil", {}),
        ("m\\..\\..\\evil", {}),
        ("C:evil", {}),
        ("link", {"type": tarfile.SYMTYPE, "linkname": "/etc"}),
        ("link", {"type": tarfile.LNKTYPE, "linkname": "../evil"}),
        ("pipe", {"type": tarfile.FIFOTYPE}),
        ("disk", {"type": tarfile.BLKTYPE}),
    ],
    ids=lambda member: f"{member[0]}-{member[1].get('type', b'0').decode()}",
)
def test_nothing_escapes(tmp_path, member) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"out of its folder|link or a device"):
        unpack(archive(tmp_path / "a.tar.gz", ("good", {}), member), out)
    assert not list(tmp_path.rglob("evil"))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "deep", "good", "out"]


def test_a_file_twice(tmp_path) -> None:
    with pytest.raises(WeightsError, match="'a' twice"):
        unpack(archive(tmp_path / "a.tar", ("a", {}), ("a", {})), tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, 0.5, 0.95, -9, -1])
def test_truncated(tmp_path, keep) -> None:
    path = archive(tmp_path / "a.tar.gz", ("a", {"data": bytes(range(256)) * 50}), ("b", {}))
    good = path.read_bytes()
    path.write_bytes(good[: int(keep * len(good)) if isinstance(keep, float) else keep])
    with pytest.raises(WeightsError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")


def test_no_archive(tmp_path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(WeightsError, match="cannot be unpacked"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_flipped_byte(tmp_path) -> None:
    path = archive(tmp_path / "a.tar.gz", ("a", {"data": bytes(range(256)) * 50}))
    good = path.read_bytes()
    path.write_bytes(good[:100] + bytes([good[100] ^ 0xFF]) + good[101:])
    with pytest.raises(WeightsError):
        unpack(path, tmp_path / "out")
