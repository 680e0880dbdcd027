"""A folder of 100,000 images: how long the plan takes, when the first result is there, and memory.

    python tests/benchmarks/hundred_thousand.py --images 100000 --results 5000

The images are hard links to one small file. Wall time on a busy machine says little, so processor
time is printed beside it. The run is ended after `--results` results.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

PLAN = """
import resource, sys, time
from derain_cli.batch import BatchOptions, plan_batch

began, busy = time.perf_counter(), time.process_time()
plan = plan_batch([sys.argv[1]], BatchOptions(output=sys.argv[2], recursive=True))
print(
    f"plan of {len(plan.jobs)} images: {time.perf_counter() - began:.1f} s "
    f"({time.process_time() - busy:.1f} s of processor), "
    f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most"
)
"""


def make_images(folder: Path, count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    for start in range(0, count, 1000):
        below = folder / f"{start // 1000:04}"
        below.mkdir(parents=True)
        first = below / "00000.jpg"
        first.write_bytes(stream.getvalue())
        for index in range(1, min(1000, count - start)):
            os.link(first, below / f"{index:05}.jpg")


def resident(process: int) -> float:
    """Megabytes of a process that are in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def busy(process: int) -> float:
    """Seconds that a process has had a processor."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(folder: Path, out: Path, model: str, results: int) -> None:
    command = [sys.executable, "-m", "derain_cli", str(folder), "-r", "-o", f"{out}/", "-q"]
    command += ["-m", model, "-d", "cpu", "--threads", "1"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    print("results, seconds, seconds of processor, MB:")
    for count, _line in enumerate(process.stdout, 1):
        if count == 1 or count % (results // 5) == 0:
            seconds = time.perf_counter() - began
            facts = (seconds, busy(process.pid), resident(process.pid))
            print(f"{count:>8}", *(f"{fact:>8.1f}" for fact in facts), flush=True)
        if count == results:
            process.send_signal(signal.SIGINT)
            break
    process.stdout.read()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--results", type=int, default=5000)
    parser.add_argument("--model", default="rdmc-real")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "in", Path(name) / "out"
        make_images(folder, arguments.images)
        subprocess.run([sys.executable, "-c", PLAN, str(folder), f"{out}/"], check=True)
        run(folder, out, arguments.model, arguments.results)


if __name__ == "__main__":
    main()
