"""The sample of README's first command: `python -m tests.benchmarks.sample_image`.

Rain of our own rain maker, near and far, over `rocket` of scikit-image, a photo in the public
domain that nothing here was trained on. Seed and ranges were set by looking at the rain, not at
what a network makes of it. Prints how far the sample, and what the default weights make of it, are
from the photo (RGB, dB), and writes `tests/samples/rocket.jpg`.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from derain_cli import Derainer
from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS
from derain_cli.metrics.full_reference import psnr
from derain_cli.rain.streaks import StreakRange, streak_layer

TARGET = Path(__file__).parents[1] / "samples" / "rocket.jpg"
# Six depths of slightly slanted rain, in the light of a flash.
RAIN = StreakRange((0.9, 5), (10, 130), (14, 26), 14, (6, 6), (0.08, 0.22), (0.55, 0.95))
SEED, LIGHT, QUALITY = 1, 0.85, 95


def main() -> None:
    """Write the sample, print what it is and what becomes of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", default=DEFAULT_WEIGHTS)
    parser.add_argument("-o", "--output", type=Path, default=TARGET)
    chosen = parser.parse_args()
    photo = np.asarray(data.rocket())
    layer = streak_layer(*photo.shape[:2], np.random.default_rng(SEED), RAIN)[..., None]
    scene = photo.astype(np.float32) / 255
    rainy = np.maximum(scene, scene * (1 - layer) + LIGHT * layer)
    Image.fromarray(np.rint(255 * rainy).astype(np.uint8)).save(chosen.output, quality=QUALITY)
    sample = np.asarray(Image.open(chosen.output))
    derained = Derainer.load(chosen.model, device="cpu")(sample)
    print(f"{psnr(sample, photo, 'rgb'):.1f} dB before, {psnr(derained, photo, 'rgb'):.1f} after")


if __name__ == "__main__":
    main()
