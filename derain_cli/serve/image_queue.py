"""The image queue: two images decoded, one of them in the network; others wait or are refused.

Decoding and encoding have their own threads and the network has one, so an image is read while the
previous one is derained. The numbers of decoded and of waiting images are bounded.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from derain_cli.images import Picture
from derain_cli.serve.failures import RefusedError
from derain_cli.serve.jobs import Answer, Job, make_answer, make_preview, read_rainy
from derain_cli.serve.networks import Networks
from derain_cli.serve.settings import ServeOptions

AT_ONCE = 2  # images decoded at any time: one in the network, one on its way in or out
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass
class Ticket:
    """State of an image in the queue.

    Attributes:
        state: receiving, waiting, reading, deraining or writing.
        began: When the network began, by the monotonic clock.
        expected: Seconds that the network is expected to take; None: unknown.
        unwanted: Set when the client has gone.
    """

    state: str = "receiving"
    began: float = 0.0
    expected: float | None = None
    unwanted: threading.Event = field(default_factory=threading.Event)


class ImageQueue:
    """Queue of all images of a server.

    Attributes:
        networks: Networks of the server.
        options: Limits of the server.
        answered: Number of images answered.
    """

    def __init__(self, networks: Networks, options: ServeOptions) -> None:
        self.networks, self.options = networks, options
        self.answered = 0
        self._tickets: dict[str, Ticket] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._file_threads = ThreadPoolExecutor(AT_ONCE, "derain-serve-files")
        self._network = ThreadPoolExecutor(1, "derain-serve-network")
        self._mean_seconds = 1.0
        self._closed = threading.Event()

    def close(self) -> None:
        """Abandon all work, because the server stops."""
        self._closed.set()
        for pool in (self._file_threads, self._network):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def ticket(self, key: str) -> Iterator[Ticket]:
        """Context that holds a place in the queue during a request.

        Raises:
            RefusedError: The queue is full, or the key is in use.
        """
        if key in self._tickets:
            raise RefusedError(f"a job {key!r} is in progress already", 409, "usage")
        if len(self._tickets) >= AT_ONCE + self.options.queue:
            wait = max(1, round(self._mean_seconds * len(self._tickets)))
            raise RefusedError(
                f"{len(self._tickets)} images are waiting already: try again in {wait} s",
                503,
                "busy",
                code=5,
                Retry_After=str(wait),
            )
        self._tickets[key] = ticket = Ticket()
        try:
            yield ticket
        finally:
            ticket.unwanted.set()
            del self._tickets[key]

    async def derain(self, job: Job, ticket: Ticket) -> Answer:
        """Derain the image of a job.

        Raises:
            DerainError: From reading, the network or writing.
        """
        name = self.networks.check(job.model)
        ticket.state = "waiting"
        async with self._at_once:
            began = time.monotonic()
            ticket.state = "reading"
            rainy = await self._in(
                self._file_threads, ticket, read_rainy, job, self.options.max_pixels
            )
            derained, notices = await self._in(
                self._network, ticket, self._run, name, job, rainy, ticket
            )
            ticket.state = "writing"
            answer = await self._in(self._file_threads, ticket, make_answer, job, rainy, derained)
            self._mean_seconds += 0.2 * (time.monotonic() - began - self._mean_seconds)
        self.answered += 1
        return Answer(answer.content, answer.format, answer.name, answer.notices + notices)

    async def preview(self, job: Job, ticket: Ticket) -> Answer:
        """The image of a job in a format that every browser shows."""
        ticket.state = "waiting"
        async with self._at_once:
            ticket.state = "reading"
            picture = await self._in(
                self._file_threads, ticket, read_rainy, job, self.options.max_pixels
            )
            return await self._in(self._file_threads, ticket, make_preview, job, picture)

    def progress(self, key: str) -> dict[str, Any] | None:
        """Progress of a job; None if the key is unknown."""
        ticket = self._tickets.get(key)
        if ticket is None:
            return None
        before = [other for other in self._tickets.values() if other.state == "waiting"]
        place = before.index(ticket) + 1 if ticket in before else None
        elapsed = time.monotonic() - ticket.began if ticket.state == "deraining" else None
        return {
            "state": ticket.state,
            "place": place,
            "seconds": elapsed,
            "expected_seconds": ticket.expected,
        }

    def counts(self) -> dict[str, int]:
        """Occupancy of the queue."""
        waiting = sum(ticket.state == "waiting" for ticket in self._tickets.values())
        return {
            "places": AT_ONCE + self.options.queue,
            "taken": len(self._tickets),
            "waiting": waiting,
            "answered": self.answered,
        }

    def _run(
        self, name: str, job: Job, rainy: Picture, ticket: Ticket
    ) -> tuple[Any, tuple[str, ...]]:
        """Run the network, in its own thread."""
        megapixels = rainy.width * rainy.height / 1e6
        derainer = self.networks.get(name)
        derainer.is_unwanted = lambda: ticket.unwanted.is_set() or self._closed.is_set()
        ticket.expected = self.networks.expected_seconds(name, megapixels)
        ticket.began, ticket.state = time.monotonic(), "deraining"
        derained, facts = derainer.run(rainy.rgb, job.strength)
        if job.strength > 0:
            self.networks.learn_speed(name, time.monotonic() - ticket.began, megapixels)
        return derained, facts.notices

    async def _in(
        self,
        pool: Executor,
        ticket: Ticket,
        work: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Result of work in a thread; a cancelled call ends only after its thread.

        Otherwise the images of abandoned requests would pile up in memory.
        """
        future = asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            ticket.unwanted.set()
            await asyncio.wait([future])
            future.cancelled() or future.exception()
            raise
