"""A batch on Ray Data: decode and encode as CPU tasks, one actor with the network per device.

Ray Data is the engine: it places the work, moves the images, holds back what would fill memory,
and does again what was lost with a process or a machine. Written here is only what an image is:
three functions over blocks of rows, the stages of `batch` inside them. A row carries one pickled
object: a `Job`, then a `Decoded`, a `Derained`, a `Result`. An image that fails is a row with the
result that says so, never an exception.

Ray Data's own checkpoints are not used: they know an image by its name alone, take a failure for
done, and do not see that an input or an option changed. The manifest does all three.
"""

import contextlib
import logging
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from derain_cli.batch.decoding import Decoded, Decoding
from derain_cli.batch.encoding import Encoding
from derain_cli.batch.events import Event, Job, Plan, Result, Started
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.network import Network
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.pipeline import Tally
from derain_cli.batch.writing import Claims
from derain_cli.errors import (
    DerainError,
    DiskError,
    UnavailableError,
    UnreadableImageError,
    UsageError,
)

RAY = "ray"
# Variables that Ray reads: no reports to its makers, no bars, no lines of its own on stderr.
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
REQUESTS = 16  # threads of a task, each with one image: most of the time they wait for a server
BLOCK_BYTES = 32 << 20  # of images in one object: small, so that the next stage begins early
BYTES_IN_FLIGHT = 2 << 30  # of images between the stages, over all machines
ROWS = (4, 256)  # jobs of one task, at least and at most
WINDOWS = 4  # batches from which images of one size are put together
# Ray Data prefetches, and would keep each block of results back until the next one is there.
AT_ONCE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "prefetch_batches": 0}


@dataclass(frozen=True)
class Devices:
    """What the network runs on.

    Attributes:
        name: Its device, as `Derainer` takes it.
        actors: How many of them.
        cpus: CPUs that each actor takes.
        gpus: GPUs that each actor takes.
        cpus_of_task: CPUs that a task which decodes or encodes takes.
        tasks: How many of these run at once.
    """

    name: str
    actors: int
    cpus: float
    gpus: float
    cpus_of_task: float
    tasks: int


def devices_of(resources: Mapping[str, float], asked: str) -> Devices:
    """One actor for each device of a cluster.

    Without GPUs an actor takes one CPU, and the tasks take none: they are light beside the network,
    and must find room on what is left of a cluster after a machine was lost, where the actors that
    start again would take every CPU.

    Args:
        resources: CPUs and GPUs of the cluster.
        asked: `--device`.

    Raises:
        UsageError: A device that the cluster does not have, or one of a single machine.

    Example:
        >>> devices_of({"CPU": 4.0}, "auto")
        Devices(name='cpu', actors=4, cpus=1, gpus=0, cpus_of_task=0, tasks=4)
        >>> devices_of({"CPU": 16.0, "GPU": 2.0}, "auto").actors
        2
    """
    cpus, gpus = int(resources.get("CPU", 1)) or 1, int(resources.get("GPU", 0))
    if asked not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {asked!r} and --on ray exclude each other: auto, cpu or cuda")
    if asked == "cuda" and not gpus:
        raise UsageError("--device cuda: this Ray cluster has no GPU")
    if gpus and asked != "cpu":
        return Devices("cuda", gpus, 0, 1, 1, max(2, cpus))
    return Devices("cpu", cpus, 1, 0, 0, max(2, cpus))


def run_on_ray(
    plan: Plan,
    checkpoint: Path,
    options: BatchOptions,
    engine: Mapping[str, Any],
    on: str,
    interrupter: Interrupter,
) -> Generator[Event]:
    """Derain every image of a plan on Ray; results come in the order in which they are ready.

    Args:
        plan: From `plan_batch` or `plan_addresses`; files must be reachable from every machine.
        checkpoint: File of the weights; its content goes to the actors.
        options: How images are read and written.
        engine: Keyword arguments of `Derainer`.
        on: `ray`, or `ray://ADDRESS` of a running cluster.
        interrupter: Raises the `KeyboardInterrupt` while the cluster is waited for.

    Raises:
        UsageError: Ray is not installed, or `on` is not of that form.
        UnavailableError: The cluster cannot be reached, or stopped.
    """
    began, tally = time.perf_counter(), Tally()
    to_do: list[Job] = []
    for job in plan.jobs:
        known = _known_result(job)
        if known is None:
            to_do.append(job)
            continue
        tally.count(known)
        yield known
    if to_do:
        with started(on) as ray, ray_errors(ray):
            devices = devices_of(ray.cluster_resources(), str(engine.get("device", "auto")))
            engine = dict(engine) | {"device": devices.name}
            results = _results(to_do, checkpoint, options, engine, devices, interrupter)
            for result in results:
                tally.count(result)
                yield Started(result.job)
                yield result
                if interrupter.asked:
                    raise KeyboardInterrupt
                if _ends_batch(result, options):
                    break
    yield tally.summary(len(plan.jobs), time.perf_counter() - began, 0.0)


