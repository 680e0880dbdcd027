"""All engines and precisions beside a plain recurrent network and the floor, in one run.

    python -m tests.benchmarks.engines

Each line is one network in one engine, from an 8-bit image to one, in a process of its own; all
take turns, so that a busy machine slows all alike. The reference is PReNet's network as its authors
wrote it: plain PyTorch, 6 stages, an LSTM of 32 channels, 5 residual blocks, 168,963 parameters.
What counts is how many times faster than it a line is. The floor is the time that the network's
multiplications alone take at the rate that one large convolution reaches here, in torch, in fp32.

Precisions that this processor does not multiply natively are left out, and named.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import nn

from derain_cli.checkpoints.catalogue import entry_named
from derain_cli.errors import UnavailableError, UsageError
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.devices import cpu_multiplies_bf16
from derain_cli.inference.engines import MADE_OF_ONNX, require_installed
from derain_cli.models import build_model, find_model
from derain_cli.release.cards import network_facts

PRENET = "prenet"
ENGINES = (("torch", "fp32"), ("torch", "bf16"), ("openvino", "fp32"), ("openvino", "bf16"))
ENGINES += (("onnx", "fp32"),)
# Times PReNet's speed that a network has to reach: as a user types it with extras, and without.
WANTED = {"nimbus": (25, 20), "rdmc-real": (30, 20), "menet-real": (60, 45)}


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    network: str
    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.network:10s} {self.engine:8s} {self.precision:5s}"


def main() -> None:
    """Print the table."""
    arguments = parse_arguments()
    native = cpu_multiplies_bf16()
    if not native:
        print("no bf16: this processor has no instructions for it, so its lines are left out")
    lines = [Line(PRENET, "plain", "fp32")]
    for network in arguments.networks:
        lines += [Line(network, *how) for how in ENGINES if is_here(*how, native=native)]
    workers = {line: start(line, arguments) for line in lines}
    seconds: dict[Line, list[float]] = {line: [] for line in lines}
    for _ in range(arguments.rounds):
        for line, worker in workers.items():
            worker.send(True)
            seconds[line].append(worker.recv())
    for worker in workers.values():
        worker.send(False)
    for process in multiprocessing.active_children():
        process.join()
    report(seconds, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(WANTED))
    parser.add_argument("--size", default="481x321", help="width x height")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    return parser.parse_args()


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def is_here(engine: str, precision: str, *, native: bool) -> bool:
    """Whether an engine is installed and a precision native."""
    packages = {"openvino": ("openvino",), "onnx": ("onnxruntime", *MADE_OF_ONNX)}
    try:
        require_installed(engine, *packages.get(engine, ()))
    except UsageError as error:
        print(f"{engine} {precision} left out: {error}")
        return False
    return native or precision == "fp32"


def start(line: Line, arguments: argparse.Namespace) -> Connection:
    """A process that runs one line once for each True it is sent, and tells the seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=work, args=(there, line, arguments), daemon=True).start()
    here.recv()  # warm: kernels chosen, network compiled
    return here


def work(orders: Connection, line: Line, arguments: argparse.Namespace) -> None:
    """Runs in the process that `start` makes."""
    torch.set_num_threads(arguments.threads)
    clock = CLOCKS[arguments.clock]
    run = ready(line, arguments)
    for _ in range(2):
        run()
    orders.send(None)
    while orders.recv():
        began = clock()
        run()
        orders.send(clock() - began)


def ready(line: Line, arguments: argparse.Namespace) -> Callable[[], object]:
    """One image through a line's network."""
    width, height = map(int, arguments.size.split("x"))
    rainy = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if line.engine == "plain":
        model = build_model(PRENET).eval()
        tensor = torch.from_numpy(rainy).permute(2, 0, 1)[None].float().div(255).contiguous()

        def plain() -> None:
            with torch.inference_mode():
                model(tensor)

        return plain
    options = {"device": "cpu", "engine": line.engine, "precision": line.precision}
    options["threads"] = arguments.threads
    try:
        derainer = Derainer.load(line.network, **options)
    except UnavailableError:  # no weights yet: speed is the same without
        model, entry = build_model(line.network), find_model(line.network)
        derainer = Derainer(model, entry, name=line.network, **options)
    return lambda: derainer(rainy)


def architecture_of(name: str) -> str:
    """Key of `MODELS` of some weights, or of a network without."""
    entry = entry_named(name)
    return entry.model if entry else name


def floor_rate(threads: int, clock: Callable[[], float]) -> float:
    """Multiplications a second of one large convolution in float32, the best of a few."""
    torch.set_num_threads(threads)
    channels, side, best = 128, 256, 0.0
    conv = nn.Conv2d(channels, channels, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.rand(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(8):
            began = clock()
            conv(x)
            seconds = clock() - began
            best = max(best, 9 * channels**2 * side**2 / seconds)
    return best


def report(seconds: dict[Line, list[float]], arguments: argparse.Namespace) -> None:
    """One line for each, with the ratio to PReNet's and to the floor."""
    rate = floor_rate(arguments.threads, CLOCKS[arguments.clock])
    print(
        f"{arguments.size}, {arguments.threads} threads, {arguments.clock} time, median of rounds"
    )
    print(f"floor: {2 * rate / 1e9:.0f} GFLOP/s in one large convolution, fp32")
    slow = statistics.median(seconds[Line(PRENET, "plain", "fp32")])
    width, height = map(int, arguments.size.split("x"))
    for line, times in seconds.items():
        median = statistics.median(times)
        name = architecture_of(line.network)
        floor = network_facts(name)["multiply_adds_256"] * width * height / 256**2 / rate
        print(
            f"{line} {1000 * median:8.1f} ms, {slow / median:6.1f} times PReNet, "
            f"{median / floor:5.1f} times its floor"
        )
    for network, (with_extras, without) in WANTED.items():
        print(f"wanted of {network}: {with_extras} times with extras, {without} without")


if __name__ == "__main__":
    main()
