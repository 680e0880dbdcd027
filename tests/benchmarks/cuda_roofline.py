"""A CUDA card: seconds per megapixel and share of its roofline.

Run: `python -m tests.benchmarks.cuda_roofline`.

Each precision, plain and compiled, on one image in one tile. The roofline is the time that the
network's multiplications take at the rate one large convolution reaches on the same device in the
same precision; the share is that time over the whole time, transfers to and from the card included.
`--device cpu --size 256x256` runs the same code where there is no card.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from derain_cli.checkpoints.catalogue import entry_named
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.torch_engine import DTYPES
from derain_cli.release.cards import network_facts


def main() -> None:
    """One line for each network, precision and way to run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["nimbus-real", "rdmc-real", "menet-real"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", default="1920x1280", help="width x height")
    parser.add_argument("--precisions", nargs="*", default=["fp32", "bf16", "fp16"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    rainy = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for precision in arguments.precisions:
        rate = convolution_rate(arguments.device, precision)
        print(f"{precision}: {2 * rate / 1e12:.2f} TFLOP/s in one large convolution")
        for model in arguments.models:
            entry = entry_named(model)
            macs = network_facts(entry.model if entry else model)["multiply_adds_256"]
            least = macs * width * height / 256**2 / rate
            for compiled in (False,) if arguments.no_compile else (False, True):
                derainer = Derainer.load(
                    model, device=arguments.device, precision=precision, tile=0, compile=compiled
                )
                seconds = timed(lambda run=derainer: run(rainy), arguments.repeats)
                print(
                    f"{model} {precision} {'compiled' if compiled else 'plain':8s} "
                    f"{1e6 * seconds / (width * height):.4f} s per megapixel, "
                    f"{100 * least / seconds:.0f} % of the roofline"
                )
                sys.stdout.flush()


def convolution_rate(device: str, precision: str) -> float:
    """Multiplications a second of one large convolution, the best of a few."""
    channels, side, dtype = 256, 256 if device != "cpu" else 64, DTYPES[precision]
    conv = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype)
    conv = conv.to(memory_format=torch.channels_last)
    x = torch.rand(1, channels, side, side, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.inference_mode():
            conv(x)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return 9 * channels**2 * side**2 / timed(run, 10, best=True)


def timed(run: Callable[[], object], repeats: int, *, best: bool = False) -> float:
    """Seconds of one call once it is warm: the median, or the least."""
    run()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds) if best else statistics.median(seconds)


if __name__ == "__main__":
    main()
