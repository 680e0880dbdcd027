"""Rain found at several sizes of an image, for streaks wider than a network has seen.

Networks are trained on streaks of a few pixels; in a large photo they can be ten wide. Shrunk to
half or a quarter they look familiar again. What a network finds there is enlarged and subtracted
from the image, of which the fine detail stays, and the next finer size sees what is left.

Everything is read part by part, as tiles ask for it, and each part is the same wherever it begins:
tiles equal the whole image here as well.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from derain_cli.errors import UsageError
from derain_cli.inference.pixels import Levels, Reader

# The largest shrinking, and the sizes at which rain is then found, the coarsest first.
SIZES = {1: (1,), 2: (2, 1), 4: (4, 2, 1)}
# Least width of streaks, in pixels, for which a shrinking is worth it. Chosen on eight pairs of
# Rain100L's training set (`tests/benchmarks/scales.py --choose`): there streaks are 1.8 to 2.7
# wide, and coarse sizes only lose detail; enlarged twice they are 3 to 5.3 wide, and half the size
# helps as often as it harms; enlarged four times they are 5.2 to 7.7 wide, and it helps each.
WIDTHS = ((4, 9.0), (2, 4.5))
# A layer in which less than this share of the pixels shows holds no rain whose width can be told.
LEAST_SHARE = 0.02
SHOWS = 6 / 255  # as in `batch.rain`
ROWS_AT_ONCE = 512
# Sides of the squares by which widths are told. What is wider than a block is a change of tone.
SQUARES, BLOCK = (1, 2, 4, 8, 16, 32), 64

Layer = NDArray[np.float16]  # (batch, height, width, 3), rainy - derained at some size


def check_scales(scales: int | str) -> int | str:
    """The scales themselves.

    Raises:
        UsageError: Neither a key of `SIZES` nor "auto".
    """
    if scales != "auto" and scales not in SIZES:
        raise UsageError(f"scales must be 1, 2, 4 or auto, not {scales}")
    return scales


def share_of_work(scale: int, sizes: Sequence[int]) -> float:
    """The pixels at one size, as a share of those at all.

    Example:
        >>> [round(share_of_work(scale, (4, 2, 1)), 3) for scale in (4, 2, 1)]
        [0.048, 0.19, 0.762]
    """
    return scale**-2 / sum(size**-2 for size in sizes)


def shrunken(read: Reader, scale: int, size: tuple[int, int]) -> Reader:
    """Reads parts of an image whose pixels are the means of squares of the given one.

    Args:
        read: Reads the image.
        scale: Side of a square. At the bottom and right, squares that are not whole count as if
            the last row and column went on.
        size: Height and width of the given image.
    """
    height, width = size

    def read_shrunken(rows: slice, columns: slice) -> Levels:
        part = read(_scaled_up(rows, scale, height), _scaled_up(columns, scale, width))
        missing = [-side % scale for side in part.shape[2:]]
        if any(missing):
            part = np.pad(part, ((0, 0), (0, 0), *((0, more) for more in missing)), mode="edge")
        squares = (part[..., y::scale, x::scale] for y in range(scale) for x in range(scale))
        total: Levels = np.add.reduce(list(squares))
        return total * np.float32(scale**-2)

    return read_shrunken


def _scaled_up(part: slice, scale: int, length: int) -> slice:
    start, stop, _ = part.indices(-(-length // scale))
    return slice(start * scale, min(stop * scale, length))


def without_rain(read: Reader, layer: Layer, scale: int, size: tuple[int, int]) -> Reader:
    """Reads parts of an image from which a layer of rain, found at a smaller size, is subtracted.

    Args:
        read: Reads the image.
        layer: The rain in the shrunken image.
        scale: By which that was shrunken.
        size: Height and width of the image.
    """
    height, width = size

    def read_without(rows: slice, columns: slice) -> Levels:
        part = read(rows, columns)
        rain = enlarged(layer, scale, slice(*rows.indices(height)), slice(*columns.indices(width)))
        left: Levels = np.clip(part - rain.transpose(0, 3, 1, 2), 0, 1)
        return left

    return read_without


def enlarged(layer: Layer, scale: int, rows: slice, columns: slice) -> Levels:
    """Part of a layer at the image's size, `(batch, rows, columns, 3)`, linear between pixels.

    Example:
        >>> layer = np.array([0, 1], np.float16).reshape(1, 1, 2, 1)
        >>> enlarged(layer, 2, slice(0, 1), slice(0, 4))[0, 0, :, 0].tolist()
        [0.0, 0.25, 0.75, 1.0]
    """
    before, after, share = _neighbours(rows, scale, layer.shape[1])
    share = share[:, None, None]
    needed = slice(columns.start // scale - 1, -(-columns.stop // scale) + 1)
    first = max(needed.start, 0)
    kept = layer[:, :, first : needed.stop]
    along = kept[:, before] * (1 - share) + kept[:, after] * share
    before, after, share = _neighbours(columns, scale, layer.shape[2])
    share = share[:, None]
    part = along[:, :, before - first] * (1 - share) + along[:, :, after - first] * share
    return part.astype(np.float32, copy=False)


def _neighbours(
    pixels: slice, scale: int, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], Levels]:
    """For each pixel of an enlarged side its two neighbours, and how much the second counts."""
    place = (np.arange(pixels.start, pixels.stop) + 0.5) / scale - 0.5
    before = np.floor(place).astype(np.intp)
    after = np.clip(before + 1, 0, length - 1)
    return np.clip(before, 0, length - 1), after, (place - before).astype(np.float32)


def turned_reader(read: Reader) -> Reader:
    """Reads an image whose rows are the given one's columns."""
    return lambda rows, columns: read(columns, rows).swapaxes(-1, -2)


