"""E_R and E_B: is the rain gone, and is the background unharmed? Two scores instead of one PSNR.

Paper: J. Gu, X. Ma, X. Kong, Y. Qiao, C. Dong, "Networks are Slacking Off: Understanding
Generalization Problem in Image Deraining", NeurIPS 2023, section 2.2.

========================  ===============================================================
paper                     here
========================  ===============================================================
O, B, R, tilde O          `rainy`, `clean`, rain = `rainy - clean`, `derained`
M = (R > t)               the rain mask, `threshold` t
E_R                       `RegionErrors.e_r`: how much was changed where it rains
E_B                       `RegionErrors.e_b`: what was damaged where it does not
========================  ===============================================================
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derain_cli.errors import UsageError
from derain_cli.metrics.full_reference import DATA_RANGE, Pixels, require_images

DEFAULT_THRESHOLD = 10


@dataclass(frozen=True)
class RegionErrors:
    """Errors of one derained image, in 0..255 units.

    Attributes:
        e_r: RMS of (derained - rainy) in the rain: near 0 when the rain was left alone, near
            `e_r_ceiling` when it was removed. Far above the ceiling, more than rain was removed.
        e_b: RMS of (derained - clean) outside the rain: lower is better.
        e_r_ceiling: E_R of a perfect result, the RMS of the rain itself. E_R means little without.
        rain_share: Share of the image's pixels that are rain, 0..1.

    Numbers of an empty region (no rain at all, or nothing but rain) are NaN: leave those images
    out of that number's mean.
    """

    e_r: float
    e_b: float
    e_r_ceiling: float
    rain_share: float


def region_errors(
    derained: Pixels, rainy: Pixels, clean: Pixels, threshold: float = DEFAULT_THRESHOLD
) -> RegionErrors:
    """E_R and E_B of a derained image, with the E_R that a perfect result would reach.

    Args:
        derained: `(height, width, 3)` uint8.
        rainy: What was derained, same shape and type.
        clean: The ground truth, same shape and type.
        threshold: A pixel is rain if rainy - clean is above this (0..255).

    Raises:
        ImageError: The images differ in size, or are not 8-bit RGB.
        UsageError: A threshold outside 0..254.

    Example:
        >>> clean = np.zeros((4, 4, 3), np.uint8)
        >>> rainy = clean.copy()
        >>> rainy[:, 0] = 40
        >>> region_errors(clean + np.uint8(4), rainy, clean)
        RegionErrors(e_r=36.0, e_b=4.0, e_r_ceiling=40.0, rain_share=0.25)
    """
    require_images(derained=derained, rainy=rainy, clean=clean)
    mask = rain_mask(rainy, clean, threshold)
    # Paper: E[(masked difference)^2] could be read as a mean over the whole image. We take it
    # over masked pixels: only so can a result on Rain100L reach the 26-53 of its Table 2.
    return RegionErrors(
        e_r=_rms(derained, rainy, mask),
        e_b=_rms(derained, clean, ~mask),
        e_r_ceiling=_rms(clean, rainy, mask),
        rain_share=float(mask.mean()),
    )


def rain_mask(
    rainy: Pixels, clean: Pixels, threshold: float = DEFAULT_THRESHOLD
) -> npt.NDArray[np.bool_]:
    """Pixels where it rains: M of the paper, `(height, width)`.

    Args:
        rainy: `(height, width, 3)` uint8.
        clean: The ground truth, same shape and type.
        threshold: A pixel is rain if rainy - clean is above this in any channel.

    Raises:
        ImageError: The images differ in size, or are not 8-bit RGB.
        UsageError: A threshold outside 0..254.

    Example:
        >>> clean = np.array([[[250, 20, 20], [50, 50, 50]]], np.uint8)
        >>> rainy = np.array([[[255, 60, 60], [55, 55, 55]]], np.uint8)
        >>> rain_mask(rainy, clean)
        array([[ True, False]])
    """
    require_images(rainy=rainy, clean=clean)
    if not 0 <= threshold < DATA_RANGE:
        raise UsageError(
            f"rain threshold {threshold!r} must be in 0..{DATA_RANGE - 1}; the paper's errors are "
            f"reported at {DEFAULT_THRESHOLD}"
        )
    # Paper: one grey rain layer, added to all channels and clipped. Clipping hides rain where a
    # channel is bright, so the channel that grew most is the best witness of that layer.
    grown: npt.NDArray[np.int16] = rainy.astype(np.int16) - clean
    mask: npt.NDArray[np.bool_] = grown.max(axis=2) > threshold
    return mask


def _rms(first: Pixels, second: Pixels, mask: npt.NDArray[np.bool_]) -> float:
    """Root of the mean squared difference over all channels of the masked pixels."""
    if not mask.any():
        return math.nan
    difference = first[mask].astype(np.int32) - second[mask]
    return math.sqrt(np.square(difference).mean())
