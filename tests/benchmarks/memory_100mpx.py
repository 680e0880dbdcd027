"""Peak memory of a 100-megapixel image on the CPU: `python tests/benchmarks/memory_100mpx.py`.

Two processes: one only imports torch, the other derains an image of noise from array to array. The
difference of their peaks (VmHWM, Linux) must stay under 2 GiB; the two images alone are 0.56 GiB.
"""

import argparse
import subprocess
import sys

LIMIT = 2048
READ_PEAK = "; import re, pathlib; print(re.search(r'VmHWM:\\s+(\\d+)', "
READ_PEAK += "pathlib.Path('/proc/self/status').read_text())[1])"
DERAIN = """
import numpy, torch
from derain_cli.inference.derainer import Derainer
from derain_cli.models import build_model, find_model
derainer = Derainer(build_model({model!r}), find_model({model!r}), name={model!r}, {options})
rainy = numpy.random.default_rng(0).integers(0, 256, ({height}, {width}, 3), numpy.uint8)
derained, facts = derainer.run(rainy)
print(facts)
pass"""


def main() -> None:
    """Print both peaks; exit code 1 when the difference is over the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="rdmc")
    parser.add_argument("--size", default="10000x10000", help="width x height")
    parser.add_argument("--options", default="device='cpu'", help="more of Derainer's arguments")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    bare = peak_of("import torch")
    code = DERAIN.format(
        model=arguments.model, width=width, height=height, options=arguments.options
    )
    extra = peak_of(code) - bare
    print(f"import torch: {bare} MiB; {arguments.size} with {arguments.model}: {extra} MiB more")
    sys.exit(extra > LIMIT)


def peak_of(code: str) -> int:
    """Largest resident memory, in MiB, of a Python process that runs this code."""
    command = [sys.executable, "-c", code + READ_PEAK]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *told, kibibytes = output.splitlines()
    print(*told, sep="\n", end="\n" if told else "")
    return int(kibibytes) // 1024


if __name__ == "__main__":
    main()
