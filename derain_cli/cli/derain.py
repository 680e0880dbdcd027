"""`derain derain`, the default command: take the rain out of pictures.

stdout carries the product alone: image bytes with `-o -`, JSON lines with `--json`, otherwise one
output path per line when it is not a terminal. All else goes to stderr.
"""

import dataclasses
import json
import os
import shlex
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from derain_cli.batch import BatchOptions, Event, Plan, Result, Summary
    from derain_cli.inference import Derainer

SCHEMA = 1
INTERRUPTED, OUT_OF_RESOURCES = 130, 5


class PictureFormat(StrEnum):
    """Formats that results can be written in."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"


class Precision(StrEnum):
    """Number formats the network can run in."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def _option(*names: str, help: str, panel: str, **settings: Any) -> Any:  # noqa: ANN401
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


WHERE, HOW, SPEED, BATCH, TOLD = "Results", "Deraining", "Speed and memory", "Batches", "Messages"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUTS", help="Files, folders, quoted patterns, or - for stdin."),
]
Output = Annotated[
    str | None,
    _option(
        "--output",
        "-o",
        metavar="PATH",
        show_default="beside the input",
        panel=WHERE,
        help="A file; a folder if it exists, ends in / or there are several inputs; - for stdout.",
    ),
]
Suffix = Annotated[
    str, _option("--suffix", panel=WHERE, help="Added to the name of a result beside its input.")
]
Format = Annotated[
    PictureFormat | None,
    _option(
        "--format",
        "-f",
        show_default="as the input",
        case_sensitive=False,
        panel=WHERE,
        help="File format of the results.",
    ),
]
Quality = Annotated[
    int | None,
    _option(
        "--quality",
        min=1,
        max=100,
        show_default="as the input",
        panel=WHERE,
        help="Of JPEG, WebP and AVIF; a JPEG keeps its own tables and subsampling.",
    ),
]
Overwrite = Annotated[
    bool, _option("--overwrite", panel=WHERE, help="Replace results that exist (never an input).")
]
SkipExisting = Annotated[
    bool,
    _option("--skip-existing", panel=WHERE, help="Keep results that exist, do the others: resume."),
]
SaveRain = Annotated[
    bool, _option("--save-rain", panel=WHERE, help="Also write the rain layer, NAME_rain.")
]
Compare = Annotated[
    bool, _option("--compare", panel=WHERE, help="Also write before | after, NAME_compare.")
]
Model = Annotated[
    str | None,
    _option(
        "--model",
        "-m",
        metavar="NAME",
        show_default="the best for real photos",
        panel=HOW,
        help="Bundled weights, a checkpoint, hf:org/repo@rev, or a training run's folder.",
    ),
]
Strength = Annotated[
    float, _option("--strength", min=0, max=1, panel=HOW, help="How much of the rain is removed.")
]
Device = Annotated[str, _option("--device", "-d", panel=SPEED, help="auto, cpu, cuda[:N] or mps.")]
PrecisionOption = Annotated[
    Precision, _option("--precision", panel=SPEED, help="Number format of the network.")
]
Tile = Annotated[
    int | None,
    _option(
        "--tile",
        "-t",
        min=0,
        show_default="fits the memory",
        panel=SPEED,
        help="Side of the tiles a picture is cut into; 0 = the whole picture at once.",
    ),
]
TileOverlap = Annotated[
    int | None,
    _option(
        "--tile-overlap",
        min=0,
        show_default="the model's own",
        panel=SPEED,
        help="Pixels that neighbouring tiles share.",
    ),
]
Compile = Annotated[
    bool, _option("--compile", panel=SPEED, help="Compile the network first; pays off in batches.")
]
Threads = Annotated[
    int | None,
    _option(
        "--threads",
        min=1,
        show_default="all cores",
        panel=SPEED,
        help="CPU threads of the network.",
    ),
]
Workers = Annotated[
    int | None,
    _option(
        "--workers",
        "-j",
        min=1,
        show_default="up to 4",
        panel=SPEED,
        help="Threads that decode, and as many that encode, while the network runs.",
    ),
]
BatchSize = Annotated[
    int,
    _option(
        "--batch-size",
        min=1,
        panel=SPEED,
        help="Pictures of one size that go through the network together.",
    ),
]
MaxPixels = Annotated[
    int | None,
    _option(
        "--max-pixels",
        min=1,
        show_default="300 million",
        panel=SPEED,
        help="Refuse larger pictures before they are decoded.",
    ),
]
Recursive = Annotated[
    bool, _option("--recursive", "-r", panel=BATCH, help="Search folders to the bottom.")
]
FromFile = Annotated[
    str | None,
    _option(
        "--from-file",
        metavar="LIST",
        panel=BATCH,
        help="Take more inputs from a list, one per line (or NUL-separated); - for stdin.",
    ),
]
FailFast = Annotated[
    bool, _option("--fail-fast", panel=BATCH, help="Stop at the first picture that fails.")
]
DryRun = Annotated[
    bool, _option("--dry-run", "-n", panel=BATCH, help="Show what would be written, and stop.")
]
AsJson = Annotated[bool, _option("--json", panel=TOLD, help="A JSON line per picture on stdout.")]
Quiet = Annotated[bool, _option("--quiet", "-q", panel=TOLD, help="Only errors on stderr.")]
Verbose = Annotated[
    bool, _option("--verbose", "-v", panel=TOLD, help="A line per picture and per file left out.")
]


