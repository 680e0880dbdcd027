"""Where what can be made or downloaded again is kept."""

from pathlib import Path

from derain_cli.errors import ResourceError


def cache_folder() -> Path:
    """`~/.cache/derain`; nothing is made.

    Raises:
        ResourceError: The account has no home folder, as in a container under a number.
    """
    try:
        return Path.home() / ".cache" / "derain"
    except RuntimeError as error:
        raise ResourceError(
            "this account has no home folder to keep files in: set $HOME to a folder"
        ) from error
