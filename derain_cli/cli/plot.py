"""`derain plot`: learning curves of training runs."""

from pathlib import Path
from typing import Annotated

import typer

from derain_cli.cli.output_files import require_output_file


def plot(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="file",
            show_default="curves.svg in the first run",
            help="File to write: .svg, .png or .pdf.",
        ),
    ] = None,
) -> None:
    """Draw the learning curves of training runs in one image (extra `plots`)."""
    from derain_cli.drawings.curves import KINDS
    from derain_cli.training.curves import plot_runs

    if out:
        require_output_file(out, "--out", *(f".{kind}" for kind in KINDS))
    target = out or runs[0] / "curves.svg"
    plot_runs(runs, target)
    typer.echo(str(target))
