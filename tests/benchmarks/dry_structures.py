"""Dry images full of structure: `python tests/benchmarks/dry_structures.py -m WEIGHTS`.

The images are scikit-image's own photos and scans (free, in the `test` extra): joints of bricks,
printed text, coins, grass, gravel, a cat's fur and whiskers, a rocket's trusses, a page. None of
them is drawn by the generator of `rain.structures`, and none is trained on. Printed is the PSNR
(RGB) of each image to its own derained version, capped at 60 dB, then median, mean and worst.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from skimage import data

from derain_cli.inference.derainer import Derainer
from derain_cli.metrics.full_reference import psnr

IMAGES = (
    *("brick", "page", "text", "coins", "grass", "gravel", "chelsea", "rocket", "camera"),
    *("astronaut", "coffee", "clock", "moon", "colorwheel", "checkerboard", "logo"),
)
CAP = 60.0
Pixels = NDArray[np.uint8]


def images() -> Iterator[tuple[str, Pixels]]:
    """Name and `(height, width, 3)` of every image that is on this machine."""
    for name in IMAGES:
        try:
            image = np.asarray(getattr(data, name)())
        except (AttributeError, OSError, ValueError):  # not in this version, or not downloaded
            continue
        image = image[..., :3] if image.ndim == 3 else np.stack((image,) * 3, axis=-1)
        if image.dtype == np.uint8:
            yield name, np.ascontiguousarray(image)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--threads", type=int, default=None)
    arguments = parser.parse_args()
    networks = {name: Derainer.load(name, threads=arguments.threads) for name in arguments.model}
    scores: dict[str, list[float]] = {name: [] for name in networks}
    write(f"{'image':14}" + "".join(f"{name[-18:]:>20}" for name in networks))
    for image, pixels in images():
        for name, network in networks.items():
            scores[name].append(min(CAP, psnr(network(pixels), pixels, "rgb")))
        write(f"{image:14}" + "".join(f"{values[-1]:20.2f}" for values in scores.values()))
    for title, of in (("median", statistics.median), ("mean", statistics.fmean), ("worst", min)):
        write(f"{title:14}" + "".join(f"{of(values):20.2f}" for values in scores.values()))


def write(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
