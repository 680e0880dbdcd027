"""How far tiles are from the whole image: `python tests/benchmarks/tiles_against_whole.py NAME`.

The sample photo at `--size` under rain of our maker, derained whole and in tiles with the default
overlap; the difference in levels of 255.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from derain_cli.inference.derainer import Derainer
from derain_cli.rain.painting import LARGE, paint, range_layer

SAMPLE = Path(__file__).parent.parent / "samples" / "rocket.jpg"


def main() -> None:
    """Print one line per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["rdmc-real"])
    parser.add_argument("--size", default="1500x1000", help="width x height")
    parser.add_argument("--tile", type=int, default=512, help="pixels, with the overlap")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    rainy = rainy_sample(width, height)
    for model in arguments.models:
        whole = Derainer.load(model, tile=0)(rainy)
        tiled, facts = Derainer.load(model, tile=arguments.tile).run(rainy)
        off = np.abs(tiled.astype(int) - whole)
        print(
            f"{model}: tiles of {facts.tile} at "
            f"{arguments.size}: at most {off.max()} levels, {100 * (off > 0).mean():.2f} % of the "
            f"values differ, {100 * (off > 1).mean():.4f} % by more than one"
        )


def rainy_sample(width: int, height: int) -> np.ndarray:
    """The sample photo at this size under large rain, the same every time; (H, W, 3) uint8."""
    photo = Image.open(SAMPLE).resize((width, height))
    return paint(np.asarray(photo), range_layer(height, width, np.random.default_rng(0), LARGE))


if __name__ == "__main__":
    main()
