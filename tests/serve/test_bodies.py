"""Bodies of requests that do not come."""

import asyncio
from typing import Any

import pytest

pytest.importorskip("python_multipart", reason="the extra 'serve' is not installed")

from starlette.requests import Request

from derain_cli.serve.bodies import read_job, throw_away
from derain_cli.serve.failures import RefusedError
from derain_cli.serve.settings import ServeOptions


def test_a_body_that_stops_is_waited_for_once() -> None:
    options = ServeOptions(patience=0.1)
    waits: list[str] = []

    async def receive() -> Any:
        waits.append("for a chunk")
        await asyncio.sleep(60)

    async def ask() -> None:
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
        request = Request(scope, receive)
        with pytest.raises(RefusedError, match="no byte arrived"):
            await read_job(request, options)
        await throw_away(request, options)

    asyncio.run(ask())
    assert len(waits) == 1
