"""Where weights are found, and that another file of the same name is refused."""

from __future__ import annotations

import pytest

import loc.cli.weights as weights_command
from loc.errors import WeightsError
from loc.weights import files
from loc.weights.card import WeightFile

FILE = WeightFile("http://127.0.0.1:9/models/net.pth?raw=1", None, "MIT", "paper", commercial_ok=True)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("LOC_WEIGHTS_DIR", str(tmp_path / "mine"))
    monkeypatch.setenv("LOC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LOC_OFFLINE", "1")
    return tmp_path


def test_name_of_a_file() -> None:
    assert FILE.name == "net.pth"


def test_named_folders_come_before_the_cache(folders) -> None:
    (folders / "cache").mkdir()
    (folders / "cache" / "net.pth").write_bytes(b"cache")
    assert files.locate(FILE) == folders / "cache" / "net.pth"
    (folders / "mine" / "net.pth").write_bytes(b"cache")
    assert files.locate(FILE) == folders / "mine" / "net.pth"


def test_offline_says_where_to_put_it(folders) -> None:
    with pytest.raises(WeightsError, match="LOC_OFFLINE") as caught:
        files.locate(FILE)
    assert FILE.url in caught.value.next_step


def test_first_use_pins_the_hash(folders) -> None:
    path = folders / "mine" / "net.pth"
    path.write_bytes(b"first")
    files.locate(FILE)
    assert files.pinned(FILE) == files.sha256_of(path)
    path.write_bytes(b"another file")
    with pytest.raises(WeightsError, match="not the expected file") as caught:
        files.locate(FILE)
    assert "--repin net.pth" in caught.value.next_step
    files.repin(FILE, path)
    assert files.locate(FILE) == path


def test_published_hash_is_checked(folders) -> None:
    path = folders / "mine" / "net.pth"
    path.write_bytes(b"first")
    with pytest.raises(WeightsError, match="published"):
        files.locate(WeightFile(FILE.url, "0" * 64, "MIT", ""))


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"abc"', "5", ""])
def test_damaged_lock(folders, text) -> None:
    (folders / "mine" / "net.pth").write_bytes(b"first")
    (folders / "cache").mkdir()
    (folders / "cache" / files.LOCK).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match="damaged"):
        files.locate(FILE)


def test_identity_is_the_hash_once_the_file_is_here(folders) -> None:
    assert files.identity(FILE) == FILE.url
    (folders / "mine" / "net.pth").write_bytes(b"first")
    assert files.identity(FILE) == files.sha256_of(folders / "mine" / "net.pth")


def test_verify_tells_of_every_file(folders, monkeypatch, capsys) -> None:
    """A file that was named and is not here is an error; after a wrong one the others are still checked."""
    names = ["a.pth", "b.pth", "c.pth"]
    cards = [WeightFile(f"http://127.0.0.1:9/{name}", None, "MIT", "") for name in names]
    monkeypatch.setattr(weights_command, "_chosen", lambda _: [("net", card, True) for card in cards])
    for name in names[:2]:
        (folders / "mine" / name).write_bytes(b"first")
    weights_command.verify()
    (folders / "mine" / "a.pth").write_bytes(b"another file")
    capsys.readouterr()
    with pytest.raises(WeightsError, match=r"a\.pth is not the expected file.*; c\.pth is not on this"):
        weights_command.verify(names)
    assert capsys.readouterr().out.startswith("ok  b.pth  ")


def test_a_file_that_is_offered_nowhere_and_what_stands_for_it(folders, monkeypatch) -> None:
    """Nothing is asked of the network for the first; the second is needed only without it."""
    monkeypatch.setattr(files, "download", lambda *_, **__: pytest.fail("it asks for a page"))
    rare = WeightFile("http://127.0.0.1:9/page/", None, "MIT", "", file="rare.pth", offered=False)
    spare = WeightFile("http://127.0.0.1:9/all.pth", None, "MIT", "", stands_for=("net.pth", "rare.pth"))
    assert files.needed((FILE, rare, spare)) == (spare,)
    assert files.needed((FILE, rare)) == (FILE, rare)
    with pytest.raises(WeightsError, match=r"rare\.pth is offered nowhere as a file; \S+/page/ tells of it"):
        files.fetch(rare)
    (folders / "mine" / "rare.pth").touch()
    assert files.needed((FILE, rare, spare)) == (FILE, rare)
    assert files.needed((FILE, spare)) == (FILE,)
