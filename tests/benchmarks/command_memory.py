"""Peak memory and speed of the command on large photos (python -m tests.benchmarks.command_memory).

`derain` is run as a user types it, JPEG in and JPEG out. The peak is the resident memory of its
process (Linux: `ru_maxrss`), to stay under 2.0 GiB for 100 megapixels; the seconds are those of the
whole command, as the clock on the wall and as the processor counts them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

LIMIT = 2.0  # GiB for 100 megapixels
PHOTO = Path(__file__).parents[1] / "samples" / "rocket.jpg"


def main() -> None:
    """One line for each size; exit code 1 where 100 megapixels take more than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=["6000x4000", "10000x10000"])
    parser.add_argument("--options", default="", help="more words for `derain`")
    arguments = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            width, height = map(int, size.split("x"))
            source = Path(folder) / f"{size}.jpg"
            write_photo(source, width, height)
            peak, wall, cpu = run(source, arguments.options.split())
            megapixels = width * height / 1e6
            print(
                f"{size} {arguments.options}: peak {peak:.2f} GiB, {wall / megapixels:.2f} s per "
                f"megapixel ({cpu / megapixels:.2f} s of processors)",
                flush=True,
            )
            worst = max(worst, peak if megapixels >= 100 else 0)
    sys.exit(worst > LIMIT)


def write_photo(path: Path, width: int, height: int) -> None:
    """A photo enlarged, with streaks of rain on it."""
    with Image.open(PHOTO) as photo:
        pixels = np.array(photo.convert("RGB").resize((width, height)))
    random = np.random.default_rng(0)
    for x, y in zip(random.integers(0, width, 4000), random.integers(0, height, 4000), strict=True):
        streak = pixels[y : y + 60, x : x + 2]
        streak += (200 - np.minimum(streak, 200)) // 2
    Image.fromarray(pixels).save(path, quality=90)


def run(source: Path, options: list[str]) -> tuple[float, float, float]:
    """Peak GiB, seconds on the wall and of processors of one command."""
    command = [sys.executable, "-m", "derain_cli", str(source), "-q", *options]
    began = time.perf_counter()
    child = subprocess.Popen([*command, "-o", str(source.with_suffix(".out.jpg"))])
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"derain failed: {status}")
    return usage.ru_maxrss / 2**20, wall, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
