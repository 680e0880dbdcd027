"""README's sample: `python -m tests.benchmarks.sample_image` writes `tests/samples/rocket.jpg`.

A rocket by SpaceX (public domain, scikit-image's `rocket`) in heavy rain: mist, far rain
of fine streaks, nearer rain that is longer, wider and softer, all within a few degrees of one
direction; then a phone's JPEG. Streaks are strengthened until the photo has `DECIBELS` to the scene
without them, so its rain is chosen by what it does to the photo and by nobody's result. `--score`
derains the sample that is there and prints the PSNR before and after.
"""

import argparse
import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from derain_cli import Derainer
from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS
from derain_cli.metrics.full_reference import psnr
from derain_cli.rain.streaks import StreakRange, streak_layer

SAMPLE = Path(__file__).parents[1] / "samples" / "rocket.jpg"
SIZE, SEED, DECIBELS, MIST = (640, 427), 2026, 19.5, 0.12
FAR = StreakRange((0.9, 1.5), (10, 44), (14, 30), 12, (7, 7), (0.16, 0.2), (0.6, 0.7))
NEAR = StreakRange((1.6, 2.4), (50, 120), (30, 45), 12, (1, 1), (0.04, 0.05), (0.3, 0.4))
Floats = NDArray[np.float32]


def scene() -> Floats:
    """The photo in mist, `(427, 640, 3)` in 0..1; the ground truth of the sample."""
    photo = cv2.resize(np.asarray(data.rocket()), SIZE, interpolation=cv2.INTER_AREA)
    levels = photo.astype(np.float32) / 255
    grey = np.float32(levels.mean() + 0.15)
    return np.asarray(levels * (1 - MIST) + MIST * grey, np.float32)


def rain() -> Floats:
    """Streaks of both distances, `(427, 640)`, 0 for none."""
    height, width = SIZE[::-1]
    layers = [streak_layer(height, width, np.random.default_rng(SEED), k) for k in (FAR, NEAR)]
    return np.asarray(1 - (1 - layers[0]) * (1 - cv2.GaussianBlur(layers[1], (0, 0), 0.6)))


def rainy(clean: Floats, layer: Floats, strength: float) -> Floats:
    """Streaks show the light around them: a bright grey that covers what is behind."""
    share = np.clip(strength * layer, 0, 0.9)[..., None]
    light = np.clip(clean.mean(axis=(0, 1)) + np.float32(0.5), 0, 1)
    return np.asarray(np.maximum(clean, clean * (1 - share) + share * light), np.float32)


def fitting_strength(clean: Floats, layer: Floats) -> float:
    """The strength at which the rainy photo has `DECIBELS`, by bisection."""
    low, high = 0.0, 8.0
    for _ in range(30):
        middle = (low + high) / 2
        apart = float(np.square(rainy(clean, layer, middle) - clean).mean())
        low, high = (middle, high) if -10 * np.log10(apart + 1e-12) > DECIBELS else (low, middle)
    return low


def main() -> None:
    """Write the sample, or score the one that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--score", action="store_true")
    parser.add_argument("-m", "--model", default=DEFAULT_WEIGHTS)
    parser.add_argument("-o", "--output", type=Path, default=SAMPLE)
    chosen = parser.parse_args()
    clean = scene()
    if not chosen.score:
        layer = rain()
        image = rainy(clean, layer, fitting_strength(clean, layer))
        buffer = io.BytesIO()
        pixels = (255 * image).round().astype(np.uint8)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=92, subsampling=0)
        chosen.output.write_bytes(buffer.getvalue())
        return
    wet, truth = np.asarray(Image.open(chosen.output)), (255 * clean).round().astype(np.uint8)
    dried = Derainer.load(chosen.model, device="cpu")(wet)
    before, after = (psnr(image, truth, "rgb") for image in (wet, dried))
    print(f"{before:.1f} dB before, {after:.1f} dB after (RGB)")


if __name__ == "__main__":
    main()
