"""Where batches are drawn: in threads, or in processes of their own.

A thread shares Python's lock with the network, whose thousand small operations a step each ask for
it back, and the threads of an operation wait for the slowest of them.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2

from derain_cli.errors import TrainingError

Images = Mapping[str, Any]
"""The images of a batch by name: arrays, or tensors where threads draw."""
Draw = Callable[[int], Images]
WATCH_SECONDS = 1.0


@contextlib.contextmanager
def drawing(draw: Draw, count: int, *, apart: bool) -> Iterator[Callable[[int], Future[Images]]]:
    """Draw batches ahead; yields what begins the batch of a step.

    Args:
        draw: The batch of a step, a pure function.
        count: How many are drawn at once.
        apart: Draw in processes. They are forked, since no recipe can be sent to one: each knows
            what this process knows now. Where there is no safe fork (macOS, Windows), or none is
            allowed (in a daemonic process, as a pool's are), threads draw.
    """
    may_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
    if not (apart and may_fork):
        with ThreadPoolExecutor(count) as threads:
            yield lambda step: threads.submit(draw, step)
        return
    # Threads of OpenCV would be missing in the copy, which waits for them for ever.
    cv2_threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    context = multiprocessing.get_context("fork")
    try:
        with ProcessPoolExecutor(count, context, _begin, (draw, os.getpid())) as copies:
            _fork(copies)
            yield lambda step: _begun(copies, step)
    finally:
        cv2.setNumThreads(cv2_threads)


def result_of(future: Future[Images]) -> Images:
    """The batch, once it is drawn.

    Raises:
        TrainingError: The process that drew it has ended.
    """
    with _telling_of_the_end():
        return future.result()


def _begun(copies: ProcessPoolExecutor, step: int) -> Future[Images]:
    """A batch that is being drawn; a process may have ended since the last one."""
    with _telling_of_the_end():
        return copies.submit(_draw, step)


@contextlib.contextmanager
def _telling_of_the_end() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise TrainingError(
            "the process that draws batches was ended from outside, perhaps for want of memory. "
            "--resume goes on from the last save; a smaller --cache takes less memory"
        ) from error


def _fork(copies: ProcessPoolExecutor) -> None:
    """Start the processes now: all of them begin with the first task."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn of a fork beside any thread, for the locks that one may hold.
        # The copies take none of those: they draw with numpy and OpenCV, and print nothing.
        warnings.filterwarnings("ignore", ".* is multi-threaded, use of fork", DeprecationWarning)
        copies.submit(os.getpid).result()


_drawn_here: list[Draw] = []


def _begin(draw: Draw, parent: int) -> None:
    """First words of a process that draws."""
    # Ctrl-C and a cluster's notice reach all processes: the trainer still takes its last step.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _drawn_here[:] = [draw]
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End when the trainer has, however it ended."""
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _draw(step: int) -> Images:
    return _drawn_here[0](step)
