"""Is `heavy` rain like the rain of Rain200H? `python tests/benchmarks/heavy_rain.py`.

Paints `heavy` rain on the clean sides of the sample's pairs (so that both clip alike) and compares
what is left of rainy - clean: quartiles of each feature over the images, and the largest distance
of the two distribution functions (Kolmogorov-Smirnov; about 0.3 is chance for 23 images). Test
sets are never looked at.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.image_cache import read_pair
from derain_cli.datasets.known import dataset_pairs
from derain_cli.rain.painting import RAIN_KINDS, paint

DATA = os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data"))
Pixels = NDArray[np.uint8]
Rain = NDArray[np.float32]


def rain_of(rainy: Pixels, clean: Pixels) -> Rain:
    """Rain of the channel that clipped least, in levels."""
    rain = rainy.astype(np.int16) - clean
    return np.asarray(np.clip(rain, 0, 255).max(axis=2), np.float32)


def structure(rain: Rain) -> tuple[float, float]:
    """(angle of the streaks from the vertical, degrees; how much they agree, 0..1)."""
    soft = cv2.GaussianBlur(rain, (0, 0), 1)
    across, down = cv2.Sobel(soft, -1, 1, 0), cv2.Sobel(soft, -1, 0, 1)
    doubled = np.mean((across + 1j * down) ** 2) / np.mean(np.abs(across + 1j * down) ** 2)
    return float(np.degrees(np.angle(doubled)) / 2), float(np.abs(doubled))


FEATURES: Mapping[str, Callable[[Rain], float]] = {
    "mean, levels": lambda rain: float(rain.mean()),
    "energy, RMS levels": lambda rain: float(np.sqrt(np.mean(rain**2))),
    "coverage, share above 10": lambda rain: float(np.mean(rain > 10)),
    "bright, 99th percentile": lambda rain: float(np.quantile(rain, 0.99)),
    "contrast, deviation / mean": lambda rain: float(rain.std() / max(float(rain.mean()), 1e-6)),
    "fine, share of gradient": lambda rain: float(
        np.abs(np.diff(rain, axis=1)).mean() / max(float(rain.std()), 1e-6)
    ),
    "direction, degrees": lambda rain: structure(rain)[0],
    "agreement, 0..1": lambda rain: structure(rain)[1],
}


def distance(first: list[float], second: list[float]) -> float:
    """Kolmogorov-Smirnov: largest distance of two distribution functions."""
    at = np.sort([*first, *second])
    shares = [
        np.searchsorted(np.sort(side), at, side="right") / len(side) for side in (first, second)
    ]
    return float(np.abs(shares[0] - shares[1]).max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, default=Path(DATA))
    parser.add_argument("--kind", default="heavy", choices=list(RAIN_KINDS))
    parser.add_argument("--times", type=int, default=6, help="layers made per image")
    arguments = parser.parse_args()
    given, made = [], []
    for number, pair in enumerate(dataset_pairs("rain200h_sample", arguments.data_root)):
        rainy, clean = read_pair(pair)
        given.append(rain_of(rainy, clean))
        for time in range(arguments.times):
            rng = np.random.default_rng([number, time])
            layer = RAIN_KINDS[arguments.kind](*clean.shape[:2], rng)
            made.append(rain_of(paint(clean, layer), clean))
    print(f"{len(given)} images of the sample, {len(made)} made ({arguments.kind}); quartiles\n")
    print(f"{'feature':28} {'sample':>24} {'made':>24} {'KS':>6}")
    for name, feature in FEATURES.items():
        sides = [[feature(rain) for rain in side] for side in (given, made)]
        shown = [
            " ".join(f"{q:7.2f}" for q in np.quantile(side, (0.25, 0.5, 0.75))) for side in sides
        ]
        print(f"{name:28} {shown[0]:>24} {shown[1]:>24} {distance(*sides):6.2f}")


if __name__ == "__main__":
    main()
