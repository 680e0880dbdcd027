"""Hands mutated files to everything that reads strangers' files, and counts what must not be.

Workers are forked from a process that has loaded everything, work through their share of seeds,
and print a line on each file; one that is silent for too long is killed, the file is noted as a
hang, and another worker goes on behind it. What anything prints on stderr is kept for the count.
"""

import collections
import json
import os
import resource
import select
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from derain_cli.errors import DerainError
from derain_cli.images import encode_image, probe_image, read_image, writing_notices
from tests.fuzz.mutation import mutated
from tests.fuzz.specimens import image_files, other_files

HANGS_AFTER = 5.0  # seconds of a worker's own time
SILENT_FOR = 60.0  # seconds on the clock, on a machine that does other things too
MOST_MEMORY = 6 << 30


@dataclass
class Outcome:
    """Counts of a run.

    Attributes:
        read: Files that were read, with or without notices.
        said: Those of them with notices.
        refused: Files that ended in one line.
        foreign: Exceptions that are none of ours, each with its file's name and seed.
        hangs: Files that took too long.
        printed: Lines on stderr.
    """

    read: int = 0
    said: int = 0
    refused: int = 0
    foreign: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """All of them."""
        return self.read + self.refused + len(self.foreign) + len(self.hangs)

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.foreign or self.hangs or self.printed)


def _look_at_image(name: str, data: bytes, folder: Path) -> int:
    """Probe, read, write back in its own and in another format; the number of notices."""
    path = folder / name
    path.write_bytes(data)
    try:
        size = probe_image(path)
    except DerainError:
        size = None
    picture = read_image(path, max_pixels=4_000_000)
    assert size == (picture.width, picture.height), f"probed {size}, read {picture.rgb.shape}"
    other = ("png", "jpeg", "tiff", "webp")[len(data) % 4]
    for format in (None, other):
        if picture.alpha is None or format != "jpeg":
            again = read_image(encode_image(picture, format, 90 if format else None))
            assert again.rgb.shape == picture.rgb.shape
            writing_notices(picture, format)
    return len(picture.notices)


def _look_at_other(name: str, data: bytes, folder: Path) -> int:
    path = folder / name
    path.write_bytes(data)
    _READERS[name](path)
    return 0


def _read_checkpoint(path: Path) -> None:
    from derain_cli.checkpoints.resolving import load_model
    from derain_cli.training.provenance import training_facts

    load_model(path)
    training_facts(path)


def _read_entries(path: Path) -> None:
    from derain_cli.checkpoints.catalogue import read_entries

    read_entries(path.parent)


def _read_config(path: Path) -> None:
    from derain_cli.training.configs.train import TrainConfig

    TrainConfig.read(path)


def _read_metrics(path: Path) -> None:
    from derain_cli.training.curves import plot_runs

    plot_runs([path.parent], path.parent / "curves.svg")


def _read_state(path: Path) -> None:
    import torch

    from derain_cli.training.run_folder import RunFolder

    RunFolder(path.parent).load_state(torch.device("cpu"))


_READERS: dict[str, Callable[[Path], None]] = {
    "x.safetensors": _read_checkpoint,
    "weights.toml": _read_entries,
    "config.json": _read_config,
    "metrics.jsonl": _read_metrics,
    "state.pt": _read_state,
}


def _work(seeds: range, out: int, log: Path) -> None:
    """In a forked worker: a JSON line for each file, its seed first."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    warnings.simplefilter("ignore")  # of Python; C libraries print past that
    images, others = image_files(), other_files()
    names = [*images, *others]
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            name = names[seed % len(names)]
            os.write(out, json.dumps([seed, name, "begins", ""]).encode() + b"\n")
            began = time.thread_time()
            data = mutated(images.get(name) or others[name], seed)
            look = _look_at_image if name in images else _look_at_other
            try:
                kind, what = ("said" if look(name, data, Path(folder)) else "read"), ""
            except DerainError as error:
                kind, what = "refused", str(error)
                if "\n" in what:
                    kind = "foreign"
            except BaseException as error:  # noqa: BLE001 (all of them are findings)
                kind, what = "foreign", f"{type(error).__name__}: {error}"[:300]
            if time.thread_time() - began > HANGS_AFTER:
                kind, what = "hang", f"{time.thread_time() - began:.0f} s"
            os.write(out, json.dumps([seed, name, kind, what]).encode() + b"\n")


def run(first: int, files: int, seconds: float, workers: int = 2) -> Outcome:
    """Look at so many files, or as many as the time allows; seeds begin with `first`."""
    outcome, end = Outcome(), time.monotonic() + seconds
    shares = collections.deque(
        range(begin, min(begin + 250, first + files)) for begin in range(first, first + files, 250)
    )
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        log.touch()
        running: list[_Worker] = []
        while (shares or running) and time.monotonic() < end:
            while shares and len(running) < workers:
                running.append(_Worker(shares.popleft(), log))
            for worker in list(running):
                for kind, line in worker.lines():
                    _count(outcome, kind, line)
                if worker.done:
                    running.remove(worker)
                    if left := worker.left():
                        shares.appendleft(left)
        for worker in running:
            worker.stop()
        outcome.printed = log.read_text(errors="replace").splitlines()
    return outcome


def _count(outcome: Outcome, kind: str, line: str) -> None:
    if kind in ("read", "said"):
        outcome.read += 1
        outcome.said += kind == "said"
    elif kind == "refused":
        outcome.refused += 1
    elif kind == "foreign":
        outcome.foreign.append(line)
    else:
        outcome.hangs.append(line)


class _Worker:
    """A forked process and the lines that it sends."""

    def __init__(self, seeds: range, log: Path) -> None:
        self._seeds, self._at, self._name = seeds, None, ""
        self._pipe, out = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            code = 1
            try:
                _work(seeds, out, log)
                code = 0
            finally:
                os._exit(code)
        os.close(out)
        self._rest, self._heard, self.done = b"", time.monotonic(), False

    def lines(self) -> Iterator[tuple[str, str]]:
        """Kind and text of what has come; a silent or a dead worker is a finding of its own."""
        ready, _, _ = select.select([self._pipe], [], [], 0.05)
        data = os.read(self._pipe, 1 << 16) if ready else None
        if data:
            self._heard = time.monotonic()
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                seed, name, kind, what = json.loads(line)
                self._at, self._name = seed, name
                if kind == "begins":
                    continue
                self._at = None
                self._seeds = range(seed + 1, self._seeds.stop)
                yield kind, f"{name}, seed {seed}: {what}"
        elif data == b"" or time.monotonic() - self._heard > SILENT_FOR:
            self.stop()
            if self._at is not None:
                what = "hang" if data is None else "foreign"
                yield what, f"{self._name}, seed {self._at}: the worker was silent or died"
                self._seeds = range(self._at + 1, self._seeds.stop)

    def left(self) -> range | None:
        """Seeds that it did not come to."""
        return self._seeds or None

    def stop(self) -> None:
        """End it."""
        self.done = True
        os.kill(self._process, signal.SIGKILL)
        os.waitpid(self._process, 0)
        os.close(self._pipe)
