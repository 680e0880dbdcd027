"""Before, after, and after the old weights, side by side, to look at with the eyes.

`python tests/benchmarks/look.py -m NEW -m OLD --real FOLDER --dry FOLDER --out SHEETS`

Evenly spaced photos of each folder; a row is the photo, then each model's result. `real-N.png` and
`dry-N.png` hold ten rows each. Photos taller than `--height` are shown smaller, after they went
through the networks at full size, unless `--largest` limits that. For each photo and model a line
says what changed: share of pixels brightened by more than 15 levels, and mean change of tone.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.layouts import list_images
from derain_cli.images import Picture, encode_image
from derain_cli.inference.derainer import Derainer
from derain_cli.whole_files import write_whole

ROWS = 10
Pixels = NDArray[np.uint8]


def main() -> None:
    """Write the sheets, print what changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--real", type=Path, help="folder of rainy photos")
    parser.add_argument("--dry", type=Path, help="folder of dry photos")
    parser.add_argument("--reals", type=int, default=30)
    parser.add_argument("--drys", type=int, default=10)
    parser.add_argument("--height", type=int, default=360, help="of a row, pixels")
    parser.add_argument("--largest", type=int, default=0, help="longest side; 0 = any")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    networks = [Derainer.load(name, threads=arguments.threads) for name in arguments.model]
    parts = (("real", arguments.real, arguments.reals), ("dry", arguments.dry, arguments.drys))
    for title, folder, count in parts:
        paths = chosen(folder, count) if folder else []
        for first in range(0, len(paths), ROWS):
            rows = [
                row_of(path, networks, arguments.model, arguments.height, arguments.largest)
                for path in paths[first : first + ROWS]
            ]
            write_sheet(arguments.out / f"{title}-{first // ROWS}.png", rows)


def chosen(folder: Path, count: int) -> list[Path]:
    """Evenly spaced images of a folder: none is picked by its result."""
    paths = list_images(folder)
    count = min(count, len(paths))
    return [paths[index * len(paths) // count] for index in range(count)]


def row_of(
    path: Path, networks: list[Derainer], names: list[str], height: int, largest: int
) -> Pixels:
    """The photo and every result side by side, at most `height` high."""
    photo = read_pixels(path)
    if largest and max(photo.shape[:2]) > largest:
        photo = shrunk(photo, largest / max(photo.shape[:2]))
    shown = [photo]
    for name, network in zip(names, networks, strict=True):
        derained = network(photo)
        change = derained.astype(np.int16) - photo
        brightened = 100 * np.mean((change > 15).any(axis=2))
        tone = abs(float(change.mean()))
        line = f"{path.name:28} {name[-24:]:24} brightened {brightened:6.3f} %, tone {tone:.2f}"
        sys.stdout.write(line + "\n")
        shown.append(derained)
    scale = min(1.0, height / photo.shape[0])
    return np.concatenate([shrunk(image, scale) for image in shown], axis=1)


def shrunk(image: Pixels, scale: float) -> Pixels:
    """The image at a scale of at most 1."""
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_sheet(path: Path, rows: list[Pixels]) -> None:
    """The rows under each other, filled up with white."""
    width = max(row.shape[1] for row in rows)
    sheet = [
        np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    write_whole(path, encode_image(Picture(np.concatenate(sheet, axis=0))))


if __name__ == "__main__":
    main()
