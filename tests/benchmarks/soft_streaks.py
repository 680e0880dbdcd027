"""Long soft streaks left in two photos: `python tests/benchmarks/soft_streaks.py -m WEIGHTS`.

`91` and `95` of `ddn_sirr_real` show a downpour before trees and before a wall. Streaks that fall
straight down stand out in means over 24 rows: printed is how much these means differ from their
neighbours 4 and 8 pixels away (root mean square, levels of 255), in a part of each photo without
upright things, as it came and after each network. What is left is never 0: trees and walls are not
even. `--out FOLDER` keeps the parts side by side, to look at.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.datasets.image_cache import read_pixels
from derain_cli.inference.derainer import Derainer

DATA = Path(os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data")))
# File, and the part's left, top, width and height.
PARTS = {"91.jpg": (600, 700, 512, 512), "95.jpg": (0, 780, 400, 400)}
ROWS = 24
Pixels = NDArray[np.uint8]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--photos", type=Path, default=DATA / "ddn_sirr_real")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    networks = {name: Derainer.load(name) for name in arguments.model}
    write(f"{'photo':8}{'input':>8}" + "".join(f"{name[-18:]:>20}" for name in networks))
    for name, (left, top, width, height) in PARTS.items():
        photo = read_pixels(arguments.photos / name)
        place = slice(top, top + height), slice(left, left + width)
        parts = [photo[place], *(network(photo)[place] for network in networks.values())]
        write(
            f"{name:8}{lines(parts[0]):8.2f}"
            + "".join(f"{lines(part):20.2f}" for part in parts[1:])
        )
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            side_by_side = np.concatenate(parts, axis=1)
            Image.fromarray(side_by_side).save(arguments.out / f"{Path(name).stem}.png")


def lines(part: Pixels) -> float:
    """Root mean square of upright lines, levels of 255."""
    gray = part.astype(np.float64).mean(axis=2)
    whole = len(gray) // ROWS * ROWS
    means = gray[:whole].reshape(-1, ROWS, gray.shape[1]).mean(axis=1)
    around = np.mean([means[:, 8 + d : means.shape[1] - 8 + d] for d in (-8, -4, 4, 8)], axis=0)
    return float((means[:, 8:-8] - around).std())


def write(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
