"""A contact sheet: one row of photos per kind of rain."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.layouts import list_images
from derain_cli.errors import DatasetError
from derain_cli.images import Picture, encode_image
from derain_cli.rain.painting import RAIN_KINDS
from derain_cli.rain.scenes import build_scene
from derain_cli.rain.streaks import STREAK_KINDS
from derain_cli.whole_files import write_whole

Pixels = NDArray[np.uint8]

SIDE, LABEL = 240, 18
ALONE = (
    *(
        *RAIN_KINDS,
        *STREAK_KINDS,
        "veil+wide",
        "veil+dense",
        "veil+curtain",
        "veil+slanted",
        "veil+coarse",
        "phone+wide",
        "zoom+curtain",
    ),
    *("structures+wide", "structures"),
)
"""Kinds that work without a folder of layers."""


def draw_sheet(
    folder: Path,
    out: Path,
    kinds: Sequence[str] = ALONE,
    columns: int = 5,
    seed: int = 0,
    data_root: Path = Path(),
) -> None:
    """Write a PNG with one row per kind: its name, and different photos under different rain.

    Args:
        folder: Photos; a square of each is shown, at 240 pixels a side.
        out: The PNG, written whole or not at all.
        kinds: As in `rain.scenes`; a last part `dry` shows the photos as they are.
        columns: Photos per row.
        seed: The same seed draws the same sheet.
        data_root: Folder of the layers and data sets.

    Raises:
        ConfigError: An unknown kind.
        DatasetError: No photos, or one that cannot be read.
        ResourceError: No space or no permission.
    """
    paths = list_images(folder)
    if not paths:
        raise DatasetError(f"no images in {str(folder)!r}")
    rows = []
    for row, kind in enumerate(kinds):
        scene = build_scene(kind, data_root, held_out=0, seed=seed)
        shown = []
        for column in range(columns):
            photo = _square(read_pixels(paths[(row * columns + column) % len(paths)]))
            shown.append(scene(photo, np.random.default_rng([seed, row, column]))[0])
        rows += [_label(kind, columns * SIDE), np.concatenate(shown, axis=1)]
    write_whole(out, encode_image(Picture(np.concatenate(rows, axis=0))))


def _square(photo: Pixels) -> Pixels:
    """The middle square, at the size of the sheet's photos."""
    side = min(photo.shape[:2])
    top, left = ((length - side) // 2 for length in photo.shape[:2])
    middle = photo[top : top + side, left : left + side]
    return np.asarray(cv2.resize(middle, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _label(text: str, width: int) -> Pixels:
    strip = np.full((LABEL, width, 3), 255, np.uint8)
    cv2.putText(strip, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return strip
