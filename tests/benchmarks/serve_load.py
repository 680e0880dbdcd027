"""What `derain serve` holds: many requests at once, none lost, memory flat.

    python tests/benchmarks/serve_load.py --requests 200 --at-once 8 -m menet-real

Starts a real server, sends it images of several sizes, tries again where it answers 503, and prints
how many came back, the answers per second, and the server's memory after each quarter (Linux).
"""

import argparse
import http.client
import io
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((160, 120), (240, 180), (321, 233))


def start(arguments: list[str]) -> tuple[subprocess.Popen[str], int]:
    """The server and its port."""
    command = [sys.executable, "-m", "derain_cli", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        match = re.search(r"open http://127\.0\.0\.1:(\d+)/", line)
        if match:
            return process, int(match[1])
    raise SystemExit("the server did not start")


def photo(size: tuple[int, int]) -> bytes:
    """A JPEG of noise."""
    stream = io.BytesIO()
    noise = np.random.default_rng(sum(size)).integers(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(stream, "jpeg")
    return stream.getvalue()


def memory(process: subprocess.Popen[str]) -> float:
    """Resident megabytes; 0 where the system does not say."""
    status = Path(f"/proc/{process.pid}/status")
    match = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.is_file() else None
    return int(match[1]) / 1000 if match else 0.0


def ask(port: int, image: bytes, statuses: Counter[int]) -> bytes:
    """One answer, after as many tries as it takes."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("POST", "/v1/derain", image)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        statuses[response.status] += 1
        if response.status != 503:
            return body
        time.sleep(0.2)


def main() -> None:
    """Run the load and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--queue", type=int, default=4)
    parser.add_argument("-m", "--model", default="menet-real")
    chosen = parser.parse_args()
    process, port = start(["-m", chosen.model, "--queue", str(chosen.queue)])
    images = [photo(size) for size in SIZES]
    expected = [ask(port, image, Counter()) for image in images]
    statuses: Counter[int] = Counter()
    wrong, finished, lock = 0, 0, threading.Lock()
    began = time.perf_counter()

    def one(index: int) -> None:
        nonlocal wrong, finished
        which = index % len(images)
        same = ask(port, images[which], statuses) == expected[which]
        with lock:
            wrong += not same
            finished += 1
            if finished % max(1, chosen.requests // 4) == 0:
                print(f"after {finished}: {memory(process):.0f} MB")

    print(f"at the start: {memory(process):.0f} MB")
    with ThreadPoolExecutor(chosen.at_once) as pool:
        list(pool.map(one, range(chosen.requests)))
    seconds = time.perf_counter() - began
    print(f"{finished} answered, {wrong} with other bytes than the first, in {seconds:.0f} s")
    print(f"statuses: {dict(statuses)}")
    process.terminate()
    process.wait(30)


if __name__ == "__main__":
    main()
