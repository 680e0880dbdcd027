"""A server on its address, until it is stopped."""

import errno
import socket

import uvicorn

from derain_cli.errors import UsageError
from derain_cli.serve.app import create_app
from derain_cli.serve.networks import Networks
from derain_cli.serve.settings import ServeOptions

BACKLOG = 128
GRACE = 5  # seconds that answers on the way have when the server ends


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
    if host in ("0.0.0.0", "::"):  # any address: this machine has one of its own
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(networks: Networks, options: ServeOptions, listening: socket.socket) -> None:
    """Answer until Ctrl-C or a signal to end.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    config = uvicorn.Config(
        create_app(networks, options),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
        ws="none",
    )
    uvicorn.Server(config).run([listening])
