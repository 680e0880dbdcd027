"""What libtiff says while Pillow decodes: collected here, so that it never reaches stderr.

Pillow does not pass on libtiff's warnings, nor does it offer a way to set who gets them. The
functions for that are in the shared library that Pillow loads; where they are linked into Pillow
itself (on Windows), messages are neither collected nor silenced.
"""

import contextlib
import ctypes
import threading
from collections.abc import Iterator
from typing import Any

from PIL import _imaging

_LONGEST = 200
_MOST = 20  # messages per image
_messages = threading.local()
_format = ctypes.pythonapi.PyOS_vsnprintf
_format.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p]
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


# Remarks on tags, most of them unknown ones, come from these functions.
_OF_DIRECTORIES = (b"TIFFReadDirectory", b"TIFFFetch", b"TIFFReadCustomDirectory", b"_TIFFV")


def _collect(module: bytes | None, text: bytes, arguments: int) -> None:
    """Called by libtiff, in the thread that decodes."""
    collected: list[str] | None = getattr(_messages, "collected", None)
    of_pixels = not (module or b"").startswith(_OF_DIRECTORIES)
    if collected is not None and len(collected) < _MOST and of_pixels:
        buffer = ctypes.create_string_buffer(_LONGEST)
        _format(buffer, _LONGEST, text, arguments)
        collected.append(" ".join(buffer.value.decode("utf-8", "replace").split()))


_handler = _HANDLER(_collect)  # must live as long as libtiff may call it
_installed = False


def _install() -> None:
    global _installed
    if _installed:
        return
    _installed = True
    with contextlib.suppress(OSError, AttributeError):
        library: Any = ctypes.CDLL(_imaging.__file__)
        library.TIFFSetWarningHandler(_handler)
        library.TIFFSetErrorHandler(_handler)


@contextlib.contextmanager
def libtiff_messages() -> Iterator[list[str]]:
    """A list that gets what libtiff says in this thread meanwhile."""
    _install()
    before = getattr(_messages, "collected", None)
    _messages.collected = []
    try:
        yield _messages.collected
    finally:
        _messages.collected = before
