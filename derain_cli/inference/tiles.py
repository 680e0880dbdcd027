"""Where the tiles of an image lie, and how much each of their pixels counts.

All tiles of an image have one shape and start at multiples of what the network's down-sampling
needs, so that nothing is planned twice and the grids of tile and image agree. Of the overlap of
neighbours only the middle is blended: the rim of a tile saw the tile's border, not the image.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FEATHER = 16  # pixels over which one tile passes into the next


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one side of an image, and how much each of their pixels counts.

    Attributes:
        tile: Length of every tile.
        starts: First pixel of each tile, multiples of the network's padding multiple.
        weights: `(tiles, tile)` in 0..1; at every pixel of the side they add up to 1.
    """

    tile: int
    starts: tuple[int, ...]
    weights: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.starts)

    @property
    def padded(self) -> int:
        """Length of the side once it is grown to the padding multiple."""
        return self.starts[-1] + self.tile


def plan_axis(length: int, tile: int, overlap: int, multiple: int) -> Axis:
    """As few tiles as cover a side, of equal length and evenly spread.

    Args:
        length: Pixels of the side.
        tile: Longest tile, a multiple of `multiple`; 0 for one tile.
        overlap: Least overlap of neighbours, a multiple of `multiple`, at most half of `tile`.
        multiple: Starts and lengths are multiples of this.

    Example:
        >>> axis = plan_axis(1000, tile=512, overlap=96, multiple=16)
        >>> axis.tile, axis.starts
        (400, (0, 304, 608))
    """
    # The grid of the network's lowest level must be the same in the tile and in the image.
    padded = round_up(length, multiple)
    if not tile or padded <= tile:
        return Axis(padded, (0,), np.ones((1, padded), np.float32))
    count = math.ceil((padded - overlap) / (tile - overlap))
    # Equal tiles no longer than needed: the last one would otherwise be mostly overlap.
    tile = round_up(math.ceil((padded + (count - 1) * overlap) / count), multiple)
    steps = (index * (padded - tile) / (count - 1) for index in range(count))
    starts = tuple(round_down(int(step), multiple) for step in steps)
    return Axis(tile, starts, feather(starts, tile, min(FEATHER, overlap // 2)))


def cheapest_tiles(
    size: tuple[int, int],
    overlap: int,
    multiple: int,
    fits: Callable[[int, int], bool],
) -> tuple[int, int] | None:
    """Height and width of the tiles that compute the fewest pixels of those that fit.

    Neighbours compute their overlap twice, so few large tiles are cheaper than many small ones, and
    oblong ones may fit where square ones of fewer cuts do not.

    Args:
        size: Height and width of the image.
        overlap: Least overlap of neighbours, a multiple of `multiple`.
        multiple: Sides are multiples of this.
        fits: Whether a tile of a height and width fits; a smaller one then fits as well.

    Returns:
        None where not even tiles of twice the overlap fit.

    Example:
        >>> cheapest_tiles((4000, 6000), 224, 16, lambda height, width: height * width < 3e6)
        (2112, 1392)
    """
    heights, widths = (list(_lengths(side, overlap, multiple)) for side in size)
    best: tuple[int, int, int] | None = None
    for rows, height in heights:
        # The fewest columns that fit are the cheapest for this number of rows.
        fitting = next(((n, width) for n, width in widths if fits(height, width)), None)
        if fitting is None:
            continue
        columns, width = fitting
        computed = rows * height * columns * width
        if best is None or computed < best[0]:
            best = computed, height, width
    return best and best[1:]


def _lengths(side: int, overlap: int, multiple: int) -> Iterator[tuple[int, int]]:
    """(tiles, their length) along a side, from one tile to tiles of twice the overlap."""
    padded = round_up(side, multiple)
    shortest = max(2 * overlap, multiple)
    count = 1
    while True:
        length = round_up(math.ceil((padded + (count - 1) * overlap) / count), multiple)
        if count > 1 and length < shortest:
            return
        yield count, length
        if length <= max(overlap, multiple):
            return
        count += 1


def feather(starts: Sequence[int], tile: int, width: int) -> NDArray[np.float32]:
    """Weights `(tiles, tile)` that pass from each tile to the next in the middle of their overlap.

    Args:
        starts: First pixel of each tile.
        tile: Length of a tile.
        width: Pixels over which the weight falls from 1 to 0.

    Example:
        >>> feather((0, 4), tile=8, width=2)
        array([[1.  , 1.  , 1.  , 1.  , 1.  , 0.75, 0.25, 0.  ],
               [0.  , 0.25, 0.75, 1.  , 1.  , 1.  , 1.  , 1.  ]], dtype=float32)
    """
    weights = np.ones((len(starts), tile), np.float32)
    pixels = np.arange(tile, dtype=np.float32) + np.float32(0.5)
    for index, (left, right) in enumerate(pairwise(starts)):
        # In the middle both tiles are farthest from their borders, beyond which they see nothing.
        middle = (right + left + tile) / 2
        rise = np.clip((right + pixels - middle) / max(width, 1) + 0.5, 0, 1)
        weights[index + 1] *= rise
        fall = np.clip((left + pixels - middle) / max(width, 1) + 0.5, 0, 1)
        weights[index] *= 1 - fall
    return weights


def round_down(value: int, multiple: int) -> int:
    """Largest multiple that is not above the value."""
    return value // multiple * multiple


def round_up(value: int, multiple: int) -> int:
    """Least multiple that is not below the value (as in `sizes`, which loads torch)."""
    return -(-value // multiple) * multiple
