"""Errors a user can fix: each message names the value, the cause and the way out.

The command line turns them into one line on stderr and the exit code the class states.
Anything that is not a `DerainError` is a bug and shows its traceback.
"""

import difflib
import itertools
from collections.abc import Iterable, Sequence

# Exit code of Ctrl-C: 128 and the number of its signal, as shells count it.
INTERRUPTED = 130

# A name is a likely misspelling of another one from this ratio of equal letters on.
LEAST_LIKE = 0.5


class DerainError(Exception):
    """Base of every error that a user can fix."""

    exit_code = 1


class UsageError(DerainError):
    """A value or a combination of options that cannot mean anything."""

    exit_code = 2


class NothingToDoError(DerainError):
    """The inputs are valid, but name no image."""

    exit_code = 3


class UnavailableError(DerainError):
    """A model, checkpoint or dataset that is not here and could not be had."""

    exit_code = 4


class ResourceError(DerainError):
    """Memory, disk space or a permission ran out."""

    exit_code = 5


class DiskError(ResourceError):
    """A disk or a server that takes no file any more: the next one would meet the same."""


class ImageError(DerainError):
    """An image that cannot be read, derained or written."""


class UnreadableImageError(ImageError):
    """The file is not an image this program reads, or it is damaged."""


class CheckpointError(UnavailableError):
    """A checkpoint that is damaged, foreign or not what its name promises."""


class DatasetError(UnavailableError):
    """A dataset that is missing, incomplete or not laid out as expected."""


class ConfigError(UsageError):
    """A training configuration with an unknown or impossible value."""


class TrainingError(DerainError):
    """Training that cannot go on: no finite loss, no data left, no space to save."""


def first_line(error: BaseException, most: int = 300) -> str:
    r"""The first line of what an exception says, without its full stop; else its class.

    Example:
        >>> first_line(ValueError("no such thing.\nmore")), first_line(ValueError())
        ('no such thing', 'ValueError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ")[:most] if lines else type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """End of an error line for an unknown name.

    Example:
        >>> did_you_mean("hcm", ["rdmc", "hcn"])
        "Did you mean 'hcn'? Known: hcn, rdmc"
        >>> did_you_mean("rain100", ["rain100h", "rain100l", "rain1400"]).partition(" Known")[0]
        "Did you mean 'rain100h' or 'rain100l'?"
    """
    names = sorted(known)
    close = " or ".join(repr(near) for near in _closest(name, names))
    hint = f"Did you mean {close}? " if close else ""
    return f"{hint}Known: {', '.join(names)}"


def _closest(name: str, names: Sequence[str]) -> list[str]:
    """The names most like another one: one, or two that are equally like it."""

    def likeness(other: str) -> tuple[float, int]:
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
        return difflib.SequenceMatcher(None, other, name).ratio(), len(list(alike))

    best = max(map(likeness, names), default=(0.0, 0))
    if best[0] < LEAST_LIKE:
        return []
    return [other for other in names if likeness(other) == best][:2]