def _known_result(job: Job) -> Result | None:
    if job.skip:
        return Result(job, "skipped")
    if job.problem:
        return Result(job, "failed", error=UnreadableImageError(job.problem))
    if job.kind != "image":
        reason = f"{job.name!r} moves: --on ray takes photos; derain it without that option"
        return Result(job, "failed", error=UsageError(reason))
    if job.source is None or job.derained is None:
        raise UsageError("--on ray reads and writes files or addresses, not stdin or stdout")
    return None


def _ends_batch(result: Result, options: BatchOptions) -> bool:
    failed = result.status == "failed"
    return failed and (options.fail_fast or isinstance(result.error, DiskError))


@contextlib.contextmanager
def started(on: str) -> Iterator[Any]:
    """Ray, connected to a running cluster or started here and stopped at the end.

    Raises:
        UsageError: Ray is not installed, or `on` is not of the form `ray[://ADDRESS]`.
        UnavailableError: No cluster at that address.
    """
    address, ray = address_of(on), import_ray()
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        settings["address"] = address
    else:
        settings |= {"include_dashboard": False, "address": "local"}
        settings["object_store_memory"] = _object_store()
    try:
        with _silent():
            ray.init(**settings)
        with contextlib.suppress(AttributeError):
            # What Ray says of a lost machine it prints on stdout, which is the product's alone.
            ray._private.worker._worker_logs_enabled = False
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UnavailableError(f"--on {on!r}: no Ray cluster answers ({reason})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def address_of(on: str) -> str:
    """The address of a running cluster that `--on` names, empty for a local one.

    Raises:
        UsageError: It is not of the form `ray[://ADDRESS]`.

    Example:
        >>> address_of("ray://10.0.0.1:6379")
        '10.0.0.1:6379'
    """
    name, separator, address = on.partition("://")
    if name != RAY or (separator and not address):
        raise UsageError(f"--on {on!r}: write ray, ray://HOST:PORT or ray://auto")
    return address


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """What native code prints on stderr is dropped; failures are raised all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_ray() -> Any:  # noqa: ANN401 (an extra)
    """Ray, quiet and without reports to its makers.

    Raises:
        UsageError: It is not installed.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray  # noqa: PLC0415 (an extra, and heavy)
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("--on ray needs the extra ray: pip install 'derain-cli[ray]'") from error
    for noisy in ("ray", "ray.data"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return ray


def _object_store() -> int:
    """Bytes for the objects of a local Ray: a part of the memory, and not more than is of use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(128 << 20, min(BYTES_IN_FLIGHT, total // 8))


@contextlib.contextmanager
def ray_errors(ray: Any) -> Iterator[None]:  # noqa: ANN401
    """What Ray could not mend, as one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[:200]
        raise UnavailableError(
            f"Ray gave up: {reason}; what is done is done, --skip-existing goes on from there"
        ) from error


def _results(
    jobs: Sequence[Job],
    checkpoint: Path,
    options: BatchOptions,
    engine: Mapping[str, Any],
    devices: Devices,
    interrupter: Interrupter,
) -> Iterator[Result]:
    import ray.data as data  # noqa: PLC0415

    quiet_context(data)
    rows = _rows(len(jobs), devices.tasks)
    table = data.from_arrow([table_of(part) for part in _parts(jobs, rows)])
    tasks: dict[str, Any] = {
        "batch_size": None,
        "batch_format": "pyarrow",
        "num_cpus": devices.cpus_of_task,
        "compute": data.TaskPoolStrategy(devices.tasks),
    }
    results = (
        table.map_batches(decode_rows, fn_kwargs={"options": options}, **tasks)
        .map_batches(
            DerainRows,
            fn_constructor_args=(checkpoint.name, checkpoint.read_bytes(), options, engine),
            batch_size=max(ROWS[0], WINDOWS * options.batch_size),
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=devices.actors),
            num_cpus=devices.cpus,
            num_gpus=devices.gpus,
        )
        .map_batches(encode_rows, fn_kwargs={"options": options}, **tasks)
    )
    batches = iter(results.iter_batches(**AT_ONCE))
    while True:
        with interrupter.in_network():
            batch = next(batches, None)
        if batch is None:
            return
        yield from objects_of(batch)


def quiet_context(data: Any) -> None:  # noqa: ANN401 (an extra)
    """Set how Ray Data works in this process: no bars of its own, small objects, bounded bytes."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = BLOCK_BYTES
    limits = context.execution_options.resource_limits
    context.execution_options.resource_limits = limits.copy(object_store_memory=BYTES_IN_FLIGHT)


def on_devices(
    items: Sequence[object], actor: type, arguments: tuple[Any, ...], devices: Devices
) -> Iterator[Any]:
    """What actors, one per device, make of items: the objects in the tables that they yield."""
    import ray.data as data  # noqa: PLC0415

    quiet_context(data)
    blocks = [table_of(part) for part in _parts(items, _rows(len(items), devices.actors))]
    results = data.from_arrow(blocks).map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        compute=data.ActorPoolStrategy(size=devices.actors),
        num_cpus=devices.cpus,
        num_gpus=devices.gpus,
    )
    for batch in results.iter_batches(**AT_ONCE):
        yield from objects_of(batch)


def _rows(count: int, workers: int) -> int:
    """Rows of one task: several tasks for each worker, and none of them tiny or huge."""
    return min(max(count // (8 * workers), ROWS[0]), ROWS[1])


def _parts(items: Sequence[Any], rows: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), rows):
        yield items[start : start + rows]


def table_of(objects: Iterable[object]) -> Any:  # noqa: ANN401 (pyarrow has no types)
    """Objects as rows: each pickled, in one column whose bytes Ray can count."""
    import pyarrow as pa  # noqa: PLC0415 (comes with Ray)

    content = [pickle.dumps(item, protocol=5) for item in objects]
    return pa.table({"content": pa.array(content, pa.large_binary())})


def objects_of(table: Any) -> Iterator[Any]:  # noqa: ANN401
    """The objects in the rows, which other stages of the same run made."""
    for item in table.column("content"):
        yield pickle.loads(item.as_buffer())


def decode_rows(table: Any, options: BatchOptions) -> Iterator[Any]:  # noqa: ANN401
    """`Job`s to `Decoded` images, several fetched at once; a failure is a `Result`."""
    options = replace(options, workers=options.workers or REQUESTS, batch_size=1)
    # The plan knows what is there. No claims: a task that is done again would meet its own.
    decoding = Decoding(replace(options, skip_existing=False), b"", Claims())
    try:
        for group in decoding.groups(list(objects_of(table))):
            yield table_of(group if isinstance(group, list) else [group])
    finally:
        decoding.close()


class DerainRows:
    """`Decoded` images to `Derained` ones: the network, loaded once per device."""

    def __init__(
        self, name: str, content: bytes, options: BatchOptions, engine: Mapping[str, Any]
    ) -> None:
        from derain_cli.inference.derainer import Derainer  # noqa: PLC0415 (heavy, for actors only)

        self._options = options
        self._problem: DerainError | None = None
        self._network = Network(None, options.strength, Interrupter())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_bytes(content)
            try:
                derainer = Derainer.load(path, **engine)
            except DerainError as error:
                self._problem = error
                return
        self._network = Network(derainer, options.strength, Interrupter())

    def __call__(self, table: Any) -> Iterator[Any]:  # noqa: ANN401
        """The rows of a block; images of one size go through the network together."""
        for group in _by_size(objects_of(table), self._options.batch_size):
            if isinstance(group, Result):
                yield table_of([group])
            elif self._problem is not None:
                yield table_of(item.result(status="failed", error=self._problem) for item in group)
            else:
                yield table_of(self._network.derain(group))


def _by_size(items: Iterable[Decoded | Result], most: int) -> Iterator[Result | list[Decoded]]:
    groups: dict[tuple[tuple[int, ...], np.dtype[Any]], list[Decoded]] = {}
    for item in items:
        if isinstance(item, Result):
            yield item
            continue
        rgb = item.image.rgb
        group = groups.setdefault((rgb.shape, rgb.dtype), [])
        group.append(item)
        if len(group) == most:
            yield groups.pop((rgb.shape, rgb.dtype))
    yield from groups.values()


def encode_rows(table: Any, options: BatchOptions) -> Iterator[Any]:  # noqa: ANN401
    """`Derained` images to files, several on their way at once; what is left is the `Result`."""
    options = replace(options, workers=options.workers or REQUESTS)
    encoding = Encoding(replace(options, skip_existing=False), Claims())
    try:
        waiting = [
            item if isinstance(item, Result) else encoding.submit(item)
            for item in objects_of(table)
        ]
        yield table_of(item if isinstance(item, Result) else item.result() for item in waiting)
    finally:
        encoding.close()
