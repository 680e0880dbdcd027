"""The pipeline: images are decoded ahead of the network and encoded behind it."""

import time
from collections import deque
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from derain_cli.batch.decoding import BYTES_AT_ONCE, Decoding, Moving
from derain_cli.batch.encoding import Encoding
from derain_cli.batch.events import Event, Job, Plan, Result, Started, Summary
from derain_cli.batch.films import Films
from derain_cli.batch.interruption import Interrupter
from derain_cli.batch.network import Derained, Network, OnProgress
from derain_cli.batch.options import BatchOptions
from derain_cli.batch.writing import Claims, remove_stale_parts

if TYPE_CHECKING:  # torch is not needed to plan
    from derain_cli.inference.derainer import Derainer


def run_batch(
    plan: Plan,
    derainer: "Derainer | None",
    options: BatchOptions,
    stdin: bytes = b"",
    interrupter: Interrupter | None = None,
    on_progress: OnProgress | None = None,
) -> Generator[Event]:
    """Derain every image of a plan and yield what happens, results in the plan's order.

    Decoding, network and encoding overlap; the network runs in the calling thread. Files are
    written under a temporary name and moved when they are whole; what a killed run left of such
    files is removed first. After a `KeyboardInterrupt` the image in the network is dropped, the
    files being written are finished and yielded, and the exception goes on.

    Args:
        plan: From `plan_batch`, made with the same options.
        derainer: The network; may be None when the plan has nothing to do.
        options: How images are read and written.
        stdin: The image, for an input that is `-`.
        interrupter: Raises the `KeyboardInterrupt` where no event is lost.
        on_progress: Called after each tile with the job and the share of its image that is done.

    Yields:
        `Started` and `Result` for each image (skipped ones have no `Started`), then a `Summary`.
        An image that fails is a `Result` with an error; none is raised. A disk that can no longer
        be written to ends the batch, as does the first failure under `fail_fast`.
    """
    remove_stale_parts(plan)
    interrupter = interrupter or Interrupter()
    network = Network(derainer, options.strength, interrupter, on_progress)
    yield from _Pipeline(network, options, stdin, interrupter).run(plan.jobs)


class _Pipeline:
    """The three stages in a row, and the results in the order of the plan."""

    def __init__(
        self, network: Network, options: BatchOptions, stdin: bytes, interrupter: Interrupter
    ) -> None:
        self._network, self._options, self._interrupter = network, options, interrupter
        self._claims = Claims()
        self._decoding = Decoding(options, stdin, self._claims)
        self._encoding = Encoding(options, self._claims, stdin)
        self._films = Films(network, options, stdin, interrupter)
        self._leaving = _Leaving(2 * options.thread_count)
        self._tally = Tally()

    def run(self, jobs: Collection[Job]) -> Iterator[Event]:
        """All events of the jobs, in order."""
        began = time.perf_counter()
        try:
            for group in self._decoding.groups(jobs):
                if isinstance(group, Result):
                    self._leave(group)
                elif isinstance(group, Moving):
                    yield from self._counted(self._leaving.ready(finish=True))
                    yield from self._film(group)
                else:
                    yield from (Started(rainy.job) for rainy in group)
                    for derained in self._network.derain(group):
                        self._leave(derained)
                yield from self._counted(self._leaving.ready())
                if self._stopped or self._interrupter.asked:
                    break
            yield from self._counted(self._leaving.ready(finish=True))
            if self._interrupter.asked:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            yield from self._counted(self._leaving.ready(finish=True))
            raise
        finally:
            self._decoding.close()
            self._encoding.close()
            self._claims.close()
        yield self._tally.summary(len(jobs), time.perf_counter() - began, self._network.seconds)

    def _film(self, moving: Moving) -> Iterator[Event]:
        """A film or an animation, which passes through stages of its own."""
        for event in self._films.run(moving):
            if isinstance(event, Result):
                self._leave(event)
            else:
                yield event

    @property
    def _stopped(self) -> bool:
        failed = self._options.fail_fast and bool(self._tally.failures)
        return failed or self._encoding.disk_failed or self._films.disk_failed

    def _leave(self, item: Derained | Result) -> None:
        if isinstance(item, Derained):
            self._leaving.add(self._encoding.submit(item), item.pixels.nbytes)
        else:
            self._claims.release(item.job)
            finished: Future[Result] = Future()
            finished.set_result(item)
            self._leaving.add(finished, 0)

    def _counted(self, results: Iterator[Result]) -> Iterator[Result]:
        for result in results:
            self._tally.count(result)
            yield result


class _Leaving:
    """Results on their way to the caller, in order; bounded in number and in bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: deque[tuple[int, Future[Result]]] = deque()

    def add(self, result: Future[Result], size: int) -> None:
        """Append a result that may still be in the making."""
        self._queue.append((size, result))

    def ready(self, *, finish: bool = False) -> Iterator[Result]:
        """Results at the head of the queue; waits only where too many are being written."""
        while self._queue:
            crowded = len(self._queue) > self._most
            crowded |= sum(size for size, _ in self._queue) > BYTES_AT_ONCE
            if not (finish or crowded or self._queue[0][1].done()):
                return
            result = self._queue[0][1].result()
            # Only now: an interrupt while waiting must leave the result in the queue.
            self._queue.popleft()
            yield result


class Tally:
    """Counts of a batch."""

    def __init__(self) -> None:
        self.done = self.skipped = 0
        self.megapixels = 0.0
        self.failures: list[Result] = []

    def count(self, result: Result) -> None:
        """Add a result."""
        if result.status == "failed":
            self.failures.append(result)
        self.done += result.status == "done"
        self.skipped += result.status == "skipped"
        if result.status == "done" and result.width and result.height:
            frames = result.motion.frames if result.motion else 1
            self.megapixels += frames * result.width * result.height / 1e6

    def summary(self, jobs: int, seconds: float, network_seconds: float) -> Summary:
        """The event that closes a batch of so many jobs."""
        left = jobs - (self.done + self.skipped + len(self.failures))
        failures = tuple(self.failures)
        return Summary(
            self.done, self.skipped, failures, left, seconds, network_seconds, self.megapixels
        )
