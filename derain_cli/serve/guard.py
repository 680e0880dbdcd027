"""What stands before every page: who may ask, and what a browser may do with the answer."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from derain_cli.serve.failures import failure
from derain_cli.serve.settings import ServeOptions, is_loopback

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Turns other sites' requests away, and sets the headers of every answer.

    A server that only this machine can reach still hears any site that is open in its browser:
    either by a form that the site sends, or by a host name of the site that it points here.
    """

    def __init__(self, app: ASGIApp, options: ServeOptions) -> None:
        self.app, self.options = app, options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application around another."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        reason = self._refusal(Headers(scope=scope), scope["path"])
        app = failure(2, "refused", reason, 403) if reason else self.app
        await app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers, path: str) -> str:
        """Why a request is turned away; empty if it is not."""
        # A link to the page may stand on another site; what the page does is asked by itself.
        is_link = path == "/" and headers.get("sec-fetch-dest") == "document"
        if _is_of_another_site(headers) and not is_link:
            return "a request of another site: open this server's own page"
        if not self.options.is_private:
            return ""
        host = _host_in(headers.get("host", ""))
        if is_loopback(host):
            return ""
        return f"a request for host {host!r}: this server answers to its own machine alone"


def _is_of_another_site(headers: Headers) -> bool:
    """Whether a page of another site makes the request: browsers say so, other clients need not.

    Over plain HTTP to another machine, browsers send `Origin` alone.

    Example:
        >>> _is_of_another_site(Headers({"origin": "http://dry:8765", "host": "dry:8765"}))
        False
    """
    relation, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if relation is not None or origin is None:
        return relation in ("cross-site", "same-site")
    return origin.partition("://")[2] != headers.get("host", "")


def _host_in(header: str) -> str:
    """The host of a Host header without its port; the header itself where it is none.

    Example:
        >>> _host_in("[::1]:8765"), _host_in("[")
        ('::1', '[')
    """
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:  # half an IPv6 address, say
        return header
