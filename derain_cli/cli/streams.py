"""Standard input, output and error: closed ones, encodings, and text that is safe to print."""

import contextlib
import os
import re
import sys

from derain_cli.errors import UsageError

LONGEST_MESSAGE = 2000
LONGEST_LIST = 1 << 26  # bytes; a list of a million long paths is shorter
# Control characters could move the cursor, change colours or reverse what is read.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def prepare_streams() -> None:
    """Make the standard streams safe to use, whatever their state.

    The descriptor of a closed one must not go to the next file that is opened: whatever a C library
    prints would end up in it. Output accepts any text, even outside its encoding.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (for good)
    if sys.stdout is not None and hasattr(sys.stdout, "reconfigure"):
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        # Names that are not UTF-8 come out unchanged.
        sys.stdout.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def printable(text: str, longest: int | None = None) -> str:
    r"""Text as one line without control characters, shortened in the middle if too long.

    Example:
        >>> printable("rain\x1b[2J\n.png")
        'rain\\x1b[2J\\n.png'
        >>> printable("abcdefgh", longest=5)
        'ab…gh'
    """
    escaped = _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)
    if longest is None or len(escaped) <= longest:
        return escaped
    return escaped[: longest // 2] + "…" + escaped[-(longest // 2) :]


def as_bytes(line: str) -> bytes:
    """A line as standard output encodes it, in UTF-8 if that encoding lacks a character."""
    encoding = (sys.stdout and sys.stdout.encoding) or "utf-8"
    for candidate in (encoding, "utf-8"):
        with contextlib.suppress(UnicodeEncodeError):
            return line.encode(candidate, "surrogateescape")
    return line.encode("utf-8", "replace")


def read_standard_input(what: str, most: int | None = None) -> bytes:
    """All of standard input, up to one byte more than `most`.

    Raises:
        UsageError: It is closed.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError(f"standard input is closed: pipe {what} in, or name a file instead of '-'")
    return sys.stdin.buffer.read() if most is None else sys.stdin.buffer.read(most + 1)
