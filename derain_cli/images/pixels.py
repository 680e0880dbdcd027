"""Pixels: from a decoder to their upright place, and back to an encoder."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from derain_cli.images.picture import Picture

_BAND_PIXELS = 1 << 18  # rows are converted in bands of about this many pixels


class Canvas:
    """An upright image that is filled with rows in the order in which the file stores them.

    Args:
        size: Width and height as stored.
        depth: Bits per channel.
        alpha: Whether there is an alpha channel.
        orientation: EXIF orientation 1-8 of the stored rows.
    """

    def __init__(self, size: tuple[int, int], depth: int, *, alpha: bool, orientation: int) -> None:
        width, height = size
        shape = (width, height) if orientation >= 5 else (height, width)
        dtype = np.uint16 if depth == 16 else np.uint8
        self.rgb = np.empty((*shape, 3), dtype)
        self.alpha = np.empty(shape, dtype) if alpha else None
        self._stored_rgb = as_stored(self.rgb, orientation)
        self._stored_alpha = None if self.alpha is None else as_stored(self.alpha, orientation)

    @classmethod
    def of(cls, samples: np.ndarray, orientation: int) -> "Canvas":
        """A full one of stored samples `(height, width, 1 or 3)`."""
        height, width, channels = samples.shape
        if channels == 3 and orientation == 1:  # they are in place
            canvas = cls((0, 0), 8 * samples.itemsize, alpha=False, orientation=1)
            canvas.rgb = samples
            return canvas
        canvas = cls((width, height), 8 * samples.itemsize, alpha=False, orientation=orientation)
        canvas.fill(0, samples)
        return canvas

    def fill(self, top: int, samples: np.ndarray) -> None:
        """Put rows `(rows, width, channels)` (gray or RGB, alpha last if any) at row `top`."""
        rows = slice(top, top + len(samples))
        if self._stored_alpha is not None:
            self._stored_alpha[rows] = samples[..., -1]
            samples = samples[..., :-1]
        self._stored_rgb[rows] = samples


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """A view of upright pixels in the order in which a file of that EXIF orientation has them.

    Example:
        >>> as_stored(np.array([[1, 2, 3]]), 6)  # 6: the file lies on its left side
        array([[3],
               [2],
               [1]])
    """
    swapped = upright.swapaxes(0, 1) if orientation >= 5 else upright
    from_bottom = orientation in (3, 4, 6, 7)
    from_right = orientation in (2, 3, 7, 8)
    return swapped[:: -1 if from_bottom else 1, :: -1 if from_right else 1]


def bands(width: int, height: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 row of bands that cover the image."""
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Values as 8 bits, rounded to the nearest.

    Example:
        >>> _eight_bits(np.uint16([0, 128, 129, 65535]))
        array([  0,   0,   1, 255], dtype=uint8)
    """
    if values.dtype == np.uint8:
        return values
    reduced = np.empty(values.shape, np.uint8)
    rows = max(1, _BAND_PIXELS // max(1, values[:1].size))
    for top in range(0, len(values), rows):
        band = values[top : top + rows].astype(np.uint32)
        reduced[top : top + rows] = (band + 128) // 257
    return reduced


def _gray(rgb: np.ndarray) -> np.ndarray:
    """Luma `(height, width)` (BT.601 weights), exact where the three channels are equal.

    Example:
        >>> _gray(np.uint8([[[7, 7, 7], [255, 0, 0]]]))
        array([[ 7, 76]], dtype=uint8)
    """
    luma = np.empty(rgb.shape[:2], rgb.dtype)
    for top, bottom in bands(rgb.shape[1], rgb.shape[0]):
        band = rgb[top:bottom].astype(np.uint32)
        luma[top:bottom] = (band @ np.array([299, 587, 114], np.uint32) + 500) // 1000
    return luma


def samples_of(picture: Picture, alpha: np.ndarray | None) -> np.ndarray:
    """Gray or RGB, with alpha if any: `(height, width, 1-4)`."""
    colour = _gray(picture.rgb)[..., None] if picture.gray else picture.rgb
    return colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=2)


def pillow_image(picture: Picture, alpha: np.ndarray | None) -> Image.Image:
    """An 8-bit Pillow image of mode L, LA, RGB or RGBA."""
    rgb = _eight_bits(picture.rgb)
    image = Image.fromarray(_gray(rgb) if picture.gray else np.ascontiguousarray(rgb))
    if alpha is not None:
        image.putalpha(Image.fromarray(np.ascontiguousarray(_eight_bits(alpha))))
    return image


def saved_with_pillow(image: Image.Image, format: str, **options: object) -> bytes:
    """Content of the file that Pillow makes of an image; options that are None are left out."""
    buffer = io.BytesIO()
    image.save(
        buffer, format, **{key: value for key, value in options.items() if value is not None}
    )
    return buffer.getvalue()
