"""The images that are written beside the derained one: the rain, and the comparison."""

import dataclasses

import numpy as np

from derain_cli.images import Picture


def rain_layer(rainy: np.ndarray, derained: np.ndarray) -> np.ndarray:
    """What rain added to the image: rainy - derained, 0 where the network brightened.

    Example:
        >>> rain_layer(np.uint8([200, 10]), np.uint8([150, 30]))
        array([50,  0], dtype=uint8)
    """
    layer: np.ndarray = np.maximum(rainy, derained) - derained
    return layer


def side_by_side(rainy: Picture, derained: Picture) -> Picture:
    """One image of twice the width: rainy on the left, derained on the right."""
    alpha = None if rainy.alpha is None else np.hstack([rainy.alpha, rainy.alpha])
    return dataclasses.replace(derained, rgb=np.hstack([rainy.rgb, derained.rgb]), alpha=alpha)
