"""How long a large job takes and what it costs: a model of measured pieces.

Per image a worker decodes, runs its network and encodes; around that it waits for two requests of
its bucket. Waiting overlaps with work as long as enough requests are under way, so a worker is as
fast as the slowest of three: its processors, its device, its requests. Workers do not get into one
another's way until the bucket's own limit or the one process that hands out the work is reached.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from derain_cli.batch.decoding import Decoded, Decoding
from derain_cli.batch.encoding import Encoding
from derain_cli.batch.events import Plan
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.network import Derained, Network
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.writing import Claims
from derain_cli.errors import NothingToDoError
from derain_cli.scale.fetching import REQUESTS

if TYPE_CHECKING:
    from derain_cli.inference.derainer import Derainer

BUCKET_RATE = 3500.0
"""Writes a second that S3 promises for one prefix; more prefixes give more."""
DRIVER_RATE = 2000.0
"""Results a second that the process which reads them can take: an assumption until
`tests/benchmarks/slow_bucket.py --driver` has measured it."""


@dataclass(frozen=True)
class Pieces:
    """Seconds that one image takes, by part.

    Attributes:
        decode: On a processor.
        network: On the device.
        encode: On a processor.
        request: Until the bucket has answered once.
    """

    decode: float
    network: float
    encode: float
    request: float = 0.0


@dataclass(frozen=True)
class Worker:
    """One machine of the plan.

    Attributes:
        cpus: Its processors.
        devices: Its GPUs; 0: the network runs on the processors.
        requests: Files under way at once, in each direction.
        price: Of an hour, in any currency.
    """

    cpus: int = 1
    devices: int = 0
    requests: int = REQUESTS
    price: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What so many workers do.

    Attributes:
        workers: How many.
        rate: Images a second, together.
        bound: What holds them back: "network", "processors", "requests", "bucket" or "driver".
        hours: For the whole job.
        cost: Of the whole job, in the currency of the price.
    """

    workers: int
    rate: float
    bound: str
    hours: float
    cost: float


def rate_of(pieces: Pieces, worker: Worker) -> tuple[float, str]:
    """Images a second of one worker, and what holds it back.

    Example:
        >>> rate_of(Pieces(0.01, 0.2, 0.03, 0.1), Worker(cpus=4, devices=1))
        (5.0, 'network')
        >>> rate_of(Pieces(0.01, 0.0125, 0.005, 0.8), Worker(cpus=4, devices=1))
        (40.0, 'requests')
    """
    beside = pieces.decode + pieces.encode
    limits = {"requests": _per_second(worker.requests, pieces.request)}
    if worker.devices:
        limits["network"] = _per_second(worker.devices, pieces.network)
        limits["processors"] = _per_second(worker.cpus, beside)
    else:
        limits["processors"] = _per_second(worker.cpus, beside + pieces.network)
    bound = min(limits, key=lambda name: limits[name])
    return limits[bound], bound


def _per_second(count: float, seconds: float) -> float:
    return count / seconds if seconds else float("inf")


def forecast(
    pieces: Pieces,
    worker: Worker,
    counts: Sequence[int],
    images: int,
    *,
    bucket_rate: float = BUCKET_RATE,
    driver_rate: float = DRIVER_RATE,
) -> list[Forecast]:
    """What each number of workers does.

    Args:
        pieces: As measured.
        worker: One of them.
        counts: Numbers of workers.
        images: Of the whole job.
        bucket_rate: Images a second that the bucket takes.
        driver_rate: Images a second that the process which hands out the work can follow.

    Example:
        >>> plan = forecast(Pieces(0.1, 0.9, 0.0), Worker(price=1.0), [1, 5000], 3600)
        >>> [(f.rate, f.bound, f.hours, f.cost) for f in plan]
        [(1.0, 'processors', 1.0, 1.0), (2000.0, 'driver', 0.0005, 2.5)]
    """
    one, own_bound = rate_of(pieces, worker)
    forecasts = []
    for count in counts:
        limits = {own_bound: one * count, "bucket": bucket_rate, "driver": driver_rate}
        bound = min(limits, key=lambda name: limits[name])
        hours = images / limits[bound] / 3600
        forecasts.append(Forecast(count, limits[bound], bound, hours, hours * count * worker.price))
    return forecasts


def measure_pieces(
    plan: Plan, derainer: "Derainer", options: BatchOptions, request: float = 0.0
) -> Pieces:
    """Time the parts on sample images, one after the other; results are encoded, not written.

    Args:
        plan: Of the sample.
        derainer: The network; its first run, which allocates, is not counted.
        options: How images are read and written.
        request: Seconds until the bucket has answered once, as measured elsewhere.

    Raises:
        NothingToDoError: No image of the sample can be derained.
    """
    decoding, encoding = Decoding(options, b"", Claims()), Encoding(options, Claims())
    network = Network(derainer, options.strength, Interrupter())
    spent = {"decode": 0.0, "network": 0.0, "encode": 0.0}
    count = 0
    try:
        for job in plan.to_do:
            decoded = decoding.read(job)
            if not isinstance(decoded, Decoded):
                continue
            if not count:
                list(network.derain([decoded]))
            for item in network.derain([decoded]):
                if isinstance(item, Derained):
                    count += 1
                    spent["decode"] += decoded.seconds
                    spent["network"] += item.seconds
                    spent["encode"] += _seconds_to_encode(encoding, item)
    finally:
        decoding.close()
        encoding.close()
    if not count:
        raise NothingToDoError("no image of the sample could be derained")
    return Pieces(**{part: seconds / count for part, seconds in spent.items()}, request=request)


def _seconds_to_encode(encoding: Encoding, item: Derained) -> float:
    began = time.perf_counter()
    encoding.encode_all(item.rainy.job, item.rainy.image, item.pixels)
    return time.perf_counter() - began
