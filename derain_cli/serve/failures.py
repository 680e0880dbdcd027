"""Errors as the service states them: JSON with the exit code that the command would end with."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from derain_cli.errors import DerainError

log = logging.getLogger(__name__)

MEANINGS: Mapping[int, tuple[int, str]] = {
    1: (422, "the image failed"),
    2: (400, "usage"),
    3: (400, "nothing to do"),
    4: (404, "model unavailable"),
    5: (507, "out of memory or disk"),
}
"""Exit code -> status and meaning."""


class RefusedError(DerainError):
    """A request that is turned away before its image is looked at.

    Attributes:
        status: Of the answer.
        meaning: In a few words.
        headers: More of them for the answer.
    """

    def __init__(
        self, message: str, status: int, meaning: str, *, code: int = 2, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.meaning, self.exit_code = status, meaning, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def failure(code: int, meaning: str, message: str, status: int, **more: Any) -> JSONResponse:  # noqa: ANN401
    """An answer that says what went wrong."""
    content = {"error": {"code": code, "meaning": meaning, "message": message}}
    return JSONResponse(content, status, **more)


async def answer_derain_error(request: Request, error: Exception) -> JSONResponse:
    """What a user can fix, in the words of the command line."""
    assert isinstance(error, DerainError), "registered for these alone"
    if isinstance(error, RefusedError):
        return failure(
            error.exit_code, error.meaning, str(error), error.status, headers=error.headers
        )
    status, meaning = MEANINGS[error.exit_code]
    return failure(error.exit_code, meaning, str(error), status)


async def answer_http_error(request: Request, error: Exception) -> JSONResponse:
    """A wrong address or method."""
    assert isinstance(error, HTTPException), "registered for these alone"
    asked = f"{request.method} {request.url.path}"
    message = f"{asked}: {error.detail}; /openapi.json lists the addresses there are"
    return failure(2, "usage", message, error.status_code, headers=error.headers)


async def answer_bug(request: Request, error: Exception) -> JSONResponse:
    """Anything else is a bug: its traceback is in the server's log, not in the answer."""
    log.error("unexpected error in %s", request.url.path, exc_info=error)
    kind = type(error).__name__
    return failure(1, "a bug in derain", f"unexpected {kind}; the server's log says more", 500)
