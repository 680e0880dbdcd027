"""Learning curves of one or more runs in one file, from the logs that they left."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from derain_cli.drawings.curves import Curve, Points, draw
from derain_cli.errors import NothingToDoError
from derain_cli.training.metrics_log import read_metrics
from derain_cli.whole_files import write_whole

LARGEST = 1e100


def plot_runs(runs: Sequence[Path], target: Path) -> None:
    """Write the learning curves of run folders as one file, of the kind that its name ends in.

    Raises:
        NothingToDoError: A folder without any metrics.
        UsageError: matplotlib is not installed.
        ResourceError: The file cannot be written.
    """
    curves = [read_curve(run) for run in runs]
    named = [curve.run for curve in curves]
    names = [
        curve.run if named.count(curve.run) == 1 else str(run)
        for curve, run in zip(curves, runs, strict=True)
    ]
    # Neither SVG nor matplotlib takes a name that is no text.
    texts = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    curves = [replace(curve, run=text) for curve, text in zip(curves, texts, strict=True)]
    drawn = draw(curves, target.suffix.lower().removeprefix("."))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, drawn)


def read_curve(run: Path) -> Curve:
    """Numbers of a run's `metrics.jsonl`.

    Raises:
        NothingToDoError: There are none.
    """
    lines = read_metrics(run)
    psnr = _points(lines, "psnr")
    loss = _points(lines, "loss")
    if not psnr and not loss:
        raise NothingToDoError(
            f"{str(run)!r} has no metrics to draw: is it the folder of a run, and has it logged?"
        )
    return Curve(run.name or str(run.resolve().name), psnr, loss)


def _points(lines: Sequence[dict[str, Any]], name: str) -> Points:
    points: list[tuple[Any, Any]] = [(line["step"], line.get(name)) for line in lines]
    return [(x, y) for x, y in points if _is_drawable(x) and _is_drawable(y)]


def _is_drawable(number: Any) -> bool:  # noqa: ANN401 (any JSON value)
    """Whether it is a number that an axis can hold; a broken log may have others.

    Example:
        >>> [_is_drawable(value) for value in (0.5, None, float("nan"), 10**400)]
        [True, False, False, False]
    """
    return isinstance(number, int | float) and abs(number) < LARGEST
