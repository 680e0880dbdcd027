"""Where the data sets that are known by name lie."""

import os
from pathlib import Path
from typing import Annotated

import typer

DataRoot = Annotated[
    str | None,
    typer.Option(
        help="Where named data sets lie (default: $DERAIN_DATA or ~/.cache/derain/datasets).",
        show_default=False,
    ),
]


def default_data_root() -> str:
    """`$DERAIN_DATA`, else the cache folder's `derain/datasets`."""
    return os.environ.get("DERAIN_DATA", str(Path.home() / ".cache" / "derain" / "datasets"))
