"""The image and the fields of a request, read within its limits and never to a disk."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from derain_cli.errors import NothingToDoError, UsageError
from derain_cli.serve.failures import RefusedError
from derain_cli.serve.jobs import Job, parse_job
from derain_cli.serve.settings import ServeOptions

IMAGE_FIELD = "image"
MOST_FIELDS = 16


async def read_job(request: Request, options: ServeOptions) -> Job:
    """What a request asks for: a raw body and query parameters, or a form.

    Raises:
        RefusedError: The body is too long, or stops coming.
        UsageError: A form without a file named `image`, or a field that cannot mean anything.
        NothingToDoError: No image.
    """
    _refuse_stated_length(request, options)
    fields = dict(request.query_params)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        content = b"".join([chunk async for chunk in _chunks(request, options)])
        return parse_job(content, "", fields)
    content, name, more = await _read_form(request, options)
    return parse_job(content, name, fields | more)


async def throw_away(request: Request, options: ServeOptions) -> None:
    """Take the rest of a body in without keeping it, so that the client can read the answer."""
    if getattr(request.state, "body_is_read", False):
        return
    try:
        async for _ in _chunks(request, options):
            pass
    except (RefusedError, ClientDisconnect):
        return


def _refuse_stated_length(request: Request, options: ServeOptions) -> None:
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > options.max_bytes + options.max_bytes // 100:
        raise _too_long(options)


def _too_long(options: ServeOptions) -> RefusedError:
    return RefusedError(
        f"the upload is longer than {options.max_megabytes} MB; "
        "whoever runs the server can raise that with --max-megabytes",
        413,
        "too large",
    )


async def _chunks(request: Request, options: ServeOptions) -> AsyncGenerator[bytes]:
    """The body as it arrives, within the limits of length and patience."""
    length, is_more = 0, True
    while is_more:
        try:
            async with asyncio.timeout(options.patience):
                message = await request.receive()
        except TimeoutError:
            request.state.body_is_read = True  # as far as it will be: nobody waits a second time
            raise RefusedError(
                f"no byte arrived for {options.patience:g} s: send the image again",
                408,
                "upload stopped",
                Connection="close",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        is_more = message.get("more_body", False)
        request.state.body_is_read = not is_more
        length += len(message.get("body", b""))
        if length > options.max_bytes:
            raise _too_long(options)
        yield message.get("body", b"")


async def _read_form(request: Request, options: ServeOptions) -> tuple[bytes, str, dict[str, str]]:
    parser = MultiPartParser(
        request.headers, _chunks(request, options), max_files=1, max_fields=MOST_FIELDS
    )
    parser.spool_max_size = options.max_bytes  # in memory, never on a disk
    try:
        form = await parser.parse()
    except (MultiPartException, HTTPException) as error:
        reason = getattr(error, "message", None) or getattr(error, "detail", "")
        raise UsageError(f"the form cannot be read: {reason}") from error
    try:
        return await _take_apart(form)
    finally:
        await form.close()


async def _take_apart(form: FormData) -> tuple[bytes, str, dict[str, str]]:
    file = form.get(IMAGE_FIELD)
    if file is None:
        raise NothingToDoError(f"the form has no file in a field named {IMAGE_FIELD!r}")
    if not isinstance(file, UploadFile):
        raise UsageError(f"the field {IMAGE_FIELD!r} is text, not a file (curl: -F image=@FILE)")
    texts = {name: value for name, value in form.items() if isinstance(value, str)}
    return await file.read(), file.filename or "", texts
