"""User interface of a batch: progress bar, lines, JSON, summary and exit code.

stdout carries the product alone: image bytes with `-o -`, JSON lines with `--json`, otherwise one
output path per line when it is not a terminal. All else goes to stderr.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from derain_cli.cli.streams import LONGEST_MESSAGE, as_bytes, printable
from derain_cli.cli.wording import in_flags
from derain_cli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from derain_cli.batch import BatchOptions, Event, Frames, Motion, Plan, Result, Summary
    from derain_cli.batch.events import Job
    from derain_cli.batch.rain import Rain
    from derain_cli.inference.derainer import Derainer

SCHEMA = 1


def resume_command(arguments: Iterable[str], *, overwrite: bool) -> str:
    """Command line that resumes an interrupted one.

    Example:
        >>> resume_command(["my photos", "-o", "dry/"], overwrite=False)
        "derain --skip-existing 'my photos' -o dry/"
    """
    words = list(arguments)
    # Under --overwrite new results look like old ones, so all are derained again.
    if overwrite or "--skip-existing" in words:
        return shlex.join(["derain", *words])
    # A leading option selects the default command, even before a folder called "train".
    words = words[1:] if words[:1] == ["derain"] else words
    return shlex.join(["derain", "--skip-existing", *words])


@dataclasses.dataclass
class _Position:
    """Progress of a batch, in images.

    The network is ahead of the results, which are encoded behind it, and an image that cannot be
    decoded never reaches it: the bar shows whichever is farther.
    """

    begun: int = 0
    ended: int = 0
    within: float = 0.0

    def begin(self) -> None:
        self.begun, self.within = self.begun + 1, 0.0

    def end(self) -> None:
        self.ended += 1

    @property
    def images(self) -> float:
        return max(self.ended, self.begun - 1 + self.within)


class BatchReport:
    """What the user sees of a batch: the product on stdout, everything else on stderr."""

    def __init__(self, plan: "Plan", *, as_json: bool, quiet: bool, verbose: bool) -> None:
        from rich.console import Console

        self.plan, self.as_json, self.quiet, self.verbose = plan, as_json, quiet, verbose
        only = next(iter(plan.to_do), None) if plan.only else None
        self.to_stdout = only is not None and only.derained is None
        if as_json and self.to_stdout:
            raise UsageError("--json and an image on stdout exclude each other: give -o a file")
        # Names may contain Rich's markup, and lines must not wrap, for grep.
        plain = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}
        self.console = Console(stderr=True, **plain)  # type: ignore[arg-type]
        self.bar = _progress_bar(self.console, shown=self.console.is_terminal and not quiet)
        self.task = self.bar.add_task("", start=False, total=_total(plan), speed="")
        self.film: TaskID | None = None
        self.first_frame = 0
        self.derainer: Derainer | None = None
        self.summary: Summary | None = None
        self.megapixels, self.finished = 0.0, 0
        self.position = _Position()
        self.rain: Rain | None = None  # of the last image
        self.notices: Counter[str] = Counter()
        self._say_left_out()

    def check_stdout(self) -> None:
        """Refuse to write an image to a terminal, or to a closed standard output."""
        if sys.stdout is None:
            raise UsageError("standard output is closed: open it, or send it to /dev/null")
        if self.to_stdout and sys.stdout.isatty():
            raise UsageError("the image would go to the terminal: pipe it, or give -o a file")

    @contextmanager
    def loading(self) -> Iterator[Callable[[str], None]]:
        """Where a network is made ready: a function to be told each phase of it before it begins.

        A terminal shows what is going on; a log gets a line for what is done only once.
        """
        if self.console.is_terminal and not self.quiet:
            with self.console.status("loading") as status:
                yield lambda phase: status.update(printable(phase))
        else:
            yield lambda phase: self.say(phase) if phase.endswith("once") else None

    def watching(self, derainer: "Derainer | None") -> "Progress":
        """Progress bar, as a context for the time that this network runs."""
        self.derainer = derainer
        return self.bar

    def show(self, event: "Event") -> None:
        """Report one event of the batch."""
        from derain_cli.batch import Frames, Result, Started

        if isinstance(event, Started):
            self.bar.start_task(self.task)  # the clock starts with the first
            self.position.begin()
            self.bar.update(self.task, description=printable(_shortened(event.job.name)))
        elif isinstance(event, Frames):
            self._show_frames(event)
        elif isinstance(event, Result):
            self._advance(event)
            self._tell(event)
            self._deliver(event)
        else:
            self.summary = event

    def advance_within(self, job: "Job", share: float) -> None:
        """Move the bar while an image is in the network, in tiles."""
        self.position.within = share
        self.bar.update(self.task, completed=self.position.images)

    def show_plan(self) -> None:
        """Print what a run would do, and which inputs will fail."""
        from derain_cli.batch import Result, Summary
        from derain_cli.errors import UnreadableImageError

        failures, to_do, skipped = [], 0, 0
        for job in self.plan.jobs:
            skipped += job.skip
            to_do += not (job.skip or job.problem)
            error = UnreadableImageError(job.problem) if job.problem else None
            result = Result(job, "skipped" if job.skip else "planned", error=error)
            if error:
                result = dataclasses.replace(result, status="failed")
                failures.append(result)
            self._tell(result)
            self._deliver(result)
        self.summary = Summary(0, skipped, tuple(failures), to_do, 0.0, 0.0, 0.0)

    def say_interrupted(self, options: "BatchOptions", why: str = "interrupted") -> None:
        """Print what is done, and the command that resumes; nothing resumes what went to stdout."""
        if self.to_stdout:  # which the result has not reached whole
            self.say(f"{why}: the result was not written whole", always=True)
            return
        command = resume_command(sys.argv[1:], overwrite=options.overwrite)
        total = "" if self.plan.is_open else f" of {len(self.plan.jobs)}"
        kept = "" if self.film is None else " (finished frames of the current film are kept)"
        self.say(f"{why}: {self.finished}{total} done{kept}. Go on with:", always=True)
        self.say(f"  {command}", always=True)

    def finish(self) -> None:
        """Print the summary.

        Raises:
            typer.Exit: With the exit code of the failures, where there are several images.
            DerainError: The failure of the only image.
        """
        assert self.summary is not None, "a batch that is not interrupted ends with a summary"
        if self.as_json:
            self._write_line(json.dumps(_summary_line(self.summary)))
        for notice, count in self.notices.items():
            if count > 1 and not self.verbose:
                self.say(f"{notice}: {count} images (-v names them)")
        failures = self.summary.failures
        if len(self.plan.jobs) == 1 and failures and failures[0].error is not None:
            raise failures[0].error  # one line says it all
        if self.verbose or not self.to_stdout:
            self.say(_summary_text(self.summary, self.plan, self.rain))
        if not failures:
            return
        self.say(f"failed: {len(failures)} of {len(self.plan.jobs)}", always=True)
        for result in failures:
            self.say(f"  {result.job.name}", always=True)
        exhausted = any(isinstance(result.error, ResourceError) for result in failures)
        raise typer.Exit(ResourceError.exit_code if exhausted else 1)

    def say(self, line: str, *, always: bool = False) -> None:
        """Print a line on stderr; under `--quiet` only errors."""
        if always or not self.quiet:
            self.console.print(printable(_in_flags(line), LONGEST_MESSAGE))

    def _say_left_out(self) -> None:
        for item in self.plan.passed_over if self.verbose else ():
            self.say(f"left out: {item.path}: {item.reason}")
        count = len(self.plan.passed_over)
        if count and not self.verbose:
            first = self.plan.passed_over[0]
            more = f" (and {count - 1} more; -v names them)" if count > 1 else ""
            self.say(f"left out: {first.path}: {first.reason}{more}")

    def _show_frames(self, event: "Frames") -> None:
        """A second bar, for the frames of the current film."""
        if self.film is None:
            self.film = self.bar.add_task("frames", total=event.total, speed="")
            self.first_frame = event.done  # those of an interrupted run cost no time
        elapsed = self.bar.tasks[self.bar.task_ids.index(self.film)].elapsed or 0.0
        made = event.done - self.first_frame
        speed = f"{made / elapsed:.3g} frames/s" if elapsed and made else ""
        self.bar.update(self.film, completed=event.done, total=event.total, speed=speed)

    def _advance(self, result: "Result") -> None:
        self.finished += result.status != "failed"
        if self.film is not None:
            self.bar.remove_task(self.film)
            self.film = None
        if result.job.skip or result.job.problem:
            return
        frames = result.motion.frames if result.motion else 1
        self.megapixels += frames * (result.width or 0) * (result.height or 0) / 1e6
        self.position.end()
        self.rain = result.rain
        elapsed = self.bar.tasks[self.task].elapsed or 0.0
        speed = _speed(self.position.ended, self.megapixels, elapsed)
        self.bar.update(self.task, completed=self.position.images, speed=speed)

    def _tell(self, result: "Result") -> None:
        for notice in result.notices:
            self.notices[notice] += 1
            if self.verbose or self.notices[notice] == 1:
                self.say(_with_name(result, notice))
        if result.error is not None:
            if len(self.plan.jobs) > 1:  # a single one ends the command with an error line
                self.say(f"failed: {_with_name(result, str(result.error))}", always=True)
        elif self.verbose or result.status == "planned":
            self.say(_details(result))

    def _deliver(self, result: "Result") -> None:
        """Print the result on stdout."""
        if self.as_json:
            self._write_line(json.dumps(_image_line(result, self.derainer)))
        elif result.content is not None:
            sys.stdout.buffer.write(result.content)
            sys.stdout.buffer.flush()
        elif (
            result.status in ("done", "planned") and result.job.derained and not sys.stdout.isatty()
        ):
            self._write_line(str(result.job.derained))

    def _write_line(self, line: str) -> None:
        # As bytes: a name that is not valid text must come out unchanged.
        sys.stdout.buffer.write(as_bytes(line) + os.linesep.encode())
        sys.stdout.buffer.flush()


def _total(plan: "Plan") -> int | None:
    return None if plan.is_open else len(plan.to_do)


def _progress_bar(console: "Console", *, shown: bool) -> "Progress":
    from rich import progress

    return progress.Progress(
        progress.SpinnerColumn(),
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[speed]}", markup=False),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left"),
        console=console,
        transient=True,
        disable=not shown,
    )


def _shortened(name: str, longest: int = 40) -> str:
    return name if len(name) <= longest else "…" + name[1 - longest :]


def _speed(images: float, megapixels: float, seconds: float) -> str:
    if not seconds:
        return ""
    return f"{images / seconds:.3g} images/s, {megapixels / seconds:.3g} megapixels/s"


def _in_flags(message: str) -> str:
    """A message of the library in the command's spelling: a batch's fields are its options."""
    from derain_cli.batch import BatchOptions

    names = [field.name for field in dataclasses.fields(BatchOptions)]
    return in_flags(message, {name: f"--{name.replace('_', '-')}" for name in names})


def _with_name(result: "Result", message: str) -> str:
    name = result.job.name
    return message if name in message else f"{name}: {message}"


def _details(result: "Result") -> str:
    job = result.job
    target = "stdout" if job.derained is None else str(job.derained)
    if result.status != "done":
        what = "would write" if result.status == "planned" else "skipped, there is"
        return f"{job.name}: {what} {target}"
    facts = [f"{result.width}x{result.height}", f"{result.bit_depth} bit"]
    if result.motion is not None:
        facts.append(f"{result.motion.frames} frames")
    facts += [f"tiles of {result.tile}" if result.tile else "whole", f"{result.seconds or 0:.2f} s"]
    facts += [f"scales {result.scales}"] if (result.scales or 1) > 1 else []
    facts += [result.rain.in_words()] if result.rain else []
    return f"{job.name}: {target} ({', '.join(facts)})"


def _summary_text(summary: "Summary", plan: "Plan", rain: "Rain | None" = None) -> str:
    counts = {
        "derained": summary.done,
        "skipped (results exist)": summary.skipped,
        "failed": len(summary.failures),
        "not started": summary.not_started,
    }
    text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not summary.done:
        return text
    if len(plan.jobs) == 1:
        text = f"{next(iter(plan.jobs)).derained} written"
        text += f", {rain.in_words()}," if rain else ""
    speed = _speed(summary.done, summary.megapixels, summary.seconds)
    return f"{text} in {summary.seconds:.1f} s ({speed})"


def _image_line(result: "Result", derainer: "Derainer | None") -> dict[str, Any]:
    line = {
        "v": SCHEMA,
        "event": "film" if result.motion or result.job.kind != "image" else "image",
        "input": result.job.name if result.job.source else "-",
        "output": result.job.derained and str(result.job.derained),
        "status": result.status,
        "model": derainer and derainer.name,
        "device": derainer and derainer.device,
        "engine": derainer and derainer.engine.name,
        "precision": result.precision,
        "tile": result.tile,
        "scales": result.scales,
        "ms": None if result.seconds is None else round(1000 * result.seconds, 1),
        "width": result.width,
        "height": result.height,
        "bit_depth": result.bit_depth,
        "rain": result.rain and _rain_fields(result.rain),
        "files": [str(path) for path in result.job.targets] if result.status == "done" else [],
        "warnings": [_in_flags(notice) for notice in result.notices],
        "error": result.error and _in_flags(str(result.error)),
    }
    return line | _motion_fields(result.motion)


def _rain_fields(rain: "Rain") -> dict[str, Any]:
    """Share of the pixels that visibly changed, mean change in 8-bit levels, and the verdict."""
    return {"share": round(rain.share, 5), "mean": round(rain.mean, 3), "dry": rain.is_dry}


def _motion_fields(motion: "Motion | None") -> dict[str, Any]:
    """Additional facts in the line of a film."""
    if motion is None:
        return {}
    rainy, derained = motion.flicker
    return {
        "frames": motion.frames,
        "resumed": motion.resumed,
        "seconds": round(motion.seconds, 3),
        "codec": motion.codec,
        "flicker": {"input": round(rainy, 3), "output": round(derained, 3)},
    }


def _summary_line(summary: "Summary") -> dict[str, Any]:
    return {
        "v": SCHEMA,
        "event": "summary",
        "done": summary.done,
        "skipped": summary.skipped,
        "failed": len(summary.failures),
        "not_started": summary.not_started,
        "seconds": round(summary.seconds, 3),
        "network_seconds": round(summary.network_seconds, 3),
        "megapixels": round(summary.megapixels, 3),
    }
