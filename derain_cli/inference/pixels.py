"""Between the levels of an image file and the floats of a network."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derain_cli.errors import UsageError
from derain_cli.inference.tiles import round_up

Pixels = NDArray[Any]  # (height, width, 3), uint8 or uint16
Levels = NDArray[np.float32]  # (batch, 3, height, width) in 0..1
Reader = Callable[[slice, slice], Levels]  # rows, columns -> (batch, 3, rows, columns)


def check_image(rainy: Pixels) -> None:
    """Refuse what is no image.

    Raises:
        UsageError: Not `(height, width, 3)` of uint8 or uint16, or empty.
    """
    if rainy.dtype not in (np.uint8, np.uint16) or rainy.ndim != 3 or rainy.shape[2] != 3:
        shape = "x".join(str(side) for side in rainy.shape)
        raise UsageError(
            f"an image must be height x width x 3 of uint8 or uint16, not {shape} of {rainy.dtype}"
        )
    if rainy.size == 0:
        raise UsageError(f"an image of {rainy.shape[1]}x{rainy.shape[0]} pixels has nothing in it")


def pixel_reader(rainy: Pixels) -> Reader:
    """Reads parts of an image as a batch of one."""
    levels = np.float32(np.iinfo(rainy.dtype).max)

    def read(rows: slice, columns: slice) -> Levels:
        part = rainy[rows, columns].astype(np.float32, order="C")
        part /= levels
        return part.transpose(2, 0, 1)[None]

    return read


def level_reader(rainy: Levels) -> Reader:
    """Reads parts of images that are floats already."""
    return lambda rows, columns: rainy[..., rows, columns].astype(np.float32)


def write_pixels(derained: Levels, pixels: Pixels) -> None:
    """`(1, 3, rows, width)` in 0..1 to the nearest level of `pixels`, `(rows, width, 3)`."""
    derained *= np.float32(np.iinfo(pixels.dtype).max)
    np.rint(derained, out=derained)
    np.copyto(pixels, derained[0].transpose(1, 2, 0), casting="unsafe")


def blended(rainy: Levels, derained: Levels, strength: float) -> Levels:
    """Between the rainy levels at strength 0 and the derained ones at 1, both exact.

    Example:
        >>> rainy = np.full((1, 3, 1, 1), 0.25, np.float32)
        >>> float(blended(rainy, rainy + 0.5, 0.5)[0, 0, 0, 0])
        0.5
    """
    if strength == 1:
        return derained
    return rainy + np.float32(strength) * (derained - rainy)


def pad_to_multiple(image: Levels, multiple: int) -> Levels:
    """The image grown at the bottom and right by mirrored pixels, as `sizes.pad_to_multiple`.

    Example:
        >>> pad_to_multiple(np.zeros((1, 3, 5, 9), np.float32), 4).shape
        (1, 3, 8, 12)
    """
    for axis in (2, 3):
        side = image.shape[axis]
        amount = round_up(side, multiple) - side
        if amount:
            widths = [(0, amount if other == axis else 0) for other in range(4)]
            image = np.pad(image, widths, mode="reflect" if amount < side else "edge")
    return image


def is_finite(values: Levels) -> bool:
    """Whether no value is NaN or infinite."""
    with np.errstate(all="ignore"):
        return math.isfinite(float(values.sum()))  # one pass: they survive a sum
