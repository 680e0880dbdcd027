"""Soft streaks left in three photos: `python tests/benchmarks/soft_streaks.py -m WEIGHTS`.

`91` and `95` of `ddn_sirr_real` show a downpour before trees and before a wall, `79` fine rain that
leans by 36 degrees before a misty hill. Along their direction streaks stand out in means over some
rows: printed is how much these means differ from their neighbours some pixels away (root mean
square, levels of 255), in a part of each photo without things of that direction, as it came and
after each network. What is left is never 0: trees and walls are not even. `--out FOLDER` keeps the
parts side by side, to look at.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.datasets.image_cache import read_pixels
from derain_cli.inference.derainer import Derainer

DATA = Path(os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data")))
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Part:
    """A part of a photo, and the streaks in it.

    Attributes:
        left: Of the part, pixels; so are `top`, `width` and `height`.
        angle: Of its streaks from the vertical, degrees; positive to the right on the way down.
        rows: Over how many rows a mean is taken: less than a streak is long.
        around: How far away the neighbours are, pixels: more than a streak is wide.
    """

    left: int
    top: int
    width: int
    height: int
    angle: float = 0
    rows: int = 24
    around: tuple[int, int] = (4, 8)

    def of(self, photo: Pixels) -> Pixels:
        """Its pixels."""
        return photo[self.top : self.top + self.height, self.left : self.left + self.width]

    def lines(self, photo: Pixels) -> float:
        """Root mean square of its streaks, levels of 255."""
        upright = self._upright(self.of(photo).astype(np.float64).mean(axis=2))
        whole = len(upright) // self.rows * self.rows
        means = upright[:whole].reshape(-1, self.rows, upright.shape[1]).mean(axis=1)
        near, far = self.around
        middle = slice(far, means.shape[1] - far)
        neighbours = [np.roll(means, by, axis=1)[:, middle] for by in (-far, -near, near, far)]
        return float((means[:, middle] - np.mean(neighbours, axis=0)).std())

    def _upright(self, gray: NDArray[np.float64]) -> NDArray[np.float64]:
        """The part sheared so that its streaks fall straight down, without what came in."""
        slope = float(np.tan(np.radians(self.angle)))
        shear = np.array([[1, -slope, slope * self.height / 2], [0, 1, 0]])
        straight = cv2.warpAffine(gray, shear, (self.width, self.height))
        outside = int(abs(slope) * self.height / 2)
        return np.asarray(straight[:, outside : self.width - outside])


PARTS = {
    "79.jpg": Part(0, 10, 160, 64, angle=36, rows=16, around=(3, 5)),
    "91.jpg": Part(600, 700, 512, 512),
    "95.jpg": Part(0, 780, 400, 400),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--photos", type=Path, default=DATA / "ddn_sirr_real")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    networks = {name: Derainer.load(name) for name in arguments.model}
    write(f"{'photo':8}{'input':>8}" + "".join(f"{name[-18:]:>20}" for name in networks))
    for name, part in PARTS.items():
        photo = read_pixels(arguments.photos / name)
        seen = [photo, *(network(photo) for network in networks.values())]
        write(
            f"{name:8}{part.lines(photo):8.2f}"
            + "".join(f"{part.lines(result):20.2f}" for result in seen[1:])
        )
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            side_by_side = np.concatenate([part.of(image) for image in seen], axis=1)
            Image.fromarray(side_by_side).save(arguments.out / f"{Path(name).stem}.png")


def write(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
