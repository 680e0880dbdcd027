"""Whether weights change the tone of photos.

Run: `python -m tests.benchmarks.brightened FOLDER -m NAME`.

Removing rain makes few pixels much brighter, and leaves the mean of a photo nearly where it was.
For every photo of up to two megapixels in the folder: the share of pixels whose mean over the
channels grows by more than 15 levels of 255, and by how many levels the mean of the photo moves.
Printed are mean and worst of both, and in how many photos they exceed 0.05 % and 3 levels.
"""

import argparse
import statistics
import sys
from pathlib import Path

from derain_cli.errors import ImageError
from derain_cli.images import read_image
from derain_cli.inference.derainer import Derainer

BRIGHTER, SHARE, TONE, LARGEST = 15, 0.05, 3, 2_000_000


def main() -> None:
    """One line for each set of weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("-m", "--model", action="append", required=True, help="repeatable")
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--threads", type=int, default=None)
    chosen = parser.parse_args()
    for model in chosen.model:
        derainer = Derainer.load(model, engine=chosen.engine, threads=chosen.threads)
        changes = (change_of(path, derainer) for path in sorted(chosen.photos.iterdir()))
        found = [change for change in changes if change]
        shares, tones = ([change[i] for change in found] for i in (0, 1))
        sys.stdout.write(
            f"{model}, {len(found)} photos: "
            f"brightened {statistics.fmean(shares):.3f} % of a photo, at most {max(shares):.2f}, "
            f"above {SHARE} % in {sum(share > SHARE for share in shares)}; "
            f"tone moved by {statistics.fmean(tones):.2f} levels, at most {max(tones):.2f}, "
            f"above {TONE} in {sum(tone > TONE for tone in tones)}\n"
        )
        sys.stdout.flush()


def change_of(path: Path, derainer: Derainer) -> tuple[float, float] | None:
    """Share of brightened pixels in percent, and change of the mean; None for no such photo."""
    try:
        rainy = read_image(path).rgb
    except ImageError:
        return None
    if rainy.shape[0] * rainy.shape[1] > LARGEST:
        return None
    change = (derainer(rainy).astype(int) - rainy).mean(axis=2)
    return 100 * float((change > BRIGHTER).mean()), abs(float(change.mean()))


if __name__ == "__main__":
    main()
