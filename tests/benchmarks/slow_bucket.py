"""Does overlap hide a slow bucket? Measured against the plan of `derain scale-plan`.

A server that speaks S3 answers each request after a pause, in a process of its own. Images go from
bucket to bucket: in one process, then on Ray with 1, 2 and 4 workers of one processor. Printed are
the rates, what the model predicts from pieces measured before, and the share of the network's own
rate that is left. Speed-up ends at the processors there are.

    python tests/benchmarks/slow_bucket.py --images 48 --latency 0.1 --workers 1 2 4

`--driver` measures instead how many results a second the process that reads them can take.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

BUCKET = "photos"


def serve(latency: float) -> None:
    """Run the server until stdin ends; its port is printed first."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = DomainDispatcherApplication(create_backend_app)

    def slow(environment: dict[str, Any], respond: Any) -> Any:
        time.sleep(latency)
        return moto(environment, respond)

    server = make_server("127.0.0.1", 0, slow, threaded=True)
    print(server.server_port, flush=True)
    import threading

    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


def start_server(latency: float) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--serve", "--latency", str(latency)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, **pipes)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.stdout.readline().strip()}",
        "NO_PROXY": "127.0.0.1",
    }
    return server


def upload(count: int, side: int) -> bytes:
    import fsspec
    from PIL import Image

    files = fsspec.filesystem("s3")
    files.mkdir(BUCKET)
    slope = np.linspace(0, 200, side)[None, :, None]
    pixels = slope + np.random.default_rng(0).integers(0, 40, (side, side, 3))
    stream = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=90)
    files.pipe({f"{BUCKET}/in/{index:05}.jpg": stream.getvalue() for index in range(count)})
    return stream.getvalue()


def pieces_of(image: bytes, model: str, latency: float, folder: Path) -> Any:
    from derain_cli.batch import BatchOptions, plan_batch
    from derain_cli.inference.derainer import Derainer
    from derain_cli.scale.throughput import measure_pieces

    for index in range(4):
        (folder / f"{index}.jpg").write_bytes(image)
    options = BatchOptions(overwrite=True)
    derainer = Derainer.load(model, device="cpu", threads=1)
    return measure_pieces(plan_batch([str(folder)], options), derainer, options, latency)


def run_alone(model: str) -> dict[str, float]:
    """In a process of its own, by the command's own summary."""
    command = [sys.executable, "-m", "derain_cli", f"s3://{BUCKET}/in/", "-o", f"s3://{BUCKET}/a/"]
    command += ["-m", model, "-d", "cpu", "--threads", "1", "--json", "-q"]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    summary = json.loads(out.splitlines()[-1])
    return {
        "rate": summary["done"] / summary["seconds"],
        "network_rate": summary["done"] / summary["network_seconds"],
    }


def run_on(workers: int, model: str) -> float:
    """Images a second on so many processors of Ray, from the first result to the last."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": workers,
            "object_store_memory": 300 << 20,
            "include_dashboard": False,
        },
    )
    command = [sys.executable, "-m", "derain_cli", f"s3://{BUCKET}/in/", "--overwrite", "-q"]
    command += ["-o", f"s3://{BUCKET}/{workers}/", "-m", model, "-d", "cpu", "--threads", "1"]
    process = subprocess.Popen(
        [*command, "--on", f"ray://{cluster.address}"], stdout=subprocess.PIPE
    )
    times = [time.perf_counter() for _line in process.stdout]
    if process.wait():
        raise SystemExit("the run on Ray failed")
    cluster.shutdown()
    # The first results come together, with the first block.
    start = next(i for i, moment in enumerate(times) if moment > times[0] + 0.2)
    return (len(times) - start) / (times[-1] - times[start - 1])


def measure_driver(count: int) -> float:
    """Results a second that the reading process takes, of rows that cost nothing to make."""
    import ray
    import ray.data

    from derain_cli.batch.events import Job, Result
    from derain_cli.scale import on_ray

    on_ray.import_ray()
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    on_ray.quiet_context(ray.data)
    results = [Result(Job(Path(f"{i}.jpg")), "done", 1, 1, 8, 0.1) for i in range(count)]
    tables = [on_ray.table_of(results[start : start + 256]) for start in range(0, count, 256)]
    began = time.perf_counter()
    taken = 0
    for batch in ray.data.from_arrow(tables).iter_batches(batch_size=None, batch_format="pyarrow"):
        taken += sum(1 for _ in on_ray.objects_of(batch))
    seconds = time.perf_counter() - began
    ray.shutdown()
    return taken / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--model", default="rdmc-real")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--driver", action="store_true")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.latency)
        return
    if arguments.driver:
        print(f"{measure_driver(20_000):.0f} results/s")
        return
    import tempfile

    from derain_cli.scale.throughput import Worker, forecast

    server = start_server(arguments.latency)
    try:
        image = upload(arguments.images, arguments.side)
        with tempfile.TemporaryDirectory() as folder:
            pieces = pieces_of(image, arguments.model, arguments.latency, Path(folder))
        print(pieces, f"processors here: {os.cpu_count()}")
        alone = run_alone(arguments.model)
        share = alone["rate"] / alone["network_rate"]
        print(f"one process: {alone['rate']:.2f} images/s, {share:.0%} of its network's own rate")
        for expected in forecast(pieces, Worker(), arguments.workers, arguments.images):
            rate = run_on(expected.workers, arguments.model)
            print(
                f"Ray, {expected.workers} workers: {rate:.2f} images/s "
                f"(predicted {expected.rate:.2f} if there are as many processors)"
            )
    finally:
        server.communicate("")


if __name__ == "__main__":
    main()
