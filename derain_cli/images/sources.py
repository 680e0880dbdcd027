"""Where images come from: an open file, its name, and how reading it fails."""

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from derain_cli.errors import DerainError, ResourceError, UnreadableImageError
from derain_cli.images.failures import DECODER_ERRORS, one_line, quiet_decoders
from derain_cli.images.picture import Picture


class DamagedError(Exception):
    """Damage that a decoder noticed in a file that must be whole."""


class Notices(list[str]):
    """Remarks for the user about a file.

    Args:
        strict: Whether damage that leaves the file readable is an error.
    """

    def __init__(self, *, strict: bool = False) -> None:
        super().__init__()
        self.strict = strict

    def damage(self, notice: str) -> None:
        """A remark on damage.

        Raises:
            DamagedError: The file must be whole.
        """
        if self.strict:
            raise DamagedError(notice)
        if notice not in self:
            self.append(notice)


@dataclass(frozen=True)
class SourceFile:
    """An open file and what to call it."""

    stream: BinaryIO
    label: str
    suffix: str

    def read_all(self) -> bytes:
        """The whole content."""
        self.stream.seek(0)
        return self.stream.read()

    def head(self, length: int = 65536) -> bytes:
        """The first bytes."""
        self.stream.seek(0)
        return self.stream.read(length)


@dataclass(frozen=True)
class OpenedImage:
    """A header that was understood; `decode` reads the pixels.

    Attributes:
        size: Width and height as stored, not upright.
        orientation: EXIF orientation of the stored pixels.
        decode: Reads the pixels.
        pixel_bytes: Memory that a decoded pixel takes.
    """

    size: tuple[int, int]
    orientation: int
    decode: Callable[[], Picture]
    pixel_bytes: int = 3

    @property
    def width(self) -> int:
        """Columns as stored."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Rows as stored."""
        return self.size[1]


@contextlib.contextmanager
def open_source(source: str | Path | bytes, name: str | None) -> Iterator[SourceFile]:
    """The open source; whatever a decoder raises meanwhile becomes one line that names it."""
    named = name or ("standard input" if isinstance(source, bytes) else str(source))
    label = repr(named) if name or not isinstance(source, bytes) else named
    try:
        with quiet_decoders(), _stream(source, label) as stream:
            yield SourceFile(stream, label, Path(named).suffix.lower())
    except DerainError:
        raise
    except MemoryError as error:
        raise ResourceError(
            f"{label} does not fit in memory; free some or use a smaller image"
        ) from error
    except DamagedError as error:
        raise UnreadableImageError(
            f"{label} {error}; copy or download it again, or read it without `strict`"
        ) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, for WebP alone
        raise UnreadableImageError(
            f"{label} is larger than Pillow reads of this format; convert it to PNG or TIFF"
        ) from error
    except DECODER_ERRORS as error:
        raise UnreadableImageError(
            f"{label} is damaged or cut short ({one_line(error)}); copy or download it again"
        ) from error


@contextlib.contextmanager
def _stream(source: str | Path | bytes, label: str) -> Iterator[BinaryIO]:
    """A seekable stream over the source (a pipe is read to its end first)."""
    if isinstance(source, bytes):
        yield io.BytesIO(source)
        return
    try:
        stream = Path(source).open("rb")  # noqa: SIM115 (closed below)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"{label} {_open_failure(error)}") from error
    with stream:
        yield stream if stream.seekable() else io.BytesIO(stream.read())


def _open_failure(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist; check the name"
    if isinstance(error, IsADirectoryError):
        return "is a folder, not an image; name a file in it"
    if isinstance(error, PermissionError):
        return "may not be read (permission denied); change its permissions"
    return f"cannot be opened ({one_line(error)})"
