"""`derain serve`: the web page and the REST service behind it."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.options import EngineName, PlainDevice, Precision
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    import socket

    from derain_cli.inference.derainer import DerainerOptions
    from derain_cli.serve.settings import ServeOptions

EXTRA = ("starlette", "uvicorn", "python_multipart")


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME",
            show_default="the best for real photos",
            help="Default weights of requests.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option("--port", "-p", min=0, max=65535, help="TCP port; 0 for any free one.")
    ] = 8765,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 admits every machine that can reach this one.",
        ),
    ] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    device: PlainDevice = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Number format of the network, as in `derain derain`.")
    ] = Precision.auto,
    engine: Annotated[
        EngineName,
        typer.Option(envvar="DERAIN_ENGINE", help="What runs the network, as in `derain derain`."),
    ] = EngineName.auto,
    threads: Annotated[
        int | None,
        typer.Option(min=1, show_default="all cores", help="CPU threads of the network."),
    ] = None,
    queue: Annotated[
        int, typer.Option(min=1, help="Length of the queue; further images get status 503.")
    ] = 16,
    max_megabytes: Annotated[int, typer.Option(min=1, help="Largest upload.")] = 200,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Refuse larger images before they are decoded.")
    ] = 120_000_000,
) -> None:
    """Serve a web page that derains photos, and a REST interface at the same address.

    Only this machine can reach it unless --host is given. Nothing is written to disk.
    """
    from derain_cli.serve.settings import ServeOptions

    options = ServeOptions(host, port, queue, max_megabytes, max_pixels)
    _need_extra()
    from derain_cli.serve.listening import listen

    with listen(options) as listening:
        running: DerainerOptions = {
            "device": device,
            "engine": engine.value,
            "precision": precision.value,
            "threads": threads,
        }
        _serve(options, listening, model, running, open_page=open_page)


def _need_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"derain serve needs {missing[0]!r}, which is not installed: "
            "pip install 'derain-cli[serve]'"
        )


def _serve(
    options: "ServeOptions",
    listening: "socket.socket",
    model: str | None,
    engine: "DerainerOptions",
    *,
    open_page: bool,
) -> None:
    from derain_cli.checkpoints.catalogue import known_harm
    from derain_cli.serve.listening import address
    from derain_cli.serve.networks import Networks
    from derain_cli.serve.running import serve as run

    networks = Networks(model, engine)
    if harm := known_harm(networks.default):
        _say(f"{networks.default}: {harm}")
    if not options.is_private:
        _say(
            f"every machine that can reach {options.host} can use this server: "
            "it asks for no password"
        )
    place = address(options, listening)
    _say(f"{networks.default} is ready: open {place} (Ctrl-C stops it)")
    if open_page:
        import webbrowser

        webbrowser.open(place)
    run(networks, options, listening)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201
