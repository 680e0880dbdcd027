"""Decoded pictures kept in memory, as many as a number of bytes allows."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets import Pair, read_pair, read_pixels

Pixels = NDArray[np.uint8]
DEFAULT_BYTES = 2 << 30


class PictureCache:
    """What was read last stays; what was not used for longest goes. For several threads."""

    def __init__(self, limit: int = DEFAULT_BYTES) -> None:
        self._limit, self._held = limit, 0
        self._pictures: OrderedDict[Hashable, tuple[Pixels, ...]] = OrderedDict()
        self._lock = Lock()

    def pixels(self, path: Path) -> Pixels:
        """`(height, width, 3)` of a picture; see `datasets.read_pixels`."""
        # Past that function's own cache, which counts pictures, not bytes.
        return self.keep(path, lambda: (read_pixels.__wrapped__(path),))[0]

    def pair(self, pair: Pair) -> tuple[Pixels, Pixels]:
        """Rainy and clean pixels; see `datasets.read_pair`."""
        if pair.rainy_half:
            rainy, clean = self.keep(pair, lambda: read_pair(pair, keep=False))
            return rainy, clean
        # One by one, because several rainy pictures may share their clean one.
        rainy, clean = self.pixels(pair.rainy), self.pixels(pair.clean)
        if rainy.shape != clean.shape:
            read_pair(pair, keep=False)  # says what is wrong
        return rainy, clean

    def keep(self, key: Hashable, make: Callable[[], tuple[Pixels, ...]]) -> tuple[Pixels, ...]:
        """What is kept under the key, made now if it is not (any more)."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        made = make()
        with self._lock:
            if key not in self._pictures:
                self._pictures[key] = made
                self._held += _size(made)
            while self._held > self._limit and self._pictures:
                self._held -= _size(self._pictures.popitem(last=False)[1])
        return made

    @property
    def held(self) -> int:
        """Bytes in use."""
        return self._held


def _size(pictures: tuple[Pixels, ...]) -> int:
    return sum(picture.nbytes for picture in pictures)