def fitting_scales(width: float) -> int:
    """The shrinking that brings streaks of a width to one that networks know.

    Example:
        >>> [fitting_scales(width) for width in (2, 5, 10)]
        [1, 2, 4]
    """
    return next((scale for scale, least in WIDTHS if width >= least), 1)


def streak_width(rainy: Reader, derained: Reader, height: int) -> float:
    """Width of the streaks that were taken out of an image, in pixels; 0 where hardly any were.

    Means of squares keep the energy of what is wider than the squares. A streak keeps half of it in
    squares twice as wide as itself, however long it is and wherever it leans. Changes of tone, and
    what does not show, are left out.

    Args:
        rainy: Reads the image, a batch of one.
        derained: Reads the result.
        height: Of the image.
    """
    energies = np.zeros(len(SQUARES))
    shown = pixels = 0
    for top in range(0, height, ROWS_AT_ONCE):
        rows = slice(top, min(top + ROWS_AT_ONCE, height))
        layer = (rainy(rows, slice(None)) - derained(rows, slice(None)))[0].mean(axis=0)
        layer -= _spread(_square_means(layer, BLOCK), BLOCK, layer.shape)
        shown += int((np.abs(layer) > SHOWS).sum())
        pixels += layer.size
        energies += [_energy(layer, side) for side in SQUARES]
    if shown < LEAST_SHARE * pixels:
        return 0.0
    kept = energies / energies[0]
    # Where the kept share falls through a half, between two sides of squares.
    last = int(np.argmax(kept < 0.5)) or len(SQUARES) - 1
    sides = np.log2(SQUARES[last - 1 : last + 1])
    crossed = np.interp(0.5, kept[[last, last - 1]], sides[::-1])
    return float(2**crossed / 2)


def _energy(layer: Levels, side: int) -> float:
    means = _square_means(layer, side)
    return float(np.square(means).sum(dtype=np.float64)) * side**2


def _square_means(layer: Levels, side: int) -> Levels:
    """Means of squares; those at the bottom and right may be parts of one."""
    starts = [np.arange(0, length, side) for length in layer.shape]
    sums = np.add.reduceat(np.add.reduceat(layer, starts[0], axis=0), starts[1], axis=1)
    rows, columns = (
        np.minimum(side, length - start) for length, start in zip(layer.shape, starts, strict=True)
    )
    means: Levels = sums / (rows[:, None] * columns).astype(np.float32)
    return means


def _spread(means: Levels, side: int, shape: tuple[int, ...]) -> Levels:
    """Each mean in all pixels of its square."""
    return means.repeat(side, axis=0)[: shape[0]].repeat(side, axis=1)[:, : shape[1]]
