"""Decoded images and pairs, kept in memory up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.layouts import Pair
from derain_cli.errors import DatasetError, ImageError
from derain_cli.images import read_image

Pixels = NDArray[np.uint8]
DEFAULT_BYTES = 2 << 30


def read_pixels(path: Path) -> Pixels:
    """`(height, width, 3)` uint8 of an image of a data set.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        pixels = read_image(path).rgb
    except ImageError as error:
        raise DatasetError(str(error)) from error
    if pixels.dtype == np.uint16:
        pixels = np.rint(pixels / 257)
    eight_bit: Pixels = pixels.astype(np.uint8, copy=False)
    eight_bit.setflags(write=False)
    return eight_bit


def read_pair(pair: Pair) -> tuple[Pixels, Pixels]:
    """Rainy and clean pixels of a pair.

    Raises:
        DatasetError: Unreadable, or the two differ in size (never resized here).
    """
    try:
        rainy, clean = _both(pair)
    except DatasetError as error:
        raise DatasetError(f"pair {pair.name!r}: {error}") from error
    if rainy.shape != clean.shape:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (rainy, clean)]
        raise DatasetError(
            f"pair {pair.name!r}: {str(pair.rainy)!r} is {sizes[0]}, "
            f"{str(pair.clean)!r} is {sizes[1]}; a pair must have one size"
        )
    return rainy, clean


def _both(pair: Pair) -> tuple[Pixels, Pixels]:
    rainy = read_pixels(pair.rainy)
    if not pair.rainy_half:
        return rainy, read_pixels(pair.clean)
    middle, odd = divmod(rainy.shape[1], 2)
    if odd:
        raise DatasetError(f"{str(pair.rainy)!r} is {rainy.shape[1]} pixels wide: no two halves")
    left, right = rainy[:, :middle], rainy[:, middle:]
    return (left, right) if pair.rainy_half == "left" else (right, left)


class ImageCache:
    """What was read last stays; what was not used for longest goes. For several threads."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self._limit, self._held = limit, 0
        self._images: OrderedDict[Hashable, tuple[Pixels, ...]] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def of_gibibytes(cls, size: float) -> "ImageCache":
        """A cache of the size that `--cache` states."""
        return cls(int(size * 2**30))

    def pixels(self, path: Path) -> Pixels:
        """`(height, width, 3)` of an image; see `read_pixels`."""
        return self.keep(path, lambda: (read_pixels(path),))[0]

    def pair(self, pair: Pair) -> tuple[Pixels, Pixels]:
        """Rainy and clean pixels; see `read_pair`."""
        if pair.rainy_half:
            rainy, clean = self.keep(pair, lambda: read_pair(pair))
            return rainy, clean
        # One by one, because several rainy images may share their clean one.
        try:
            rainy, clean = self.pixels(pair.rainy), self.pixels(pair.clean)
        except DatasetError:
            return read_pair(pair)  # says which pair it is
        return (rainy, clean) if rainy.shape == clean.shape else read_pair(pair)

    def keep(self, key: Hashable, make: Callable[[], tuple[Pixels, ...]]) -> tuple[Pixels, ...]:
        """What is kept under the key, made now if it is not (any more)."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        made = make()
        with self._lock:
            if key not in self._images:
                self._images[key] = made
                self._held += _size(made)
            while self._held > self._limit and self._images:
                self._held -= _size(self._images.popitem(last=False)[1])
        return made

    @property
    def held(self) -> int:
        """Bytes in use."""
        return self._held


def _size(images: tuple[Pixels, ...]) -> int:
    return sum(image.nbytes for image in images)
