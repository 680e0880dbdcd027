"""The server's application: its addresses and what answers at each."""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from derain_cli.errors import DerainError, UsageError
from derain_cli.serve.bodies import read_job, throw_away
from derain_cli.serve.failures import (
    RefusedError,
    answer_bug,
    answer_derain_error,
    answer_http_error,
)
from derain_cli.serve.guard import Guard
from derain_cli.serve.image_queue import ImageQueue, Ticket
from derain_cli.serve.jobs import MEDIA_TYPES, Answer, Job
from derain_cli.serve.networks import Networks
from derain_cli.serve.openapi import describe_service
from derain_cli.serve.pages import PAGES, reference_page
from derain_cli.serve.settings import ServeOptions
from derain_cli.version import __version__

JOB_KEY = re.compile(r"[A-Za-z0-9-]{1,64}")
GONE = 499  # as web servers log a client that left; nobody reads it
LONGEST_NOTICES = 4000  # of a header


def create_app(networks: Networks, options: ServeOptions) -> Starlette:
    """The application that serves the page and the service.

    Args:
        networks: Ready to run.
        options: Limits, and who may ask.
    """
    queue = ImageQueue(networks, options)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        queue.close()

    app = Starlette(
        routes=[*_service(queue), *_pages(options)],
        middleware=[Middleware(Guard, options=options)],
        exception_handlers={
            DerainError: answer_derain_error,
            HTTPException: answer_http_error,
            Exception: answer_bug,
        },
        lifespan=lifespan,
    )
    app.state.queue = queue
    return app


def _service(queue: ImageQueue) -> list[Route]:
    async def models(_: Request) -> Response:
        networks = queue.networks
        return JSONResponse({"default": networks.default, "models": networks.describe()})

    async def job(request: Request) -> Response:
        # A page asks on while its answer is on the way: no error then.
        progress = queue.progress(request.path_params["job"])
        return JSONResponse(progress or {"state": "unknown", "place": None})

    async def health(_: Request) -> Response:
        told = {"status": "ok", "version": __version__, "model": queue.networks.default}
        return JSONResponse(told | queue.counts())

    document = describe_service(queue.options)
    return [
        Route("/v1/derain", partial(_answer, queue, queue.derain), methods=["POST"]),
        Route("/v1/preview", partial(_answer, queue, queue.preview), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/jobs/{job}", job),
        Route("/healthz", health),
        Route("/openapi.json", lambda _: JSONResponse(document)),
    ]


def _pages(options: ServeOptions) -> list[Route]:
    def page(content: bytes, media: str) -> Callable[[Request], Response]:
        return lambda _: Response(content, media_type=media, headers={"Cache-Control": "no-cache"})

    routes = [Route(address, page(content, media)) for address, content, media in PAGES]
    reference = reference_page(describe_service(options))
    return [*routes, Route("/docs", page(reference, "text/html"))]


async def _answer(
    queue: ImageQueue, work: Callable[[Job, Ticket], Awaitable[Answer]], request: Request
) -> Response:
    """Read the image, do the work, send the answer; stop when the client leaves."""
    key = request.headers.get("derain-job") or str(uuid.uuid4())
    if not JOB_KEY.fullmatch(key):
        raise UsageError(f"job {key[:80]!r} must have 1 to 64 letters, digits or hyphens")
    try:
        with queue.ticket(key) as ticket:
            job = await read_job(request, queue.options)
            answer = await _unless_gone(request, work(job, ticket))
    except (RefusedError, UsageError):
        await throw_away(request, queue.options)
        raise
    except ClientDisconnect:
        return Response(status_code=GONE)
    if answer is None:
        return Response(status_code=GONE)
    return _file(answer, queue.networks.check(job.model))


async def _unless_gone(request: Request, work: Awaitable[Answer]) -> Answer | None:
    """The work's result; None, and the work cancelled, when the client leaves before it."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        working.cancel()
        await asyncio.wait([working])
        return None
    finally:
        leaving.cancel()
        working.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _file(answer: Answer, model: str) -> Response:
    ascii_name = answer.name.encode("ascii", "replace").decode().replace('"', "'")
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(answer.name)}"
    headers = {"Content-Disposition": disposition, "Derain-Model": quote(model)}
    if answer.notices:
        headers["Derain-Notices"] = _shortened(answer.notices)
    return Response(answer.content, media_type=MEDIA_TYPES[answer.format], headers=headers)


def _shortened(notices: tuple[str, ...]) -> str:
    """A JSON list in ASCII, without the last ones where a header would grow too long."""
    while len(text := json.dumps(notices)) > LONGEST_NOTICES:
        notices = notices[:-1]
    return text
