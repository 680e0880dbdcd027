"""Speed of the engine against the plain network: `python tests/benchmarks/inference_speed.py`.

The plain network is the eager NCHW float32 module with its batch norms, given a ready tensor; the
engine is `Derainer`, given an 8-bit image and giving one back. Each variant lives in a process of
its own, because the engine also tunes how the process keeps its memory, and all take turns, so that
a busy machine slows all alike. What counts is the ratio within one run, not the milliseconds.

ONNX Runtime and OpenVINO are engines, too: the extras `onnx` and `openvino` give their lines.
"""

import argparse
import importlib.util
import multiprocessing
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch

from derain_cli.inference.derainer import Derainer
from derain_cli.inference.engines import MADE_OF_ONNX
from derain_cli.models import build_model, find_model

VARIANTS: dict[str, tuple[dict[str, object], float | None]] = {
    "default": ({}, 0.62),
    "bf16": ({"precision": "bf16"}, 0.47),
    "compile": ({"compile": True}, 0.52),
    "bf16 compile": ({"precision": "bf16", "compile": True}, 0.35),
    "onnxruntime": ({"engine": "onnx"}, None),
    "openvino": ({"engine": "openvino"}, None),
    "openvino bf16": ({"engine": "openvino", "precision": "bf16"}, None),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def main() -> None:
    """Print the median time of each variant and its ratio to the plain network's."""
    arguments = parse_arguments()
    absent = [name for name in arguments.variants if not is_installed(name)]
    chosen = ["plain", *(name for name in arguments.variants if name not in absent)]
    workers = {name: start(name, arguments) for name in chosen}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            worker.send(True)
            seconds[name].append(worker.recv())
    for worker in workers.values():
        worker.send(False)
    for process in multiprocessing.active_children():
        process.join()
    report(seconds, arguments)
    for name in absent:
        print(f"{name:13s} not installed")


def is_installed(name: str) -> bool:
    """Whether the packages that a variant needs are here."""
    needed = {"onnx": ("onnxruntime", *MADE_OF_ONNX), "openvino": ("openvino",)}
    packages = needed.get(str(VARIANTS[name][0].get("engine")), ())
    return all(importlib.util.find_spec(package) for package in packages)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rdmc")
    parser.add_argument("--size", default="481x321", help="width x height")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    return parser.parse_args()


def start(name: str, arguments: argparse.Namespace) -> Connection:
    """A process that runs one variant once for each True it is sent, and tells the seconds."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    context.Process(target=work, args=(there, name, arguments), daemon=True).start()
    here.recv()  # warm: kernels chosen, network compiled
    return here


def work(orders: Connection, name: str, arguments: argparse.Namespace) -> None:
    """Runs in the process that `start` makes."""
    torch.set_num_threads(arguments.threads)
    run, clock = variant(name, arguments), CLOCKS[arguments.clock]
    for _ in range(3):
        run()
    orders.send(None)
    while orders.recv():
        began = clock()
        run()
        orders.send(clock() - began)


def variant(name: str, arguments: argparse.Namespace) -> Callable[[], object]:
    """One image through the plain network or through an engine."""
    torch.manual_seed(0)
    model = build_model(arguments.model).eval()
    width, height = map(int, arguments.size.split("x"))
    rainy = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if name in VARIANTS:
        options = VARIANTS[name][0] | {"threads": arguments.threads}
        derainer = Derainer(model, find_model(arguments.model), name=arguments.model, **options)
        return lambda: derainer(rainy)
    tensor = (torch.from_numpy(rainy).float() / 255).permute(2, 0, 1)[None].contiguous()

    def plain() -> None:
        with torch.inference_mode():
            model(tensor)

    return plain


def report(seconds: dict[str, list[float]], arguments: argparse.Namespace) -> None:
    """One line per variant: median and least time, their ratios, the target."""
    print(f"{arguments.model}, {arguments.size}, {arguments.threads} threads, {arguments.clock}")
    plain = seconds["plain"]
    for name, times in seconds.items():
        ratio = statistics.median(times) / statistics.median(plain)
        least = min(times) / min(plain)
        bound = VARIANTS.get(name, ({}, None))[1]
        target = f"  target {bound}" if bound else ""
        print(
            f"{name:13s} median {1000 * statistics.median(times):7.1f} ms, ratio {ratio:.2f}; "
            f"least {1000 * min(times):7.1f} ms, ratio {least:.2f}{target}"
        )


if __name__ == "__main__":
    main()
