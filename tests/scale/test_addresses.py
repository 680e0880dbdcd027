"""Addresses: in memory, over HTTP and over S3, each with a real client."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from derain_cli.errors import DerainError, ImageError, UsageError
from derain_cli.scale import addresses
from derain_cli.scale.addresses import Address, list_files, open_files, shown


@pytest.fixture
def memory() -> Iterator[Any]:
    import fsspec

    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_file_is_written_whole_and_read(memory: Any) -> None:
    address = Address("memory://photos/a.jpg")
    address.write_whole(b"rain", overwrite=False)
    assert address.read_bytes() == b"rain"
    assert address.write_whole(b"rain", overwrite=False), "its own first result"
    assert not address.write_whole(b"more", overwrite=False)
    assert address.write_whole(b"more", overwrite=True)
    assert address.read_bytes() == b"more"


def test_listing_has_relative_paths(memory: Any) -> None:
    memory.pipe({f"/photos/{name}": b"x" for name in ("b.jpg", "a.jpg", "below/c.jpg")})
    flat = list(list_files("memory://photos", recursive=False))
    assert [str(relative) for _, relative in flat] == ["a.jpg", "b.jpg"]
    deep = dict(list_files("memory://photos/", recursive=True))
    assert deep[Address("memory://photos/below/c.jpg")] == PurePosixPath("below/c.jpg")
    assert {address.size for address in deep} == {1}


def test_a_name_with_an_empty_part_is_listed_once_and_found(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/odd/a.jpg", b"1")
    memory.store["/odd//b.jpg"] = memory.store["/odd/a.jpg"]  # its client never comes to it
    listing = islice(list_files("memory://odd", recursive=True), 5)
    assert [address.url for address, _ in listing] == ["memory://odd/a.jpg"]
    key = {"name": "photos/odd//below//b.jpg", "size": 1}
    monkeypatch.setattr(addresses, "open_files", lambda _url: (None, "photos/odd"))
    monkeypatch.setattr(addresses, "_s3_pages", lambda *_words, **_options: iter([key]))
    assert list(list_files("s3://photos/odd/", recursive=True)) == [
        (Address("s3://photos/odd//below//b.jpg"), PurePosixPath("below/b.jpg"))
    ]


def test_what_is_not_there_is_one_line(memory: Any) -> None:
    with pytest.raises(ImageError, match=r"'memory://photos/a.jpg' cannot be read: nothing is"):
        Address("memory://photos/a.jpg").read_bytes()


WITHOUT_EXTRAS = """
import sys
from pathlib import Path

for client in ("s3fs", "gcsfs", "adlfs", "aiohttp", "ray"):
    sys.modules[client] = None  # as where it is not installed
from typer.testing import CliRunner

from derain_cli.cli.app import app

for words in (
    ["s3://bucket/a.jpg", "-o", "dry/"],
    ["photos", "-o", "s3://bucket/dry/"],
    ["gs://bucket/a.jpg", "-o", "dry/"],
    ["az://bucket/a.jpg", "-o", "dry/"],
    ["https://host/a.jpg?key=secret", "-o", "dry/"],
    ["photos", "-o", "dry/", "--on", "ray"],
    ["eval", "--rainy", "photos", "--clean", "photos", "--on", "ray"],
):
    result = CliRunner().invoke(app, words)
    print(result.exit_code, result.stderr.strip())
assert not Path("dry").exists()
"""


def test_a_missing_client_is_one_line_with_the_command(photos: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_EXTRAS]
    lines = subprocess.run(
        command, cwd=photos.parent, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    needs = "error: {} needs the extra {}: pip install 'derain-cli[{}]'"
    expected = [
        ("'s3://bucket/a.jpg'", "s3"),
        ("'s3://bucket/dry/'", "s3"),
        ("'gs://bucket/a.jpg'", "gs"),
        ("'az://bucket/a.jpg'", "az"),
        ("'https://host/a.jpg'", "http"),
        ("--on ray", "ray"),
        ("--on ray", "ray"),
    ]
    assert lines == ["2 " + needs.format(what, extra, extra) for what, extra in expected]


def test_an_unknown_kind_of_address() -> None:
    with pytest.raises(UsageError, match="Did you mean 's3'"):
        open_files("s3a://bucket/a.jpg")


def test_nothing_secret_is_shown() -> None:
    url = "https://me:secret@127.0.0.1:1/a.jpg?X-Amz-Signature=secret"
    assert shown(url) == "https://127.0.0.1:1/a.jpg"
    assert "secret" not in str(Address(url))
    pytest.importorskip("aiohttp")
    with pytest.raises(DerainError) as caught:
        Address(url).read_bytes()
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore")
def test_http_is_read_and_not_written(web: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "a b.jpg").write_bytes(b"rain")
    assert Address(f"{web}/a%20b.jpg").read_bytes() == b"rain"
    with pytest.raises(ImageError, match="nothing is there"):
        Address(f"{web}/b.jpg").read_bytes()
    with pytest.raises(UsageError, match="is only read"):
        addresses.require_writable(f"{web}/b.jpg")


@pytest.mark.filterwarnings("ignore")
def test_s3_is_listed_page_by_page(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PAGE", 10)
    s3.pipe({f"photos/paged/{index:03}.jpg": b"x" for index in range(25)})
    s3.pipe("photos/paged/below/x.jpg", b"xy")
    calls = []
    files, _ = open_files("s3://photos/paged")
    monkeypatch.setattr(
        files, "call_s3", lambda *a, real=files.call_s3, **k: calls.append(k) or real(*a, **k)
    )
    listing = list_files("s3://photos/paged/", recursive=False)
    first = next(listing)[0]
    assert (first.url, first.size, bool(first.version)) == ("s3://photos/paged/000.jpg", 1, True)
    assert len(calls) == 1, "the first file needs one page"
    assert len(list(listing)) == 24
    assert len(list(list_files("s3://photos/paged", recursive=True))) == 26


@pytest.mark.filterwarnings("ignore")
def test_s3_refuses_without_a_word_of_the_key(s3: Any, upload: Callable[..., Any]) -> None:
    address = Address("s3://photos/once.jpg")
    address.write_whole(b"1", overwrite=False)
    assert not address.write_whole(b"2", overwrite=False)
    with pytest.raises(DerainError, match="cannot be listed: nothing is there"):
        list(list_files("s3://no-such-bucket/x/", recursive=True))


@pytest.mark.filterwarnings("ignore")
def test_names_of_a_web_listing_are_plain(web: str, tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "wet").mkdir()
    (tmp_path / "wet/a b.jpg").write_bytes(b"rain")
    ((address, name),) = addresses.list_files(f"{web}/wet/", recursive=False)
    assert str(name) == "a b.jpg"
    assert address.read_bytes() == b"rain"
