"""The address of a server; light, so that a taken port is known at once."""

import errno
import socket

from derain_cli.errors import UsageError
from derain_cli.serve.settings import ServeOptions

BACKLOG = 128


def listen(options: ServeOptions) -> socket.socket:
    """The socket of a server, so that a taken port is known before a network is loaded.

    Raises:
        UsageError: The address or port cannot be had.
    """
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        return socket.create_server(
            (options.host.strip("[]"), options.port), family=family, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {options.port} is taken by another program: choose another with --port, "
                "or 0 for any"
            ) from error
        reason = error.strerror or str(error)
        raise UsageError(
            f"cannot listen on {options.host!r}, port {options.port}: {reason}"
        ) from error


def address(options: ServeOptions, listening: socket.socket) -> str:
    """Where a browser finds the page."""
    host, port = options.host.strip("[]"), listening.getsockname()[1]
    # Any address: this machine has one of its own, of the kind that is listened on.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
