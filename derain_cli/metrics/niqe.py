"""NIQE: how unnatural an image looks, without a clean one to compare; lower is better.

Paper: A. Mittal, R. Soundararajan, A. C. Bovik, "Making a 'Completely Blind' Image Quality
Analyzer", IEEE Signal Processing Letters 2013. Written from the paper.

========================  ===============================================================
paper                     here
========================  ===============================================================
MSCN coefficients         `_normalised`: luma minus its local mean, over its local deviation
GGD, AGGD                 `_fit_ggd`, `_fit_aggd`: fits by matched moments, one row per patch
18 features, 2 scales     `_features_of_scale`, `_patch_features`: 36 numbers per patch
nu, Sigma                 `NiqeModel.mean`, `NiqeModel.covariance`
T = 0.75                  `SHARPNESS`: share of the sharpest patch's sharpness that a patch of a
                          pristine photo needs to count in the fit
========================  ===============================================================

**The bundled model** `niqe_model.safetensors` is our own fit: mean and covariance (36 + 36 x 36
float32 numbers) of the sharp patches of 209 clean photos from the train and validation part of the
Berkeley Segmentation Data Set BSDS500, none of them in Rain100 or the DDN-SIRR test set. The photos
are published for non-commercial research and are not part of this repository; the file holds
statistics only, no pixel of a photo and nothing of the authors' release, and carries this
repository's licence. Scores depend on the fit: compare them with scores of this model, never with
printed ones.

Refit it on a folder of clean photos:

    from pathlib import Path
    from derain_cli import read_image
    from derain_cli.metrics.niqe import fit_niqe_model, save_niqe_model

    photos = (read_image(path).rgb for path in sorted(Path("bsds_clean").glob("*.jpg")))
    model = fit_niqe_model(photos)
    save_niqe_model(model, Path("niqe_model.safetensors"), "209 photos of BSDS500")
"""

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from derain_cli.errors import CheckpointError, ImageError
from derain_cli.metrics.full_reference import Pixels, Planes, full_range_luma, require_images

PATCH = 96
SCALES = 2
FEATURES = 18 * SCALES
SHARPNESS = 0.75
WINDOW = 7
SIGMA = 7 / 6
BUNDLED_MODEL = Path(__file__).with_name("niqe_model.safetensors")
# Neighbours (down, right) whose products are the paper's horizontal, vertical and diagonal ones.
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """Gaussian of the features of natural photos.

    Attributes:
        mean: `(36,)` float64: nu of the paper.
        covariance: `(36, 36)` float64: Sigma of the paper.
    """

    mean: Rows
    covariance: Rows


def niqe(image: Pixels, model: NiqeModel | None = None) -> float:
    """Distance of an image's features from those of natural photos ; lower is better.

    Args:
        image: `(height, width, 3)` uint8, at least 96 pixels on each side. What is left over at
            the right and the bottom beyond whole patches of 96 pixels is not looked at.
        model: What natural photos look like; the bundled model by default.

    Returns:
        3.2 in the mean for the clean photos of Rain100 (standard deviation 0.9), more for worse
        images; NaN for one without any detail (a flat image has no statistics).

    Raises:
        ImageError: Too small, or not 8-bit RGB.
        CheckpointError: The bundled model is missing or damaged.
    """
    model = load_niqe_model() if model is None else model
    features, _ = _patch_features(image)
    if not len(features):
        return math.nan
    difference = model.mean - features.mean(axis=0)
    # One patch alone has no spread; the model's own covariance then stands for both.
    spread = np.cov(features, rowvar=False) if len(features) > 1 else model.covariance
    precision = np.linalg.pinv((model.covariance + spread) / 2, hermitian=True)
    return math.sqrt(max(float(difference @ precision @ difference), 0.0))


def fit_niqe_model(images: Iterable[Pixels]) -> NiqeModel:
    """Model of natural photos, from the sharp patches of clean ones.

    Args:
        images: `(height, width, 3)` uint8 each, at least 96 pixels on each side. One is held in
            memory at a time. A hundred photos of many motifs are enough.

    Raises:
        ImageError: An image is too small or not 8-bit RGB, or all together have too few sharp
            patches for a covariance of 36 features.
    """
    rows = []
    for image in images:
        features, sharpness = _patch_features(image)
        rows.append(features[sharpness > SHARPNESS * sharpness.max(initial=0.0)])
    sharp = np.concatenate(rows) if rows else np.empty((0, FEATURES))
    if len(sharp) <= FEATURES:
        raise ImageError(
            f"{len(sharp)} sharp patches in {len(rows)} images cannot fix {FEATURES} features; "
            "give more or larger images"
        )
    return NiqeModel(sharp.mean(axis=0), np.cov(sharp, rowvar=False))


def save_niqe_model(model: NiqeModel, path: Path, fitted_on: str) -> None:
    """Write a model as float32 safetensors (5 KB), with a word on the photos it was fitted on."""
    tensors = {"mean": model.mean, "covariance": model.covariance}
    save_file(
        {name: rows.astype(np.float32) for name, rows in tensors.items()},
        path,
        metadata={"model": "niqe", "fitted_on": fitted_on},
    )


