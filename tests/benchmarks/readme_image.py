"""The image at the top of README: before and after, one pixel for one pixel, nothing retouched.

    python tests/benchmarks/readme_image.py PHOTO        # .github/docs/images/before_after.jpg

Takes a photo without rain, makes it small, paints rain of our own maker on it, derains it with the
default weights, and puts both side by side. Photos for it must be free to show.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from derain_cli import Derainer
from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS
from derain_cli.rain.painting import RAIN_KINDS, paint

TARGET = Path(__file__).parents[2] / ".github" / "docs" / "images" / "before_after.jpg"
GAP = 6


def main() -> None:
    """Write the image and print how close the result is to the photo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("-m", "--model", default=DEFAULT_WEIGHTS)
    parser.add_argument("--rain", default="heavy", choices=sorted(RAIN_KINDS))
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--width", type=int, default=560)
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    chosen = parser.parse_args()
    clean = small(chosen.photo, chosen.width)
    rng = np.random.default_rng(chosen.seed)
    rainy = paint(clean, RAIN_KINDS[chosen.rain](*clean.shape[:2], rng))
    derained = Derainer.load(chosen.model, device="cpu")(rainy)
    gap = np.full((len(clean), GAP, 3), 255, np.uint8)
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    both = Image.fromarray(np.hstack([rainy, gap, derained]))
    both.save(chosen.output, quality=88, optimize=True, progressive=True)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1000:.0f} kB")
    print(f"{psnr(rainy, clean):.1f} dB before, {psnr(derained, clean):.1f} dB after (RGB)")


def small(path: Path, width: int) -> np.ndarray:
    """The photo, `width` pixels wide."""
    photo = Image.open(path).convert("RGB")
    height = round(photo.height * width / photo.width)
    return np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS))


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    """In dB over all three channels."""
    return float(10 * np.log10(255**2 / np.square(one.astype(float) - two).mean()))


if __name__ == "__main__":
    main()
