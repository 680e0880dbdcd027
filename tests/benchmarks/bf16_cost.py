"""What bf16 costs in dB: `python -m tests.benchmarks.bf16_cost --data-root DATA -m WEIGHTS`.

`derain` computes in bf16 where the processor multiplies it natively (`--precision auto`), `eval` in
fp32. Here each image is derained in both, by the same engine and threads, and scored on luma
against its ground truth; "dry" are the first twenty clean images of rain100l, scored against
themselves. Printed is the mean of each set in fp32, in bf16, the difference, the worst difference
of an image, and the largest difference between the two images in levels of 255.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from derain_cli.datasets.known import dataset_pairs
from derain_cli.images import read_image
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.devices import cpu_multiplies_bf16
from derain_cli.metrics.full_reference import psnr

DRY = 20
# Unchanged images have no finite PSNR; from here on they count alike.
CAP = 60.0
Pixels = NDArray[np.uint8]


def pairs_of(root: Path, limit: int) -> Iterator[tuple[str, Pixels, Pixels]]:
    """Set, input and ground truth of every image."""
    for name in ("rain100l", "rain100h"):
        for pair in dataset_pairs(name, root)[: limit or None]:
            yield name, read_image(pair.rainy).rgb, read_image(pair.clean).rgb
    for pair in dataset_pairs("rain100l", root)[: min(DRY, limit or DRY)]:
        clean = read_image(pair.clean).rgb
        yield "dry", clean, clean


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--limit", type=int, default=0, help="images of each set; 0 = all")
    arguments = parser.parse_args()
    if not cpu_multiplies_bf16():
        sys.exit("this processor has no bf16 instructions: there is nothing to compare")
    for model in arguments.model:
        report(model, arguments)


def report(model: str, arguments: argparse.Namespace) -> None:
    """Lines of one set of weights."""
    full, half = (
        Derainer.load(model, engine=arguments.engine, precision=name, threads=arguments.threads)
        for name in ("fp32", "bf16")
    )
    scores: dict[str, list[tuple[float, float]]] = {}
    levels: dict[str, int] = {}
    for name, rainy, clean in pairs_of(arguments.data_root, arguments.limit):
        images = full(rainy), half(rainy)
        found = [min(CAP, psnr(image, clean, "y")) for image in images]
        scores.setdefault(name, []).append((found[0], found[1]))
        apart = int(np.abs(images[0].astype(int) - images[1]).max())
        levels[name] = max(levels.get(name, 0), apart)
    for name, rows in scores.items():
        before, after = (statistics.fmean(row[i] for row in rows) for i in (0, 1))
        worst = min(row[1] - row[0] for row in rows)
        sys.stdout.write(
            f"{model:14} {arguments.engine:8} {name:9} {before:8.3f} {after:8.3f} dB, "
            f"{after - before:+.4f}, worst {worst:+.3f}, {levels[name]} levels\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
