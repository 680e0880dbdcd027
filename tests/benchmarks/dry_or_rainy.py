"""How well the change tells dry photos from rainy ones: `python -m tests.benchmarks.dry_or_rainy`.

Derains dry photos and real rainy ones, measures `batch.rain.measure_rain` of each, and prints for
some thresholds of the changed share how many dry photos count as rainy and how many rainy ones as
dry: the two errors of `--leave-dry`.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from derain_cli.batch.rain import DRY_SHARE, measure_rain
from derain_cli.datasets.image_cache import read_pixels
from derain_cli.datasets.layouts import list_images
from derain_cli.inference.derainer import Derainer

DATA = Path(os.environ.get("DERAIN_DATA", str(Path(__file__).parents[3] / "shared" / "data")))


def main() -> None:
    """Print the two errors by threshold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry", default=str(DATA / "bsds_clean"), help="folder of dry photos")
    parser.add_argument("--rainy", default=str(DATA / "ddn_sirr_real"), help="folder of rainy ones")
    parser.add_argument("--limit", type=int, default=200, help="photos of each")
    parser.add_argument("-m", "--model", default=None, help="weights; the default ones if left out")
    arguments = parser.parse_args()
    derainer = Derainer.load(arguments.model) if arguments.model else Derainer.load()
    dry, rainy = (
        shares(derainer, list_images(Path(folder))[: arguments.limit])
        for folder in (arguments.dry, arguments.rainy)
    )
    print(f"{derainer.name}: {len(dry)} dry photos, {len(rainy)} rainy ones")
    for threshold in sorted({0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, DRY_SHARE}):
        mark = " <- --leave-dry" if threshold == DRY_SHARE else ""
        errors = 100 * np.mean(dry >= threshold), 100 * np.mean(rainy < threshold)
        print(
            f"changed share {100 * threshold:.2f} %: {errors[0]:.1f} % of the dry count as rainy, "
            f"{errors[1]:.1f} % of the rainy as dry{mark}"
        )


def shares(derainer: Derainer, paths: list[Path]) -> np.ndarray:
    """Changed share of each photo."""
    photos = (read_pixels(path) for path in paths)
    return np.array([measure_rain(photo, derainer(photo)).share for photo in photos])


if __name__ == "__main__":
    main()
