"""What finding rain at several sizes gains: `python tests/benchmarks/scales.py -m WEIGHTS`.

Crops of pairs of Rain100L at one, two and four times their size: the PSNR (Y) of the input and of
each choice of `scales`. `--dry FOLDER` adds photos without rain: PSNR of each to its own result.
`--choose` takes the training set instead, of which the thresholds of `inference.scales` come, and
prints the width that was measured in each image.
"""

import argparse
import statistics
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from derain_cli.cli.output_files import default_data_root
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.pixels import pixel_reader
from derain_cli.inference.scales import streak_width
from derain_cli.metrics.full_reference import psnr

Pixels = NDArray[np.uint8]
SCALES = (1, 2, 4, "auto")
CROP = 120, 100  # width and height
DRY_CROP = 400, 320
CAP = 60.0


def main() -> None:
    """Print a line for each image and the means of each group."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--data-root", type=Path, default=default_data_root())
    parser.add_argument("--dry", type=Path, help="folder of photos without rain")
    parser.add_argument("--choose", action="store_true", help="pairs of the training set")
    parser.add_argument("--every", type=int, default=12, help="take each Nth pair")
    parser.add_argument("--engine", default="auto")
    arguments = parser.parse_args()
    for model in arguments.model:
        networks = {
            scales: Derainer.load(model, engine=arguments.engine, scales=scales)
            for scales in SCALES
        }
        folder = arguments.data_root / ("rain100l_train" if arguments.choose else "rain100l")
        for factor in (1, 2, 4):
            report(f"{model} x{factor}", networks, pairs(folder, arguments.every, factor))
        if arguments.dry:
            report(f"{model} dry", networks, dry_photos(arguments.dry))


def report(
    title: str, networks: dict[int | str, Derainer], images: list[tuple[str, Pixels, Pixels]]
) -> None:
    """One line for each image, and one for their mean."""
    rows = []
    for name, rainy, clean in images:
        results = {scales: network.run(rainy) for scales, network in networks.items()}
        scores = [min(CAP, psnr(pixels, clean, "y")) for pixels, _ in results.values()]
        rows.append([min(CAP, psnr(rainy, clean, "y")), *scores])
        width = streak_width(pixel_reader(rainy), pixel_reader(results[1][0]), len(rainy))
        write(
            f"{title} {name:14}", rows[-1], f"width {width:.1f}, took {results['auto'][1].scales}"
        )
    write(f"{title} {'mean':14}", [statistics.fmean(column) for column in zip(*rows, strict=True)])


def pairs(folder: Path, every: int, factor: int) -> list[tuple[str, Pixels, Pixels]]:
    """Name, rainy and clean crop of each pair, enlarged."""
    found = []
    for path in sorted((folder / "rainy").iterdir())[3::every]:
        clean = next((folder / "clean").glob(f"{path.stem}.*"))
        found.append((path.stem, *(crop(image, factor) for image in (path, clean))))
    return found


def crop(path: Path, factor: int) -> Pixels:
    """The crop of one image, enlarged."""
    width, height = CROP
    with Image.open(path) as image:
        part = image.convert("RGB").crop((100, 80, 100 + width, 80 + height))
    return np.asarray(part.resize((width * factor, height * factor), Image.Resampling.BICUBIC))


def dry_photos(folder: Path) -> list[tuple[str, Pixels, Pixels]]:
    """The middle of each photo, at its own size, as rainy and as clean image."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in (".jpg", ".png", ".webp"):
            continue
        with Image.open(path) as image:
            left, top = (
                (side - part) // 2 for side, part in zip(image.size, DRY_CROP, strict=True)
            )
            box = (left, top, left + DRY_CROP[0], top + DRY_CROP[1])
            pixels = np.asarray(image.convert("RGB").crop(box))
        found.append((path.stem[:14], pixels, pixels))
    return found


def write(title: str, scores: list[float], note: str = "") -> None:
    """One line on stdout, at once: the input, then each choice of scales."""
    told = "".join(
        f"{name}: {score:6.2f}  " for name, score in zip(("input", *SCALES), scores, strict=True)
    )
    sys.stdout.write(f"{title}  {told}{note}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