def derain(
    inputs: Inputs = None,
    output: Output = None,
    model: Model = None,
    suffix: Suffix = "_derained",
    format: Format = None,
    quality: Quality = None,
    recursive: Recursive = False,
    from_file: FromFile = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.fp32,
    tile: Tile = None,
    tile_overlap: TileOverlap = None,
    compile: Compile = False,
    threads: Threads = None,
    workers: Workers = None,
    batch_size: BatchSize = 1,
    max_pixels: MaxPixels = None,
    strength: Strength = 1.0,
    save_rain: SaveRain = False,
    compare: Compare = False,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take the rain out of pictures. The originals are never changed."""
    from derain_cli.batch import BatchOptions, plan_batch

    options = BatchOptions(
        output=output,
        suffix=suffix,
        format=format and format.value,
        quality=quality,
        recursive=recursive,
        overwrite=overwrite,
        skip_existing=skip_existing,
        strength=strength,
        save_rain=save_rain,
        compare=compare,
        workers=workers,
        batch_size=batch_size,
        max_pixels=max_pixels,
        fail_fast=fail_fast,
    )
    engine: dict[str, Any] = {"device": device, "precision": precision.value, "compile": compile}
    engine |= {"tile": tile, "tile_overlap": tile_overlap, "threads": threads}
    plan = plan_batch(inputs or [], options, _read_list(from_file, inputs or []))
    report = _Report(plan, as_json=as_json, quiet=quiet, verbose=verbose)
    if dry_run:
        report.show_plan()
    else:
        _run(plan, options, model, engine, report)
    report.finish()


def _read_list(from_file: str | None, inputs: list[str]) -> tuple[str, ...] | None:
    from derain_cli.batch import STDIN, read_list

    if from_file is None:
        return None
    if from_file == STDIN and STDIN in inputs:
        raise UsageError("stdin is either the picture ('-') or the list (--from-file -), not both")
    try:
        content = sys.stdin.buffer.read() if from_file == STDIN else Path(from_file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the list {from_file!r}: {error.strerror}") from error
    return read_list(content)


def _run(
    plan: "Plan",
    options: "BatchOptions",
    model: str | None,
    engine: dict[str, Any],
    report: "_Report",
) -> None:
    from derain_cli.batch import Interrupter, run_batch

    report.check_stdout()
    interrupter = Interrupter()
    try:
        stdin = _read_picture() if any(job.source is None for job in plan.to_do) else b""
        derainer = _load(model, engine) if plan.to_do else None
        events = run_batch(plan, derainer, options, stdin, interrupter)
        with report.watching(derainer), closing(events), _on_ctrl_c(interrupter.interrupt):
            for event in events:
                report.show(event)
    except KeyboardInterrupt:
        report.say_interrupted(options)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); what was written stays, the rest is dropped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None


@contextmanager
def _on_ctrl_c(handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read_picture() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("'-' reads a picture from stdin, which is a terminal: pipe one in")
    return sys.stdin.buffer.read()


def _load(model: str | None, engine: dict[str, Any]) -> "Derainer":
    from derain_cli.checkpoints import DEFAULT_WEIGHTS
    from derain_cli.inference import Derainer

    return Derainer.load(model or DEFAULT_WEIGHTS, **engine)


def resume_command(arguments: Iterable[str], *, overwrite: bool) -> str:
    """The command line that goes on where an interrupted one stopped.

    Example:
        >>> resume_command(["my photos", "-o", "dry/"], overwrite=False)
        "derain --skip-existing 'my photos' -o dry/"
    """
    words = list(arguments)
    # Under --overwrite nothing tells a new result from an old one: all are done again.
    if overwrite or "--skip-existing" in words:
        return shlex.join(["derain", *words])
    # An option in front says what the command's name says, even before a folder called "train".
    words = words[1:] if words[:1] == ["derain"] else words
    return shlex.join(["derain", "--skip-existing", *words])


class _Report:
    """What the user sees of a batch: the product on stdout, everything else on stderr."""

    def __init__(self, plan: "Plan", *, as_json: bool, quiet: bool, verbose: bool) -> None:
        from rich.console import Console

        self.plan, self.as_json, self.quiet, self.verbose = plan, as_json, quiet, verbose
        self.to_stdout = any(job.derained is None for job in plan.to_do)
        if as_json and self.to_stdout:
            raise UsageError("--json and a picture on stdout exclude each other: give -o a file")
        # Names may hold what Rich takes for markup, and lines must stay whole for grep.
        plain = {"markup": False, "highlight": False, "emoji": False, "soft_wrap": True}
        self.console = Console(stderr=True, **plain)  # type: ignore[arg-type]
        self.bar = _progress_bar(self.console, shown=self.console.is_terminal and not quiet)
        self.task = self.bar.add_task("", start=False, total=len(plan.to_do), speed="")
        self.derainer: Derainer | None = None
        self.summary: Summary | None = None
        self.megapixels, self.finished = 0.0, 0
        self.notices: Counter[str] = Counter()
        self._say_left_out()

    def check_stdout(self) -> None:
        """Refuse to send a picture to a terminal."""
        if self.to_stdout and sys.stdout.isatty():
            raise UsageError("the picture would go to the terminal: pipe it on, or give -o a file")

    def watching(self, derainer: "Derainer | None") -> "Progress":
        """The progress bar, to be entered while this network runs."""
        self.derainer = derainer
        return self.bar

    def show(self, event: "Event") -> None:
        """One event of the batch, as it comes."""
        from derain_cli.batch import Result, Started

        if isinstance(event, Started):
            self.bar.start_task(self.task)  # the clock starts with the first
            self.bar.update(self.task, description=_shortened(event.job.name))
        elif isinstance(event, Result):
            self._advance(event)
            self._tell(event)
            self._deliver(event)
        else:
            self.summary = event

    def show_plan(self) -> None:
        """What a run would do, and what is known to fail."""
        from derain_cli.batch import Result, Summary
        from derain_cli.errors import UnreadableImageError

        failures = []
        for job in self.plan.jobs:
            error = UnreadableImageError(job.problem) if job.problem else None
            result = Result(job, "skipped" if job.skip else "planned", error=error)
            if error:
                result = dataclasses.replace(result, status="failed")
                failures.append(result)
            self._tell(result)
            self._deliver(result)
        to_do, skipped = len(self.plan.to_do), sum(job.skip for job in self.plan.jobs)
        self.summary = Summary(0, skipped, tuple(failures), to_do, 0.0, 0.0, 0.0)

    def say_interrupted(self, options: "BatchOptions") -> None:
        """What is done and how to go on."""
        command = resume_command(sys.argv[1:], overwrite=options.overwrite)
        total = len(self.plan.jobs)
        self.say(
            f"interrupted: {self.finished} of {total} done. Go on with:\n  {command}", always=True
        )

    def finish(self) -> None:
        """The summary; then the exit code that the failures ask for."""
        assert self.summary is not None, "a batch that is not interrupted ends with a summary"
        if self.as_json:
            self._write_line(json.dumps(_summary_line(self.summary)))
        for notice, count in self.notices.items():
            if count > 1 and not self.verbose:
                self.say(f"{notice}: {count} pictures (-v names them)")
        failures = self.summary.failures
        if len(self.plan.jobs) == 1 and failures and failures[0].error is not None:
            raise failures[0].error  # one line says it all
        if self.verbose or not self.to_stdout:
            self.say(_summary_text(self.summary, self.plan))
        if not failures:
            return
        self.say(f"failed: {len(failures)} of {len(self.plan.jobs)}", always=True)
        for result in failures:
            self.say(f"  {result.job.name}", always=True)
        codes = [result.error.exit_code for result in failures if result.error]
        raise typer.Exit(OUT_OF_RESOURCES if OUT_OF_RESOURCES in codes else 1)

    def say(self, line: str, *, always: bool = False) -> None:
        """A line on stderr, unless `--quiet`; errors are told always."""
        if always or not self.quiet:
            self.console.print(line)

    def _say_left_out(self) -> None:
        for item in self.plan.passed_over if self.verbose else ():
            self.say(f"left out: {item.path}: {item.reason}")
        count = len(self.plan.passed_over)
        if count and not self.verbose:
            first = self.plan.passed_over[0]
            more = f" (and {count - 1} more; -v names them)" if count > 1 else ""
            self.say(f"left out: {first.path}: {first.reason}{more}")

    def _advance(self, result: "Result") -> None:
        self.finished += result.status != "failed"
        if result.job.skip or result.job.problem:
            return
        self.megapixels += (result.width or 0) * (result.height or 0) / 1e6
        task = self.bar.tasks[self.task]
        speed = _speed(task.completed + 1, self.megapixels, task.elapsed or 0.0)
        self.bar.update(self.task, advance=1, speed=speed)

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
        """The product, on stdout."""
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
        # As bytes: a name that is no valid text must come out as it went in.
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.buffer.write(line.encode(encoding, "surrogateescape") + os.linesep.encode())
        sys.stdout.buffer.flush()


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
    facts += [f"tiles of {result.tile}" if result.tile else "whole", f"{result.seconds or 0:.2f} s"]
    return f"{job.name}: {target} ({', '.join(facts)})"


def _summary_text(summary: "Summary", plan: "Plan") -> str:
    counts = {
        "derained": summary.done,
        "skipped (the results are there)": summary.skipped,
        "failed": len(summary.failures),
        "not started": summary.not_started,
    }
    text = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if not summary.done:
        return text
    if len(plan.jobs) == 1:
        text = f"{plan.jobs[0].derained} written"
    speed = _speed(summary.done, summary.megapixels, summary.seconds)
    return f"{text} in {summary.seconds:.1f} s ({speed})"


def _image_line(result: "Result", derainer: "Derainer | None") -> dict[str, Any]:
    return {
        "v": SCHEMA,
        "event": "image",
        "input": result.job.name if result.job.source else "-",
        "output": result.job.derained and str(result.job.derained),
        "status": result.status,
        "model": derainer and derainer.name,
        "device": derainer and str(derainer.device),
        "tile": result.tile,
        "ms": None if result.seconds is None else round(1000 * result.seconds, 1),
        "width": result.width,
        "height": result.height,
        "bit_depth": result.bit_depth,
        "warnings": list(result.notices),
        "error": result.error and str(result.error),
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
