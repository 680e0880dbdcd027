"""A real S3 API on loopback, and images in it."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

BUCKET = "photos"


class Gate:
    """A server's application that can hold back the content of an object.

    What is held comes a byte a second, so that no client, however slow the machine, gives up.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._held: dict[str, threading.Event] = {}

    def hold(self, key: str) -> Callable[[], None]:
        """Hold an object back; the function that is returned lets it go."""
        released = self._held[f"/{BUCKET}/{key}"] = threading.Event()
        return released.set

    def __call__(self, request: dict[str, Any], respond: Any) -> Iterable[bytes]:
        content = self._application(request, respond)
        released = self._held.get(request["PATH_INFO"])
        if released is None or request["REQUEST_METHOD"] != "GET":
            return content
        return self._slowly(b"".join(content), released)

    def _slowly(self, content: bytes, released: threading.Event) -> Iterator[bytes]:
        sent = 0
        while sent < len(content) - 1 and not released.wait(1):
            yield content[sent : sent + 1]
            sent += 1
        yield content[sent:]


@pytest.fixture(scope="session")
def gate() -> Gate:
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    return Gate(server_module.DomainDispatcherApplication(server_module.create_backend_app))


@pytest.fixture(scope="session")
def s3(gate: Gate) -> Iterator[Any]:
    """The file system of a server that speaks S3; the variables point every client at it."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    import logging

    import fsspec
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, gate, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host, port = server.server_address[:2]
    variables = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "NO_PROXY": "127.0.0.1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        files = fsspec.filesystem("s3", use_listings_cache=False)
        files.mkdir(BUCKET)
        yield files
    server.shutdown()


@pytest.fixture(scope="session")
def upload(s3: Any) -> Callable[..., dict[str, bytes]]:
    """Puts images of three sizes below a key; returns their contents by name."""

    def put(key: str, count: int) -> dict[str, bytes]:
        from io import BytesIO

        contents = {}
        for index in range(count):
            size = (160 + 32 * (index % 3), 256, 3)
            pixels = np.random.default_rng(index).integers(0, 255, size).astype(np.uint8)
            stream = BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG")
            contents[f"{'abc'[index % 3]}/{index:04}.jpg"] = stream.getvalue()
        s3.pipe({f"{BUCKET}/{key}/{name}": content for name, content in contents.items()})
        return contents

    return put


def contents_below(s3: Any, key: str) -> dict[str, bytes]:
    """Every object below a key, by its relative name."""
    root = f"{BUCKET}/{key}/"
    return {path.removeprefix(root): s3.cat_file(path) for path in s3.find(root)}


@pytest.fixture(scope="session")
def read_all(s3: Any) -> Callable[[str], dict[str, bytes]]:
    return lambda key: contents_below(s3, key)
