"""How much of a batch's time is not the network's: `python tests/benchmarks/batch_overhead.py`.

Prints two figures: for one 12-megapixel JPEG the share of the time that is spent outside of the
network, and for a folder of 50 photos of 481x321 the share in which the network is busy. Without
`--model` the published RDMC network with random weights is used: only its arithmetic counts here.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from derain_cli.batch import BatchOptions, Summary, plan_batch, run_batch
from derain_cli.inference.derainer import Derainer
from derain_cli.models import build_model, find_model

LARGE, SMALL, SMALL_COUNT = (4000, 3000), (481, 321), 50


def main() -> None:
    """Make the photos, derain them, print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="weights; default: RDMC, random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--large", type=int, nargs=2, default=LARGE, metavar=("WIDTH", "HEIGHT"))
    arguments = parser.parse_args()
    derainer = _derainer(arguments.model, arguments.device, arguments.precision)
    print(f"{derainer.name} on {derainer.device}, {torch.get_num_threads()} CPU threads")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _make_photo(folder / "warm" / "up.jpg", SMALL)
        _run(folder / "warm", derainer)
        large = tuple(arguments.large)
        _make_photo(folder / "large" / "photo.jpg", large)
        summary = _run(folder / "large", derainer)
        outside = 1 - summary.network_seconds / summary.seconds
        print(
            f"one JPEG of {large[0] * large[1] / 1e6:.1f} megapixels: {summary.seconds:.2f} s, "
            f"outside the network {outside:.1%} (wanted: under 15 %)"
        )
        for number in range(SMALL_COUNT):
            _make_photo(folder / "small" / f"{number}.jpg", SMALL)
        summary = _run(folder / "small", derainer)
        busy = summary.network_seconds / summary.seconds
        print(
            f"{SMALL_COUNT} JPEGs of {SMALL[0]}x{SMALL[1]}: {summary.seconds:.2f} s "
            f"({summary.done / summary.seconds:.2f} images/s), "
            f"network busy {busy:.1%} (wanted: at least 85 %)"
        )


def _derainer(model: str | None, device: str, precision: str) -> Derainer:
    if model:
        return Derainer.load(model, device=device, precision=precision)
    network, entry = build_model("rdmc").eval(), find_model("rdmc")
    return Derainer(network, entry, name="random RDMC", device=device, precision=precision)


def _make_photo(path: Path, size: tuple[int, int]) -> None:
    """Smooth shapes and sensor noise: about as hard to code as a photo."""
    width, height = size
    random = np.random.default_rng(len(path.name))
    coarse = random.integers(0, 256, (height // 60 + 2, width // 60 + 2, 3), dtype=np.uint8)
    shapes = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    noise = random.normal(0, 6, (height, width, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(shapes + noise, 0, 255).astype(np.uint8)).save(path, quality=92)


def _run(folder: Path, derainer: Derainer) -> Summary:
    options = BatchOptions()
    began = time.perf_counter()
    *_, summary = run_batch(plan_batch([str(folder)], options), derainer, options)
    assert isinstance(summary, Summary)
    assert summary.done
    assert not summary.failures
    assert summary.seconds <= time.perf_counter() - began
    return summary


if __name__ == "__main__":
    main()
