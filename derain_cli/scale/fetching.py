"""Reading ahead: files of a server are on their way while earlier ones are worked on."""

import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from derain_cli.batch.events import Job, Plan
from derain_cli.images import decoded_bytes
from derain_cli.scale.addresses import Address

REQUESTS = 32  # at once; at 100 ms each, 320 files a second
BYTES_AHEAD = 256 << 20  # of files fetched or on their way, and not yet decoded
GUESSED_BYTES = 4 << 20  # of a file whose size no listing said
LISTED_AHEAD = 4000

Item = TypeVar("Item")


@dataclass(frozen=True)
class Fetched:
    """A file that is on its way; its bytes are given out once, so that they do not stay."""

    address: Address
    _content: list[Future[bytes]] = field(compare=False, repr=False)

    def __str__(self) -> str:
        return str(self.address)

    @property
    def name(self) -> str:
        """As of the address."""
        return self.address.name

    @property
    def suffix(self) -> str:
        """As of the address."""
        return self.address.suffix

    @property
    def decoded_size(self) -> int:
        """From the image's header, 0 where it cannot be read."""
        try:
            return decoded_bytes(self._content[0].result())
        except Exception:  # noqa: BLE001 (decoding will say why, of this image alone)
            return 0

    def read_bytes(self) -> bytes:
        """The content; a second time it is fetched again."""
        return self._content.pop().result() if self._content else self.address.read_bytes()

    def write_whole(self, content: bytes, *, overwrite: bool) -> bool:
        """As of the address."""
        return self.address.write_whole(content, overwrite=overwrite)


class _FetchedAhead(Collection[Job]):
    """Jobs whose files are fetched before they are asked for, within bounds."""

    def __init__(self, jobs: Collection[Job]) -> None:
        self._jobs = jobs

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: object) -> bool:
        return job in self._jobs

    def __iter__(self) -> Iterator[Job]:
        pool = ThreadPoolExecutor(REQUESTS, "derain-fetch")
        ahead: deque[tuple[int, Job]] = deque()
        try:
            for job in self._jobs:
                size, coming = _begin(job, pool)
                while ahead and (
                    len(ahead) > 2 * REQUESTS or size + sum(n for n, _ in ahead) > BYTES_AHEAD
                ):
                    yield ahead.popleft()[1]
                ahead.append((size, coming))
            while ahead:
                yield ahead.popleft()[1]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin(job: Job, pool: ThreadPoolExecutor) -> tuple[int, Job]:
    """The bytes that a job will hold, and the job with its file on its way."""
    if not isinstance(job.source, Address) or job.skip or job.problem:
        return 0, job
    coming = Fetched(job.source, [pool.submit(job.source.read_bytes)])
    size = job.source.size or GUESSED_BYTES
    return size, dataclasses.replace(job, source=coming)


def fetch_ahead(plan: Plan) -> Plan:
    """The plan, whose files on servers are fetched while earlier ones are worked on."""
    return dataclasses.replace(plan, jobs=_FetchedAhead(plan.jobs))


def listed_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items, taken by a thread: the next page of a listing comes during the work."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(LISTED_AHEAD)
    given_up = threading.Event()

    def put(item: Item | None, error: BaseException | None = None) -> None:
        while not given_up.is_set():
            try:
                waiting.put((item, error), timeout=0.2)
            except queue.Full:
                continue
            return

    def take() -> None:
        try:
            for item in items:
                put(item)
                if given_up.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 (raised again where the items are taken)
            put(None, error)

    threading.Thread(target=take, name="derain-list", daemon=True).start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        given_up.set()
