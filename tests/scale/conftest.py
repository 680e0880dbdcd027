"""A real S3 API on loopback, and images in it."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

BUCKET = "photos"


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """The file system of a server that speaks S3; the variables point every client at it."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import logging

    import fsspec

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
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
    server.stop()


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
