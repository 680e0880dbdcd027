"""Kills runs at random moments and looks at what is there afterwards.

Children are forked from a process that has imported torch and loaded the network, so that a kill
costs a fraction of a second. Each round has folders of its own: runs are killed until one comes to
its end, then nothing but the right results may be there.
"""

import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from derain_cli.batch import BatchOptions, plan_batch, run_batch
from derain_cli.images import Picture, write_image
from derain_cli.inference.derainer import Derainer
from derain_cli.whole_files import write_whole

IMAGES = 8
ROUND_ENDS_AFTER = 12  # kills; then a run is left in peace
STUCK_AFTER = 120.0  # seconds
ENDINGS = (".png", ".jpg", ".tif", ".webp")


@dataclass
class Outcome:
    """Counts of a run.

    Attributes:
        kills: Runs that were killed before their end.
        finished: Runs that came to their end.
        torn: Files under a final name that were neither the old nor the new content.
        changed: Originals that were other than before.
        lost: Results that a finished run did not leave, and litter that it did.
        stuck: Runs that did not end.
        printed: Lines on stderr.
    """

    kills: int = 0
    finished: int = 0
    torn: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing happened that must not."""
        return not (self.torn or self.changed or self.lost or self.stuck or self.printed)


def run(checkpoint: Path, kills: int, seconds: float, seed: int = 0) -> Outcome:
    """Kill so many runs, or as many as the time allows."""
    derainer = Derainer.load(str(checkpoint), device="cpu", threads=1, precision="fp32")
    derainer.run(np.zeros((8, 8, 3), np.uint8), 1.0)
    outcome, end, chance = Outcome(), time.monotonic() + seconds, random.Random(seed)
    times = dict.fromkeys(_KINDS, 0.3)  # that each kind of work takes, about
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "stderr"
        log.touch()
        number = 0
        while outcome.kills < kills and time.monotonic() < end:
            kind = _KINDS[number % len(_KINDS)]
            place = Path(folder) / str(number)
            round_ = _Round(kind(place, derainer), outcome, chance, log, times[kind])
            times[kind] = round_.play(kills)
            number += 1
        outcome.printed = log.read_text(errors="replace").splitlines()
    return outcome


class _Work:
    """Something that writes files and can be begun again."""

    def __init__(self, folder: Path, derainer: Derainer) -> None:
        self.folder, self.derainer = folder, derainer
        self.out = folder / "out"
        self.originals: dict[Path, bytes] = {}
        self.before: dict[str, bytes] = {}  # results of an earlier run
        self.expected: dict[str, bytes] = {}

    def go(self) -> None:
        """All of it; in a child."""
        raise NotImplementedError


class _Batch(_Work):
    """A folder of images; results that are there are kept."""

    options: dict[str, bool] = {"skip_existing": True}  # noqa: RUF012 (never changed)

    def __init__(self, folder: Path, derainer: Derainer) -> None:
        super().__init__(folder, derainer)
        (folder / "in").mkdir(parents=True)
        for number in range(IMAGES):
            path = folder / "in" / f"{number}{ENDINGS[number % len(ENDINGS)]}"
            noise = np.random.default_rng(number).integers(0, 256, (20, 28, 3), np.uint8)
            write_image(Picture(noise), path)
            self.originals[path] = path.read_bytes()
        peaceful = folder / "peaceful"
        self._run(peaceful, skip_existing=True)
        self.expected = {path.name: path.read_bytes() for path in peaceful.iterdir()}

    def go(self) -> None:
        self._run(self.out, **self.options)

    def _run(self, out: Path, **options: bool) -> None:
        chosen = BatchOptions(output=f"{out}/", workers=2, **options)
        plan = plan_batch([str(self.folder / "in")], chosen)
        for _ in run_batch(plan, self.derainer, chosen):
            continue


class _Overwriting(_Batch):
    """Results of an earlier run are replaced: each is the old or the new one, never a mixture."""

    options = {"overwrite": True}  # noqa: RUF012

    def __init__(self, folder: Path, derainer: Derainer) -> None:
        super().__init__(folder, derainer)
        self.out.mkdir()
        for name in self.expected:
            self.before[name] = b"of last week" * 100
            (self.out / name).write_bytes(self.before[name])


class _State(_Work):
    """One file written again and again, as by `train`, `datasets synth` and `models bundle`."""

    def __init__(self, folder: Path, derainer: Derainer) -> None:
        super().__init__(folder, derainer)
        self.out.mkdir(parents=True)
        self.before["state.pt"] = bytes(50_000)
        self.expected["state.pt"] = os.urandom(50_000)
        (self.out / "state.pt").write_bytes(self.before["state.pt"])

    def go(self) -> None:
        for _ in range(20):
            write_whole(self.out / "state.pt", self.expected["state.pt"])


_KINDS: tuple[Callable[[Path, Derainer], _Work], ...] = (_Batch, _Overwriting, _State)


class _Round:
    """One piece of work, killed until it comes to its end."""

    def __init__(
        self, work: _Work, outcome: Outcome, chance: random.Random, log: Path, seconds: float
    ) -> None:
        self._work, self._outcome, self._chance, self._log = work, outcome, chance, log
        self._seconds = seconds

    def play(self, most_kills: int) -> float:
        """Kill until the end; then look. Returns the seconds that a run takes, about."""
        for attempt in range(ROUND_ENDS_AFTER + 1):
            in_peace = attempt == ROUND_ENDS_AFTER or self._outcome.kills >= most_kills
            ended = self._attempt(None if in_peace else self._chance.uniform(0, self._seconds))
            self._look(finished=ended)
            if ended:
                self._outcome.finished += 1
                break
        return self._seconds

    def _attempt(self, moment: float | None) -> bool:
        """Whether a run came to its end before it was killed at the moment."""
        child = os.fork()
        if child == 0:
            self._child()
        began = time.monotonic()
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            passed = time.monotonic() - began
            if ended:
                if os.waitstatus_to_exitcode(status):
                    self._outcome.lost.append(f"{type(self._work).__name__}: a run failed")
                self._seconds = max(0.05, passed)
                return True
            if passed > (STUCK_AFTER if moment is None else moment):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                if moment is None:
                    self._outcome.stuck.append(type(self._work).__name__)
                    return True
                self._outcome.kills += 1
                return False
            time.sleep(0.001)

    def _child(self) -> None:
        code = 1
        try:
            descriptor = os.open(self._log, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            self._work.go()
            code = 0
        except BaseException as error:  # noqa: BLE001 (all of them are findings)
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)

    def _look(self, *, finished: bool) -> None:
        work, outcome = self._work, self._outcome
        for path, content in work.originals.items():
            if not path.exists() or path.read_bytes() != content:
                outcome.changed.append(str(path))
        there = {path.name: path for path in work.out.iterdir()} if work.out.exists() else {}
        for name, path in there.items():
            if name.startswith("."):
                continue
            content = path.read_bytes()
            new, old = work.expected.get(name), work.before.get(name)
            if content != new and (content != old or finished):
                outcome.torn.append(f"{path}: {len(content)} bytes")
        if finished and there.keys() != work.expected.keys():
            odd = sorted(there.keys() ^ work.expected.keys())
            outcome.lost.append(f"{type(work).__name__}: {odd}")
