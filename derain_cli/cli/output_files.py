"""Outputs of commands: report files named by an option, and standard output."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from derain_cli.errors import ResourceError, UsageError
from derain_cli.whole_files import cache_folder


def require_output_file(
    path: Path, option: str, *endings: str, overwrite: bool | None = None
) -> None:
    """Refuse a file that cannot or should not be written, before the work begins.

    Its extension must be one of its kind, so that a mistyped name never overwrites a photo. Where
    photos have that extension too, a file that is there is replaced only on demand.

    Args:
        path: The file.
        option: That names it.
        *endings: Allowed extensions.
        overwrite: Whether a file that is there may be replaced; None: it may.

    Raises:
        UsageError: Another extension, a folder, or an existing file that must stay.
        ResourceError: Its folder cannot be created or written to.
    """
    if path.is_dir():
        raise UsageError(f"{option} {str(path)!r} is a folder; name a file in it")
    if path.suffix.lower() not in endings:
        raise UsageError(f"{option} {str(path)!r} must end in {' or '.join(endings)}")
    if overwrite is False and os.path.lexists(path):
        raise UsageError(f"{str(path)!r} exists already: --overwrite replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"cannot make {str(path.parent)!r}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise ResourceError(f"cannot write into {str(path.parent)!r}: permission denied")


def give_up_standard_output() -> None:
    """Discard buffered standard output after its reader has exited."""
    if sys.__stdout__ is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


DataRoot = Annotated[
    str | None,
    typer.Option(
        metavar="folder",
        help="Folder of the named data sets.",
        show_default="$DERAIN_DATA, else ~/.cache/derain/datasets",
    ),
]


def default_data_root() -> str:
    """`$DERAIN_DATA`, else `datasets` in the cache folder.

    Raises:
        ResourceError: The account has no home folder.
    """
    chosen = os.environ.get("DERAIN_DATA")
    return str(Path(chosen).expanduser() if chosen else cache_folder() / "datasets")
