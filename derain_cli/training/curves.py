"""Learning curves of one or more runs in one SVG: validation PSNR above, training loss below."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from derain_cli.drawings.curves import Curve, Points, draw
from derain_cli.errors import NothingToDoError
from derain_cli.training.metrics_log import read_metrics
from derain_cli.whole_files import write_whole


def plot_runs(runs: Sequence[Path], target: Path) -> None:
    """Write the learning curves of run folders as one SVG that needs nothing else.

    Raises:
        NothingToDoError: A folder without any metrics.
        ResourceError: The file cannot be written.
    """
    curves = [read_curve(run) for run in runs]
    named = [curve.run for curve in curves]
    curves = [
        curve if named.count(curve.run) == 1 else replace(curve, run=str(run))
        for curve, run in zip(curves, runs, strict=True)
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, draw(curves).encode("utf-8", "backslashreplace"))


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
    return [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
