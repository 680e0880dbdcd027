"""PSNR and SSIM of a derained image against the clean one, on a named protocol.

Papers: SSIM is Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment:
From Error Visibility to Structural Similarity", IEEE TIP 2004. Scores differ by whole decibels with
the numbers they are taken on, so a score belongs to a key of `PROTOCOLS`. Datasets are scored by
the mean of the images' scores, never by a pooled error.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from derain_cli.errors import ImageError, UsageError, did_you_mean

DATA_RANGE = 255
WINDOW = 11
SIGMA = 1.5
C1 = (0.01 * DATA_RANGE) ** 2
C2 = (0.03 * DATA_RANGE) ** 2

Pixels = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float64]


def luma(rgb: Pixels) -> Planes:
    """Limited-range luma Y (BT.601) as MATLAB's rgb2ycbcr gives it for an 8-bit image.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, rounded half up to whole numbers as the 8-bit
    MATLAB function does; without that rounding SSIM of Rain100L's input reads 0.8384, not 0.8382.

    Args:
        rgb: `(height, width, 3)` uint8.

    Returns:
        `(height, width)` whole numbers in 16..235.

    Example:
        >>> luma(np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8))
        array([[ 16., 235.,  81.]])
    """
    return _weighted(rgb, (65_481, 128_553, 24_966), 255_000) + 16


def full_range_luma(rgb: Pixels) -> Planes:
    """Full-range luma (BT.601, as in JPEG), rounded to whole numbers.

    Args:
        rgb: `(height, width, 3)` uint8.

    Returns:
        `(height, width)` whole numbers in 0..255.

    Example:
        >>> full_range_luma(np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0]]], np.uint8))
        array([[  0., 255.,  76.]])
    """
    return _weighted(rgb, (299, 587, 114), 1000)


def _weighted(rgb: Pixels, weights: tuple[int, int, int], divisor: int) -> Planes:
    # Whole numbers throughout: ties round the same way on every machine.
    red, green, blue = (rgb[..., i].astype(np.int32) * weights[i] for i in range(3))
    rounded: Planes = ((red + green + blue + divisor // 2) // divisor).astype(np.float64)
    return rounded


def _channels(rgb: Pixels) -> Planes:
    return rgb.astype(np.float64)


@dataclass(frozen=True)
class Protocol:
    """What numbers of an image are compared.

    Attributes:
        description: One line to print beside the scores.
        planes: Makes `(height, width)` or `(height, width, 3)` float64 of a uint8 RGB image.
    """

    description: str
    planes: Callable[[Pixels], Planes]


PROTOCOLS: Mapping[str, Protocol] = {
    "y": Protocol(
        "luma as MATLAB's rgb2ycbcr gives it (16..235), 8-bit; Rain100/200/1200/1400 papers", luma
    ),
    "y-full": Protocol("full-range luma (0..255), 8-bit", full_range_luma),
    "rgb": Protocol(
        "8-bit RGB: PSNR over all channels, SSIM as the channels' mean; MOSS, DDN-SIRR", _channels
    ),
}

DEFAULT_PROTOCOL = "y"


def psnr(derained: Pixels, clean: Pixels, protocol: str = DEFAULT_PROTOCOL) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 255; infinite for equal images.

    Args:
        derained: `(height, width, 3)` uint8.
        clean: The ground truth, same shape and type.
        protocol: A key of `PROTOCOLS`.

    Raises:
        ImageError: The images differ in size, or are not 8-bit RGB.
        UsageError: Unknown protocol.

    Example:
        >>> clean = np.zeros((16, 16, 3), np.uint8)
        >>> round(psnr(clean + np.uint8(255), clean, "rgb"), 3), psnr(clean, clean)
        (0.0, inf)
    """
    first, second = _comparable(derained, clean, protocol)
    error = float(np.mean(np.square(first - second)))
    return 10 * math.log10(DATA_RANGE**2 / error) if error else math.inf


def ssim(derained: Pixels, clean: Pixels, protocol: str = DEFAULT_PROTOCOL) -> float:
    """Mean structural similarity (eq. 13), 1 for equal images.

    11x11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, data range 255, only windows that lie
    wholly inside the image; three channels are scored apart and averaged.

    Args:
        derained: `(height, width, 3)` uint8, at least 11 pixels on each side.
        clean: The ground truth, same shape and type.
        protocol: A key of `PROTOCOLS`.

    Raises:
        ImageError: The images differ in size, are too small or not 8-bit RGB.
        UsageError: Unknown protocol.

    Example:
        >>> clean = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
        >>> round(ssim(clean, clean), 6), ssim(clean[::-1].copy(), clean) < 0.9
        (1.0, True)
    """
    first, second = _comparable(derained, clean, protocol)
    if min(first.shape[:2]) < WINDOW:
        raise ImageError(f"SSIM needs {WINDOW}x{WINDOW} pixels or more, got {_size(derained)}")
    # Both variances occur only as their sum, which saves one of five filter passes.
    mean_1, mean_2 = _window_mean(first), _window_mean(second)
    mean_product, mean_squares = mean_1 * mean_2, mean_1 * mean_1 + mean_2 * mean_2
    covariance = _window_mean(first * second) - mean_product
    variances = _window_mean(first * first + second * second) - mean_squares
    similarity = (2 * mean_product + C1) * (2 * covariance + C2)
    return float(np.mean(similarity / ((mean_squares + C1) * (variances + C2))))


def _window_mean(planes: Planes) -> Planes:
    """Gaussian-weighted mean of every window inside `(height, width[, channels])` planes."""
    kernel = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    kernel /= kernel.sum()
    edge = WINDOW // 2
    smooth = cv2.sepFilter2D(planes, cv2.CV_64F, kernel, kernel)
    return np.asarray(smooth, np.float64)[edge:-edge, edge:-edge]


def _comparable(derained: Pixels, clean: Pixels, protocol: str) -> tuple[Planes, Planes]:
    """The numbers that a protocol compares, of two images that can be compared."""
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}. {did_you_mean(protocol, PROTOCOLS)}")
    require_images(derained=derained, clean=clean)
    planes = PROTOCOLS[protocol].planes
    return planes(derained), planes(clean)


def require_images(**images: Pixels) -> None:
    """Refuse what cannot be scored: all of `images` must be 8-bit RGB of one size.

    Args:
        images: Pixels by the word that an error calls them.

    Raises:
        ImageError: Another type or shape, or two sizes; names both.
    """
    for name, pixels in images.items():
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ImageError(
                f"scores are defined on 8-bit RGB (height, width, 3), got a {name} image of "
                f"{pixels.dtype} {pixels.shape}; convert it first"
            )
    (first_name, first), *others = images.items()
    for name, pixels in others:
        if pixels.shape != first.shape:
            raise ImageError(
                f"{first_name} image is {_size(first)}, {name} image is {_size(pixels)}; "
                "a pair must have one size (nothing is resized)"
            )


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
