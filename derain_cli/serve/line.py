"""The line of images: two are decoded at once, one is in the network, the rest wait or are refused.

Decoding and encoding have threads of their own, the network has one; so an image is read while the
one before it is derained. What is decoded at any time is bounded, and so is what waits.
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
from derain_cli.serve.networks import Networks
from derain_cli.serve.settings import ServeOptions
from derain_cli.serve.wishes import Answer, Wish, make_answer, make_preview, read_rainy

AT_ONCE = 2  # images decoded at any time: one in the network, one on its way in or out
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@dataclass
class Turn:
    """An image's way through the line.

    Attributes:
        state: receiving, waiting, reading, deraining or writing.
        began: When the network began, by the monotonic clock.
        expected: Seconds that the network is expected to take; None: unknown.
        unwanted: Set when nobody waits for the answer any more.
    """

    state: str = "receiving"
    began: float = 0.0
    expected: float | None = None
    unwanted: threading.Event = field(default_factory=threading.Event)


class Line:
    """Every image of a server passes here.

    Attributes:
        networks: Those of the server.
        options: Its limits.
        answered: Images answered so far.
    """

    def __init__(self, networks: Networks, options: ServeOptions) -> None:
        self.networks, self.options = networks, options
        self.answered = 0
        self._turns: dict[str, Turn] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._hands = ThreadPoolExecutor(AT_ONCE, "derain-serve-files")
        self._network = ThreadPoolExecutor(1, "derain-serve-network")
        self._mean_seconds = 1.0
        self._closed = threading.Event()

    def close(self) -> None:
        """Drop what is under way, for the server ends."""
        self._closed.set()
        for pool in (self._hands, self._network):
            pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[Turn]:
        """A place in the line, for as long as the request lasts.

        Raises:
            RefusedError: All places are taken, or the key is.
        """
        if key in self._turns:
            raise RefusedError(f"a job {key!r} is under way already", 409, "usage")
        if len(self._turns) >= AT_ONCE + self.options.queue:
            wait = max(1, round(self._mean_seconds * len(self._turns)))
            raise RefusedError(
                f"{len(self._turns)} images are waiting already: try again in {wait} s",
                503,
                "busy",
                code=5,
                Retry_After=str(wait),
            )
        self._turns[key] = turn = Turn()
        try:
            yield turn
        finally:
            turn.unwanted.set()
            del self._turns[key]

    async def derain(self, wish: Wish, turn: Turn) -> Answer:
        """The answer to a wish.

        Raises:
            DerainError: As reading, the network and writing raise it.
        """
        name = self.networks.check(wish.model)
        turn.state = "waiting"
        async with self._at_once:
            began = time.monotonic()
            turn.state = "reading"
            rainy = await self._in(self._hands, turn, read_rainy, wish, self.options.max_pixels)
            derained, notices = await self._in(
                self._network, turn, self._run, name, wish, rainy, turn
            )
            turn.state = "writing"
            answer = await self._in(self._hands, turn, make_answer, wish, rainy, derained)
            self._mean_seconds += 0.2 * (time.monotonic() - began - self._mean_seconds)
        self.answered += 1
        return Answer(answer.content, answer.format, answer.name, answer.notices + notices)

    async def preview(self, wish: Wish, turn: Turn) -> Answer:
        """An image as a file that every browser shows."""
        turn.state = "waiting"
        async with self._at_once:
            turn.state = "reading"
            picture = await self._in(self._hands, turn, read_rainy, wish, self.options.max_pixels)
            return await self._in(self._hands, turn, make_preview, wish, picture)

    def progress(self, key: str) -> dict[str, Any] | None:
        """How far a job is; None when there is none of this key."""
        turn = self._turns.get(key)
        if turn is None:
            return None
        before = [other for other in self._turns.values() if other.state == "waiting"]
        place = before.index(turn) + 1 if turn in before else None
        elapsed = time.monotonic() - turn.began if turn.state == "deraining" else None
        return {
            "state": turn.state,
            "place": place,
            "seconds": elapsed,
            "expected_seconds": turn.expected,
        }

    def counts(self) -> dict[str, int]:
        """How full the line is."""
        waiting = sum(turn.state == "waiting" for turn in self._turns.values())
        return {
            "places": AT_ONCE + self.options.queue,
            "taken": len(self._turns),
            "waiting": waiting,
            "answered": self.answered,
        }

    def _run(
        self, name: str, wish: Wish, rainy: Picture, turn: Turn
    ) -> tuple[Any, tuple[str, ...]]:
        """In the network's own thread."""
        megapixels = rainy.width * rainy.height / 1e6
        derainer = self.networks.get(name)
        derainer.is_unwanted = lambda: turn.unwanted.is_set() or self._closed.is_set()
        turn.expected = self.networks.expected_seconds(name, megapixels)
        turn.began, turn.state = time.monotonic(), "deraining"
        derained, facts = derainer.run(rainy.rgb, wish.strength)
        if wish.strength > 0:
            self.networks.learn_speed(name, time.monotonic() - turn.began, megapixels)
        return derained, facts.notices

    async def _in(
        self,
        pool: Executor,
        turn: Turn,
        work: Callable[Arguments, Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """What the work returns; when cancelled, only after its thread has come back.

        Else the images of requests that were given up would pile up beside those at work.
        """
        future = asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            turn.unwanted.set()
            await asyncio.wait([future])
            future.cancelled() or future.exception()
            raise
