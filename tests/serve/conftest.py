"""A real server, started by the command, and a client of the standard library."""

import http.client
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.children import Child

for package in ("starlette", "uvicorn", "python_multipart"):
    pytest.importorskip(package, reason="the extra 'serve' is not installed")


@dataclass(frozen=True)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass(frozen=True)
class Server:
    url: str
    port: int
    process: subprocess.Popen[str]

    def ask(self, method: str, address: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, address, body, named)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())
        finally:
            connection.close()

    def post(self, image: bytes, query: str = "", **headers: str) -> Reply:
        return self.ask("POST", f"/v1/derain{query}", image, **headers)

    def post_form(self, name: str, image: bytes, **fields: str) -> Reply:
        mark = uuid.uuid4().hex
        begin = f"--{mark}\r\nContent-Disposition: form-data; name="
        parts = [f'{begin}"{field}"\r\n\r\n{value}\r\n'.encode() for field, value in fields.items()]
        parts += [
            f'{begin}"image"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'.encode()
            + image
            + b"\r\n",
            f"--{mark}--\r\n".encode(),
        ]
        return self.ask(
            "POST",
            "/v1/derain",
            b"".join(parts),
            Content_Type=f"multipart/form-data; boundary={mark}",
        )


def start_server(*arguments: object) -> Server:
    """`derain serve` on a free port; returns once it says that it is ready."""
    process = Child(
        [sys.executable, "-m", "derain_cli", "serve", "--port", "0", *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        match = re.search(r"open (http://127\.0\.0\.1:(\d+)/)", line)
        if match:
            return Server(match[1], int(match[2]), process)
    raise AssertionError(f"no server: exit code {process.wait()}")


def stop_server(server: Server) -> None:
    server.process.terminate()
    server.process.communicate(timeout=30)


@pytest.fixture(scope="session")
def server(tiny_checkpoint: Path) -> Iterator[Server]:
    """A server of the tiny network with low limits: 3 places, 1 MB, a megapixel."""
    limits = ["--queue", 1, "--max-megabytes", 1, "--max-pixels", 1_000_000]
    running = start_server("-m", tiny_checkpoint, "--device", "cpu", "--threads", 1, *limits)
    yield running
    stop_server(running)
