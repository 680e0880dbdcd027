"""What HCN's mining costs: `OMP_NUM_THREADS=1 python tests/benchmarks/hcn_attention.py`.

Measures three ways on an image of 481x321, random weights, channels last, without gradients:

- plain: all similarities of one mining step are formed at once, feature maps are joined whole;
- fused: `scaled_dot_product_attention`, maps joined whole (what runs with gradients or on a GPU);
- as is: what the network does on a CPU.

Prints CPU seconds (other programs on the machine count little), how many times faster than the
plain way in fp32 and in the same precision, and the peak of memory above bare torch: for the
largest step of a mining module, and for the whole network. Each line is measured in a process of
its own, because the peak of a process never falls.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from derain_cli.inference.memory import keep_freed_memory
from derain_cli.models import hcn

HEIGHT, WIDTH = 321, 481
LARGEST, NEXT = (88, 128), (44, 64)  # the bottleneck's first two scales: 352x512 / 4 and / 8
WAYS, PRECISIONS, PARTS = ("plain", "fused", "as is"), ("fp32", "bf16"), ("step", "network")


def main() -> None:
    """Measure every way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as `derain` does")
    parser.add_argument("--line", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        print(json.dumps(_measure(*arguments.line, arguments.repeats, arguments.keep_freed_memory)))
        return
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    for part in PARTS:
        print(f"\n{part:8} {'way':6} CPU s  to plain fp32  to plain  MiB above bare torch")
        plain: dict[str, float] = {}
        for precision in PRECISIONS:
            for way in WAYS:
                line = _in_child(way, precision, part)
                seconds = line["seconds"]
                plain.setdefault(precision, seconds)
                print(
                    f"{precision:8} {way:6} {seconds:5.2f} {plain['fp32'] / seconds:13.2f}x "
                    f"{plain[precision] / seconds:8.2f}x {line['mebibytes']:7.0f}",
                    flush=True,
                )


def _in_child(way: str, precision: str, part: str) -> dict[str, float]:
    command = [sys.executable, *sys.argv, "--line", way, precision, part]
    result: dict[str, float] = json.loads(subprocess.check_output(command))
    return result


def _measure(
    way: str, precision: str, part: str, repeats: int, keep_memory: bool
) -> dict[str, float]:
    """CPU seconds of one run and what it added to the peak of this process's memory."""
    _choose(way)
    if keep_memory:
        keep_freed_memory()
    torch.manual_seed(0)
    bare = _peak_mebibytes()
    network, inputs = _step() if part == "step" else _network()
    network = network.eval().to(memory_format=torch.channels_last)
    half = torch.autocast("cpu", torch.bfloat16)
    with torch.inference_mode(), half if precision == "bf16" else contextlib.nullcontext():
        network(*(x[..., :32, :32] for x in inputs))
        seconds = min(_time(network, inputs) for _ in range(repeats))
    return {"seconds": seconds, "mebibytes": _peak_mebibytes() - bare}


def _choose(way: str) -> None:
    """Make the network take this way."""
    replacements: dict[str, dict[str, Callable[..., Any]]] = {
        "plain": {"_attend": _attend_plainly, "_is_cpu_inference": lambda _: False},
        "fused": {"_is_cpu_inference": lambda _: False},
        "as is": {},
    }
    for name, function in replacements[way].items():
        setattr(hcn, name, function)


def _attend_plainly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT * hcn.SOFTMAX_SCALE, dim=-1) @ value


def _step() -> tuple[nn.Module, list[Tensor]]:
    config = hcn.HcnConfig()
    mining = hcn.Mining(config.channels, config.match_channels)
    return mining, [torch.randn(1, config.channels, *size) for size in (LARGEST, NEXT)]


def _network() -> tuple[nn.Module, list[Tensor]]:
    rainy = torch.rand(1, 3, HEIGHT, WIDTH)
    return hcn.Hcn(), [rainy.contiguous(memory_format=torch.channels_last)]


def _time(network: nn.Module, inputs: list[Tensor]) -> float:
    began = time.process_time()
    network(*inputs)
    return time.process_time() - began


def _peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
