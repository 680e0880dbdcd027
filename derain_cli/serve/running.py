"""A server on its address, until it is stopped."""

import socket

import uvicorn

from derain_cli.serve.app import create_app
from derain_cli.serve.networks import Networks
from derain_cli.serve.settings import ServeOptions

GRACE = 5  # seconds that answers on the way have when the server ends


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
