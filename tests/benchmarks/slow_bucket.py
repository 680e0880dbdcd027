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
    command += ["-m", model, "-d", "cpu", "--threads", "1", "--engine", "torch", "--json", "-q"]
    out = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    summary = json.loads(out.splitlines()[-1])
    return {
        "rate": summary["done"] / summary["seconds"],
        "network_rate": summary["done"] / summary["network_seconds"],
    }


def run_on(workers: int, model: str, folder: Path) -> tuple[float, float]:
    """Images a second on so many processors of Ray, and the share of the network's own rate.

    The share is the part of its time, from its first image to its last, in which an actor's
    network ran: what is missing it waited for images. Other programs slow both alike.
    """
    from ray.cluster_utils import Cluster

    from derain_cli.batch import BatchOptions, Interrupter, Result
    from derain_cli.checkpoints.resolving import load_model
    from derain_cli.scale import on_ray
    from derain_cli.scale.planning import plan_addresses

    on_ray.import_ray()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": workers,
            "object_store_memory": 300 << 20,
            "include_dashboard": False,
        },
    )
    options = BatchOptions(output=f"s3://{BUCKET}/{workers}/", overwrite=True)
    plan = plan_addresses([f"s3://{BUCKET}/in/"], options)
    engine = {"device": "cpu", "threads": 1, "engine": "torch"}
    untimed, on_ray.DerainRows = on_ray.DerainRows, timed_rows(on_ray.DerainRows, folder)
    try:
        events = on_ray.run_on_ray(
            plan, load_model(model).path, options, engine, f"ray://{cluster.address}", Interrupter()
        )
        failed = [e for e in events if isinstance(e, Result) and e.status != "done"]
    finally:
        on_ray.DerainRows = untimed
        cluster.shutdown()
    if failed:
        raise SystemExit(f"failed: {failed[0].error}")
    spans = [np.loadtxt(notes, ndmin=2) for notes in folder.iterdir()]
    begin, end = min(s[0, 0] for s in spans), max(s[-1, 1] for s in spans)
    busy = sum((s[:, 1] - s[:, 0]).sum() for s in spans)
    there = sum(s[-1, 1] - s[0, 0] for s in spans)
    return sum(map(len, spans)) / (end - begin), busy / there


def timed_rows(rows: type, folder: Path) -> type:
    """Actors that note when the network begins with an image and when it ends."""

    class TimedRows(rows):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            untimed, notes = self._network.derain, folder / f"{os.getpid()}.txt"

            def derain(group: Any) -> Any:
                images = untimed(group)
                while True:
                    began = time.time()
                    image = next(images, None)
                    if image is None:
                        return
                    with notes.open("a") as file:
                        file.write(f"{began:.6f} {time.time():.6f}\n")
                    yield image

            self._network.derain = derain

    return TimedRows


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
        print(pieces, f"processors here: {os.cpu_count()}", flush=True)
        alone = run_alone(arguments.model)
        share = alone["rate"] / alone["network_rate"]
        print(
            f"one process: {alone['rate']:.2f} images/s, {share:.0%} of its network's own rate",
            flush=True,
        )
        for expected in forecast(pieces, Worker(), arguments.workers, arguments.images):
            with tempfile.TemporaryDirectory() as folder:
                rate, share = run_on(expected.workers, arguments.model, Path(folder))
            print(
                f"Ray, {expected.workers} workers: {rate:.2f} images/s, {share:.0%} of the "
                f"network's own rate (predicted {expected.rate:.2f} if there are as many "
                "processors)",
                flush=True,
            )
    finally:
        server.communicate("")


if __name__ == "__main__":
    main()
