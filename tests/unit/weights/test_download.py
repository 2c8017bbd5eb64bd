"""Downloads against a server that drops connections, ignores Range, answers with pages, or is gone."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from loc.errors import WeightsError
from loc.weights.download import download

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY in one of several bad ways and notes what it was asked."""

    drop_after = 0  # bytes of the body per connection; 0: all
    ranges = True
    drops: Iterator[int] = iter(())  # the same, anew for each connection
    versions: Iterator[str] = iter(())  # ETags of the first answers; "old" comes with other bytes
    version = ""  # … and of all later ones
    honours_if_range = True
    asked: list[tuple[str, str | None]]

    def handle_error(self, request, client_address) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        if self.path == "/gone":
            self.send_error(404)
            return
        if self.path == "/moved":
            self._send(302, b"", {"Location": "http://[bad/"})
            return
        if self.path == "/page":
            self._send(200, b"<html>quota exceeded</html>", {"Content-Type": "text/html"})
            return
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and self.server.ranges else 0
        version = next(self.server.versions, self.server.version)
        if self.server.honours_if_range and self.headers.get("If-Range", version) != version:
            start = 0
        if start >= len(BODY):
            self.send_error(416)
            return
        headers = {"Content-Range": f"bytes {start}-{len(BODY) - 1}/{len(BODY)}"} if start else {}
        if version:
            headers["ETag"] = version
        body = b"x" * len(BODY) if self.path == "/other" or version == '"old"' else BODY
        self._send(206 if start else 200, body[start:], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        limit = next(self.server.drops, self.server.drop_after)
        self.wfile.write(body[:limit] if limit else body)
        if limit and limit < len(body):
            self.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def url(server: Server, path: str = "/file") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_whole(server, tmp_path) -> None:
    download([url(server)], tmp_path / "w.pth", sha256=SHA256)
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_dropped_connections_are_resumed(server, tmp_path) -> None:
    server.drop_after = 300_000
    download([url(server)], tmp_path / "w.pth", sha256=SHA256, pause_s=0.01)
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]


def test_a_later_call_continues(server, tmp_path) -> None:
    (tmp_path / "w.pth.part").write_bytes(BODY[:1000])
    download([url(server)], tmp_path / "w.pth", sha256=SHA256)
    assert server.asked == [("/file", "bytes=1000-")]
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_a_server_that_ignores_range_starts_over(server, tmp_path) -> None:
    server.ranges = False
    (tmp_path / "w.pth.part").write_bytes(b"\0" * 5000)
    download([url(server)], tmp_path / "w.pth", sha256=SHA256)
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_a_server_that_ignores_range_and_drops_is_given_up(server, tmp_path) -> None:
    """It sends now more and now less of the same first bytes: that is no progress."""
    server.ranges = False
    server.drops = itertools.cycle([100_000, 50_000])
    with pytest.raises(WeightsError, match="dropped"):
        download([url(server)], tmp_path / "w.pth", sha256=None, pause_s=0.01)
    assert len(server.asked) == 4


@pytest.mark.parametrize("honours", [True, False])
def test_another_version_starts_over(server, tmp_path, honours) -> None:
    """Two versions are not glued together: without a published hash nothing else would tell."""
    server.honours_if_range = honours
    server.versions, server.version, server.drops = iter(['"old"']), '"new"', iter([300_000])
    download([url(server)], tmp_path / "w.pth", sha256=None, pause_s=0.01)
    assert (tmp_path / "w.pth").read_bytes() == BODY
    assert len(server.asked) == (2 if honours else 3)
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_a_redirect_to_nowhere(server, tmp_path) -> None:
    with pytest.raises(WeightsError, match="Invalid"):
        download([url(server, "/moved")], tmp_path / "w.pth", sha256=None, pause_s=0.01)


def test_a_part_longer_than_the_file_is_thrown_away(server, tmp_path) -> None:
    (tmp_path / "w.pth.part").write_bytes(BODY + b"more")
    download([url(server)], tmp_path / "w.pth", sha256=SHA256, pause_s=0.01)
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_mirrors_are_tried_in_order(server, tmp_path) -> None:
    urls = [url(server, path) for path in ("/gone", "/page", "/other", "/file")]
    download(urls, tmp_path / "w.pth", sha256=SHA256, pause_s=0.01)
    assert (tmp_path / "w.pth").read_bytes() == BODY


def test_every_address_is_named_when_all_fail(server, tmp_path) -> None:
    urls = [url(server, path) for path in ("/gone", "/page", "/other")]
    with pytest.raises(WeightsError) as caught:
        download(urls, tmp_path / "w.pth", sha256=SHA256, pause_s=0.01)
    for said in ("404", "web page", "SHA-256 differs"):
        assert said in caught.value.message
    assert "--weights-dir" in caught.value.next_step
    assert not (tmp_path / "w.pth").exists()


def test_no_server(tmp_path) -> None:
    with pytest.raises(WeightsError, match="refused"):
        download(["http://127.0.0.1:9/w"], tmp_path / "w.pth", sha256=None, pause_s=0.01)
