"""`derain scale-plan`: predict the time and cost of a large job on many machines."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.options import PlainDevice
from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from derain_cli.scale.throughput import Forecast, Pieces

COUNTS = "1,2,4,8,16,32,64,128,256,512,1000"
SAMPLE = 8


def scale_plan(
    sample: Annotated[
        list[str], typer.Argument(metavar="SAMPLE", help="Typical images, or a folder of them.")
    ],
    images: Annotated[int, typer.Option(min=1, help="Images in the whole job.")] = 1_000_000,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            show_default="the best for real photos",
            help="Weights, as in `derain derain`.",
        ),
    ] = None,
    device: PlainDevice = "auto",
    cpus: Annotated[int, typer.Option(min=1, help="Processors per worker.")] = 1,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs per worker; 0: the network runs on its processors.")
    ] = 0,
    latency: Annotated[
        float, typer.Option(min=0, help="Latency of a request to the bucket, in milliseconds.")
    ] = 100,
    price: Annotated[float, typer.Option(min=0, help="Price of a worker per hour.")] = 0,
    workers: Annotated[str, typer.Option(help="Numbers of workers, separated by commas.")] = COUNTS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON line per row on stdout.")
    ] = False,
) -> None:
    """Measure a few images here and predict the whole job on 1 to 1000 workers."""
    from derain_cli.scale.throughput import Worker, forecast

    pieces = _measure(sample, model, device, latency / 1000)
    worker = Worker(cpus, gpus, price=price)
    forecasts = forecast(pieces, worker, _counts(workers), images)
    if as_json:
        for item in forecasts:
            typer.echo(json.dumps(vars(item)))
    else:
        _show(pieces, forecasts, priced=price > 0)


def _measure(sample: list[str], model: str | None, device: str, request: float) -> "Pieces":
    import dataclasses

    from derain_cli.batch import BatchOptions, plan_batch
    from derain_cli.checkpoints import DEFAULT_WEIGHTS
    from derain_cli.inference.derainer import Derainer
    from derain_cli.scale.throughput import measure_pieces

    options = BatchOptions(overwrite=True, recursive=True)
    plan = plan_batch(sample, options)
    plan = dataclasses.replace(plan, jobs=plan.to_do[:SAMPLE])
    # One of many workers uses one thread per image: more images at once beat more threads.
    threads = 1 if device == "cpu" else None
    derainer = Derainer.load(model or DEFAULT_WEIGHTS, device=device, threads=threads)
    return measure_pieces(plan, derainer, options, request)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = [0]
    if min(counts) < 1:
        raise UsageError(f"--workers {text!r} must be whole numbers from 1 up, separated by commas")
    return counts


def _show(pieces: "Pieces", forecasts: "list[Forecast]", *, priced: bool) -> None:
    typer.echo(
        f"an image here: decode {1000 * pieces.decode:.1f} ms, network "
        f"{1000 * pieces.network:.1f} ms, encode {1000 * pieces.encode:.1f} ms; a request "
        f"{1000 * pieces.request:.0f} ms",
        err=True,
    )
    typer.echo(
        f"{'workers':>8}{'images/h':>14}{'hours':>10}{'cost' if priced else '':>10}  bound by"
    )
    for item in forecasts:
        cost = f"{item.cost:.2f}" if priced else ""
        typer.echo(
            f"{item.workers:>8}{3600 * item.rate:>14,.0f}{item.hours:>10.3g}{cost:>10}  "
            f"{item.bound}"
        )