@functools.cache
def load_niqe_model(path: Path = BUNDLED_MODEL) -> NiqeModel:
    """A model that `save_niqe_model` wrote; the bundled one by default.

    Raises:
        CheckpointError: No such file, or not a NIQE model.
    """
    try:
        tensors = load_file(path)
        mean, covariance = tensors["mean"], tensors["covariance"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(
            f"no NIQE model in {str(path)!r} ({error}); reinstall derain-cli, or fit a model with "
            "derain_cli.metrics.niqe.fit_niqe_model"
        ) from error
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise CheckpointError(
            f"NIQE model {str(path)!r} has {mean.shape} and {covariance.shape} numbers, "
            f"expected {(FEATURES,)} and {(FEATURES, FEATURES)}"
        )
    return NiqeModel(mean.astype(np.float64), covariance.astype(np.float64))


def _patch_features(image: Pixels) -> tuple[Rows, Rows]:
    """Features `(patches, 36)` and sharpness `(patches,)` of all patches that have detail."""
    require_images(scored=image)
    height, width = (side // PATCH * PATCH for side in image.shape[:2])
    if not height or not width:
        raise ImageError(
            f"NIQE needs {PATCH}x{PATCH} pixels or more, got {image.shape[1]}x{image.shape[0]}"
        )
    plane = full_range_luma(image[:height, :width])
    columns = []
    for scale in range(SCALES):
        side = PATCH >> scale
        if scale:
            plane = np.asarray(
                cv2.resize(plane, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            )
        normalised, deviation = _normalised(plane)
        if not scale:
            sharpness = _patches(deviation, side).mean(axis=(1, 2))
        columns.append(_features_of_scale(_patches(normalised, side)))
    features = np.concatenate(columns, axis=1)
    detailed = np.isfinite(features).all(axis=1)
    return features[detailed], sharpness[detailed]


def _normalised(plane: Planes) -> tuple[Planes, Planes]:
    """MSCN coefficients and the local deviation sigma, both of the plane's shape."""
    kernel = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    kernel /= kernel.sum()
    mean, mean_square = (
        np.asarray(cv2.sepFilter2D(x, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_REPLICATE))
        for x in (plane, plane * plane)
    )
    deviation = np.sqrt(np.abs(mean_square - mean * mean))
    return (plane - mean) / (deviation + 1), deviation


def _patches(plane: Planes, side: int) -> Rows:
    """`(patches, side, side)`: the plane cut into squares that do not overlap."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    squares = plane.reshape(rows, side, columns, side).swapaxes(1, 2)
    return squares.reshape(rows * columns, side, side)


def _features_of_scale(patches: Rows) -> Rows:
    """18 features per patch: 2 of the coefficients, 4 of each of the four neighbour products."""
    side = patches.shape[1]
    columns = [*_fit_ggd(patches)]
    for down, right in NEIGHBOURS:
        first = patches[:, : side - down, max(-right, 0) : side - max(right, 0)]
        second = patches[:, down:, max(right, 0) : side + min(right, 0)]
        columns += _fit_aggd(first * second)
    return np.stack(columns, axis=1)


def _fit_ggd(values: Rows) -> tuple[Rows, Rows]:
    """Shape and scale of a generalised Gaussian around 0, each `(patches,)`.

    Args:
        values: `(patches, height, width)`. A flat patch, all zeros, has no distribution: NaN.
    """
    square = np.square(values).mean(axis=(1, 2))
    shape = _shape_of_ratio(_ratio(np.abs(values).mean(axis=(1, 2)) ** 2, square))
    return shape, np.sqrt(square) * _of_shape(shape).scale_per_deviation


def _fit_aggd(values: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Shape, mean, left and right scale of an asymmetric generalised Gaussian around 0.

    Args:
        values: `(patches, height, width)`. A patch without values on both sides of 0: NaN.
    """
    left, right = _one_sided_deviation(-values), _one_sided_deviation(values)
    skew = _ratio(left, right)
    moment_ratio = _ratio(
        np.abs(values).mean(axis=(1, 2)) ** 2, np.square(values).mean(axis=(1, 2))
    )
    # Dividing the asymmetry out leaves the moment ratio of a symmetric one of the same shape.
    shape = _shape_of_ratio(moment_ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2)
    known = _of_shape(shape)
    left, right = left * known.scale_per_deviation, right * known.scale_per_deviation
    return shape, (right - left) * known.mean_per_scale, left, right


def _one_sided_deviation(values: Rows) -> Rows:
    """RMS of the positive ones of `(patches, height, width)` values; NaN where there are none."""
    count = np.count_nonzero(values > 0, axis=(1, 2))
    return np.sqrt(_ratio(np.square(np.maximum(values, 0)).sum(axis=(1, 2)), count))


def _ratio(first: Rows, second: npt.NDArray[np.floating | np.integer]) -> Rows:
    """`first / second`, NaN instead of a division by zero."""
    nothing = np.full_like(first, np.nan)
    quotient: Rows = np.divide(first, second, out=nothing, where=second > 0)
    return quotient


class _ShapeTable(NamedTuple):
    """What a generalised Gaussian's shape determines, `(n,)` each, by rising shape."""

    shape: Rows
    moment_ratio: Rows
    scale_per_deviation: Rows
    mean_per_scale: Rows


@functools.cache
def _shape_table() -> _ShapeTable:
    """Table for shapes 0.2 ... 10, the range that is searched in; moment ratios rise with them."""
    shapes = np.linspace(0.2, 10, 9801)
    first, second, third = (
        np.array([math.lgamma(order / shape) for shape in shapes]) for order in (1, 2, 3)
    )
    return _ShapeTable(
        shapes,
        moment_ratio=np.exp(2 * second - first - third),
        scale_per_deviation=np.exp((first - third) / 2),
        mean_per_scale=np.exp(second - first),
    )


def _shape_of_ratio(moment_ratio: Rows) -> Rows:
    """Shape of the generalised Gaussian with (E|x|)^2 / E[x^2]; NaN stays NaN."""
    table = _shape_table()
    return np.interp(moment_ratio, table.moment_ratio, table.shape)


def _of_shape(shape: Rows) -> _ShapeTable:
    """The table's rows at the given shapes."""
    table = _shape_table()
    return _ShapeTable(*(np.interp(shape, table.shape, column) for column in table))
