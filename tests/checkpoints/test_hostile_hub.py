"""A server that means harm: paths in headers, endless and slow bodies, other bytes than stated."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from derain_cli.checkpoints.hub import HubFile, download
from derain_cli.cli.streams import printable
from derain_cli.errors import CheckpointError, UnavailableError

CONTENT = bytes(range(256)) * 20
GIT_ID = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
COMMIT = "c" * 40


class Server:
    """What it answers is set by each test."""

    def __init__(self) -> None:
        self.etags = [GIT_ID]  # of each answer in turn; the last one stays
        self.commit = COMMIT
        self.body, self.endless, self.seconds_per_byte = CONTENT, False, 0.0
        self.names: list[str] = []
        self.missing = False
        self.sent = 0
        server = self

        class Handler(_Handler):
            told = server

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"


class _Handler(BaseHTTPRequestHandler):
    told: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        told = self.told
        if self.path.startswith("/api/"):
            names = ",".join(f'{{"rfilename": "{name}"}}' for name in told.names)
            return self.answer(f'{{"id": "x", "siblings": [{names}]}}'.encode())
        if told.missing:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", told.commit)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        return self.answer(told.body)

    def answer(self, body: bytes) -> None:
        told = self.told
        self.send_response(200)
        etag = told.etags.pop(0) if len(told.etags) > 1 else told.etags[0]
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", told.commit)
        if told.endless and self.command == "GET":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            while told.endless:
                told.sent += self.wfile.write(bytes(65536))
            for at in range(len(body)) if told.seconds_per_byte else ():
                self.wfile.write(body[at : at + 1])
                time.sleep(told.seconds_per_byte)
            if not told.seconds_per_byte:
                self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client has gone


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    fake = Server()
    thread = threading.Thread(target=fake.http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    huggingface_hub.close_session()
    constants = huggingface_hub.constants
    template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache" / "hub"))
    yield fake
    huggingface_hub.close_session()
    fake.http.shutdown()
    fake.http.server_close()
    thread.join()


SOURCE = HubFile("me/rain")


def blobs_below(folder: Path) -> list[Path]:
    """What the cache holds of contents."""
    return list(folder.rglob("blobs/*"))


def test_an_honest_small_file_is_checked_by_its_git_id(server: Server, tmp_path: Path) -> None:
    assert download(SOURCE).read_bytes() == CONTENT


@pytest.mark.parametrize("digest", ["a" * 40, "a" * 64])
def test_other_bytes_than_stated_are_not_kept(server: Server, tmp_path: Path, digest: str) -> None:
    server.etags = [digest]
    with pytest.raises(CheckpointError, match=r"is damaged.*expected aaaaaaaaaaaa"):
        download(SOURCE)
    assert blobs_below(tmp_path) == []


@pytest.mark.parametrize("etag", ["../../../evil", "/tmp/evil", "..", "a\\\\b", "not-a-digest", ""])
@pytest.mark.parametrize("later", [False, True])
def test_an_etag_that_is_no_digest_never_becomes_a_path(
    server: Server, tmp_path: Path, etag: str, *, later: bool
) -> None:
    server.etags = [GIT_ID, etag] if later else [etag]
    if later and etag in ("not-a-digest", ""):
        pytest.skip("is no path: the client's second answer may have it")
    with pytest.raises(CheckpointError, match="cannot download 'hf:me/rain': the Hub"):
        download(SOURCE)
    assert not list(tmp_path.rglob("*evil*"))
    assert blobs_below(tmp_path) == []


def test_a_commit_that_is_none_never_becomes_a_path(server: Server, tmp_path: Path) -> None:
    server.commit = "../../../../evil"
    with pytest.raises(CheckpointError, match=r"answer has x-repo-commit '\.\./"):
        download(SOURCE)
    assert blobs_below(tmp_path) == []


def test_an_endless_body_ends_at_what_was_stated(server: Server, tmp_path: Path) -> None:
    server.endless = True
    with pytest.raises(CheckpointError, match=r"longer than the 5,120 bytes that the Hub states"):
        download(SOURCE)
    assert server.sent < 64 << 20
    assert blobs_below(tmp_path) == []


def test_a_byte_at_a_time_ends_with_the_time(server: Server, tmp_path: Path) -> None:
    server.seconds_per_byte = 0.05  # four minutes in all
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"not there after 1 s; .* `timeout`"):
        download(SOURCE, timeout=1)
    assert time.monotonic() - began < 10
    assert blobs_below(tmp_path) == []


def test_names_that_a_server_lists_reach_the_terminal_escaped(server: Server) -> None:
    server.missing = True
    server.names = ["\\u001b[2J\\u001b]0;owned\\u0007.safetensors"]
    with pytest.raises(UnavailableError) as caught:
        download(SOURCE)
    assert "\x1b" not in printable(str(caught.value))
    assert "\\x1b[2J" in printable(str(caught.value))
