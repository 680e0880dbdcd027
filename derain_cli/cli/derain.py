"""`derain derain`, the default command: take the rain out of images."""

import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.cli.batch_report import BatchReport
from derain_cli.cli.options import (
    HOW,
    SPEED,
    BatchSize,
    Device,
    EngineName,
    EngineOption,
    Passes,
    Precision,
    PrecisionOption,
    Scales,
    ScalesOption,
    Strength,
    TestTimeAugmentation,
    Threads,
    Tile,
    TileOverlap,
    option,
)
from derain_cli.cli.output_files import give_up_standard_output
from derain_cli.cli.scaling import (
    ManifestOption,
    OnOption,
    ShardOption,
    check_engine,
    events_of,
    make_plan,
    recording,
    trust_in,
)
from derain_cli.cli.signals import acknowledging
from derain_cli.cli.streams import LONGEST_LIST, read_standard_input
from derain_cli.cli.watching import refuse_beside_watching
from derain_cli.errors import INTERRUPTED, DerainError, UsageError

if TYPE_CHECKING:
    from derain_cli.batch import BatchOptions, Event, Interrupter, Plan
    from derain_cli.batch.events import Location
    from derain_cli.inference.derainer import Derainer


class ImageFormat(StrEnum):
    """Formats that results can be written in."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"
    bmp = "bmp"


class FramesOfAnimation(StrEnum):
    """How much of an animation is derained."""

    first = "first"
    all = "all"


WHERE, BATCH, TOLD = "Results", "Batches", "Messages"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="IMAGES", help="Files, folders, quoted patterns, or - for stdin."),
]

Output = Annotated[
    str | None,
    option(
        "--output",
        "-o",
        metavar="PATH",
        show_default="beside the input",
        panel=WHERE,
        help="A file; a folder if it exists, if it ends in / or if there are several images; - for "
        "stdout.",
    ),
]

Suffix = Annotated[
    str, option("--suffix", panel=WHERE, help="Add this to the name of a result beside its input.")
]

Format = Annotated[
    ImageFormat | None,
    option(
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
    option(
        "--quality",
        min=1,
        max=100,
        panel=WHERE,
        help="Quality of JPEG, WebP, AVIF and films. By default a JPEG keeps the tables and "
        "subsampling of its input; other JPEGs get 95, WebP and AVIF 90, films 80.",
    ),
]

Overwrite = Annotated[
    bool, option("--overwrite", panel=WHERE, help="Replace results that exist (never an input).")
]

SkipExisting = Annotated[
    bool,
    option(
        "--skip-existing",
        panel=WHERE,
        help="Keep results that exist and derain the rest, for instance to resume.",
    ),
]

SaveRain = Annotated[
    bool, option("--save-rain", panel=WHERE, help="Also write the rain layer, NAME_rain.")
]

Compare = Annotated[
    bool, option("--compare", panel=WHERE, help="Also write before | after, NAME_compare.")
]

Model = Annotated[
    str | None,
    option(
        "--model",
        "-m",
        metavar="NAME",
        show_default=f"{DEFAULT_WEIGHTS}, the best for real photos",
        panel=HOW,
        help="Name of weights, a checkpoint, hf:org/repo@rev or a training run's folder.",
    ),
]

LeaveDry = Annotated[
    bool,
    option(
        "--leave-dry",
        panel=HOW,
        help="Copy an image byte for byte if almost no rain is found in it.",
    ),
]
Codec = Annotated[
    str | None,
    option(
        "--codec",
        metavar="NAME",
        show_default="as the input",
        panel=WHERE,
        help="Codec of films: h264, hevc, vp8, vp9, av1, mpeg4, mpeg2video, mjpeg, prores or ffv1.",
    ),
]
FramesOption = Annotated[
    FramesOfAnimation,
    option(
        "--frames",
        panel=HOW,
        help="Frames of an animated GIF, WebP or PNG to derain; a film is always derained whole.",
    ),
]
Temporal = Annotated[
    int,
    option(
        "--temporal",
        min=0,
        max=1,
        panel=HOW,
        help="1 steadies each frame of a film with its two neighbours; 0 does not.",
    ),
]

Compile = Annotated[
    bool, option("--compile", panel=SPEED, help="Compile the network first; pays off in batches.")
]

Workers = Annotated[
    int | None,
    option(
        "--workers",
        "-j",
        min=1,
        show_default="up to 4",
        panel=SPEED,
        help="Threads that decode, and as many again that encode, while the network runs.",
    ),
]

MaxPixels = Annotated[
    int | None,
    option(
        "--max-pixels",
        min=1,
        show_default="300 million",
        panel=SPEED,
        help="Refuse larger images before they are decoded.",
    ),
]

Recursive = Annotated[
    bool, option("--recursive", "-r", panel=BATCH, help="Search folders recursively.")
]

FromFile = Annotated[
    str | None,
    option(
        "--from-file",
        metavar="LIST",
        panel=BATCH,
        help="Take more inputs from a list, one per line (or NUL-separated); - for stdin.",
    ),
]

Watch = Annotated[
    Path | None,
    option(
        "--watch",
        metavar="FOLDER",
        show_default=False,
        panel=BATCH,
        help="Derain the images in a folder and those that arrive later, until Ctrl-C.",
    ),
]
FailFast = Annotated[
    bool, option("--fail-fast", panel=BATCH, help="Stop at the first image that fails.")
]

Strict = Annotated[
    bool,
    option(
        "--strict",
        panel=BATCH,
        help="Fail images that are damaged, even if they can be read.",
    ),
]

DryRun = Annotated[
    bool, option("--dry-run", "-n", panel=BATCH, help="Show what would be written, then stop.")
]

AsJson = Annotated[
    bool, option("--json", panel=TOLD, help="Print a JSON line per image on stdout.")
]
Quiet = Annotated[bool, option("--quiet", "-q", panel=TOLD, help="Show only errors on stderr.")]

Verbose = Annotated[
    bool,
    option("--verbose", "-v", panel=TOLD, help="Show a line per image and per file left out."),
]


def derain(
    inputs: Inputs = None,
    output: Output = None,
    model: Model = None,
    suffix: Suffix = "_derained",
    format: Format = None,
    quality: Quality = None,
    codec: Codec = None,
    recursive: Recursive = False,
    from_file: FromFile = None,
    watch: Watch = None,
    overwrite: Overwrite = False,
    skip_existing: SkipExisting = False,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    engine: EngineOption = EngineName.auto,
    tile: Tile = None,
    tile_overlap: TileOverlap = None,
    compile: Compile = False,
    threads: Threads = None,
    workers: Workers = None,
    batch_size: BatchSize = 1,
    max_pixels: MaxPixels = None,
    strength: Strength = 1.0,
    leave_dry: LeaveDry = False,
    passes: Passes = 1,
    tta: TestTimeAugmentation = False,
    scales: ScalesOption = Scales.one,
    frames: FramesOption = FramesOfAnimation.first,
    temporal: Temporal = 1,
    save_rain: SaveRain = False,
    compare: Compare = False,
    shard: ShardOption = None,
    manifest: ManifestOption = None,
    on: OnOption = None,
    dry_run: DryRun = False,
    fail_fast: FailFast = False,
    strict: Strict = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Take the rain out of images. The originals are never changed."""
    from derain_cli.batch import BatchOptions

    options = BatchOptions(
        output=output,
        suffix=suffix,
        format=format and format.value,
        quality=quality,
        recursive=recursive,
        overwrite=overwrite,
        skip_existing=skip_existing,
        strength=strength,
        leave_dry=leave_dry,
        save_rain=save_rain,
        compare=compare,
        workers=workers,
        batch_size=batch_size,
        max_pixels=max_pixels,
        fail_fast=fail_fast,
        strict=strict,
        frames=frames.value,
        codec=codec,
        temporal=bool(temporal),
    )
    running: dict[str, Any] = {"device": device, "precision": precision.value, "compile": compile}
    running |= {"engine": engine.value, "passes": passes, "tta": tta}
    running |= {"scales": scales.number}
    running |= {"tile": tile, "tile_overlap": tile_overlap, "threads": threads}
    if watch is not None:
        refuse_beside_watching(
            {"--from-file": from_file, "--shard": shard, "--manifest": manifest, "--on": on}
            | {"--dry-run": dry_run}
        )
        _watch(watch, inputs or [], options, model, running, (as_json, quiet, verbose))
        return
    check_engine(on)
    trust = trust_in(manifest, model, options, running)
    listed = _read_list(from_file, inputs or [])
    plan = make_plan(inputs or [], options, listed, shard, trust)
    report = BatchReport(plan, as_json=as_json, quiet=quiet, verbose=verbose)
    if dry_run:
        report.show_plan()
    else:
        with recording(manifest, trust) as record:
            _run(plan, options, model, running, report, on, record)
    report.finish()


def _watch(
    folder: Path,
    inputs: list[str],
    options: "BatchOptions",
    model: str | None,
    engine: dict[str, Any],
    messages: tuple[bool, bool, bool],
) -> None:
    from derain_cli.batch import Plan, Result, run_batch
    from derain_cli.cli.watching import check_watching, watch_folder

    check_watching(folder, inputs, options)
    as_json, quiet, verbose = messages
    derainer = _load(model, engine, _say_nothing if quiet else partial(typer.echo, err=True))
    if not quiet:
        _say_harm(model, partial(typer.echo, err=True))

    def batch(plan: "Plan", report: BatchReport, interrupter: "Interrupter") -> "Generator[Event]":
        return run_batch(plan, derainer, options, b"", interrupter, report.advance_within)

    def run(plan: "Plan") -> "set[Location | None]":
        report = BatchReport(plan, as_json=as_json, quiet=quiet, verbose=verbose)
        ended: set[Location | None] = set()

        def note(event: "Event") -> None:
            if isinstance(event, Result):
                ended.add(event.job.source)

        _run_with(partial(batch, plan, report), options, derainer, report, note)
        try:
            report.finish()
        except DerainError as error:  # the next one may be better
            report.say(f"failed: {error}", always=True)
        except typer.Exit:
            pass  # several failed, and each was named
        return ended

    def say(error: DerainError) -> None:
        report = BatchReport(Plan(()), as_json=as_json, quiet=quiet, verbose=verbose)
        report.say(f"failed: {error}", always=True)

    if not quiet:
        typer.echo(f"watching {str(folder)!r}; press Ctrl-C to stop", err=True)
    watch_folder(folder, options, run, say)


def _read_list(from_file: str | None, inputs: list[str]) -> tuple[str, ...] | None:
    from derain_cli.batch import STDIN, read_list

    if from_file is None:
        return None
    if from_file == STDIN and STDIN in inputs:
        raise UsageError("stdin is either the image ('-') or the list (--from-file -), not both")
    try:
        if from_file == STDIN:
            content = read_standard_input("the list", LONGEST_LIST)
        else:
            with Path(from_file).open("rb") as file:
                content = file.read(LONGEST_LIST + 1)
    except OSError as error:
        raise UsageError(f"cannot read the list {from_file!r}: {error.strerror}") from error
    if len(content) > LONGEST_LIST:
        limit = f"{LONGEST_LIST >> 20} MiB"
        raise UsageError(f"{from_file!r} is longer than {limit}, too long for a list of paths")
    return read_list(content)


def _run(
    plan: "Plan",
    options: "BatchOptions",
    model: str | None,
    engine: dict[str, Any],
    report: "BatchReport",
    on: str | None,
    record: "Callable[[Event], None]",
) -> None:
    report.check_stdout()
    try:
        stdin = _read_image() if plan.only and plan.only.source is None else b""
        derainer = None
        if plan.has_work and on is None:
            with report.loading() as on_phase:
                derainer = _load(model, engine, on_phase)
        _say_harm(model, report.say)
    except KeyboardInterrupt:
        report.say_interrupted(options)
        raise typer.Exit(INTERRUPTED) from None

    def run(interrupter: "Interrupter") -> "Generator[Event]":
        progress = report.advance_within
        return events_of(plan, model, derainer, options, engine, on, stdin, interrupter, progress)

    _run_with(run, options, derainer, report, record)


def _run_with(
    run: "Callable[[Interrupter], Generator[Event]]",
    options: "BatchOptions",
    derainer: "Derainer | None",
    report: "BatchReport",
    record: "Callable[[Event], None]",
) -> None:
    from derain_cli.batch import Interrupter

    interrupter = Interrupter()
    try:
        events = run(interrupter)
        with report.watching(derainer), closing(events), _on_ctrl_c(interrupter.interrupt):
            for event in events:
                record(event)
                report.show(event)
    except KeyboardInterrupt:
        report.say_interrupted(options)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of our output has exited (`| head`): keep what was written, drop the rest.
        give_up_standard_output()
        report.say_interrupted(options, "the reader of the output has exited")
        raise typer.Exit(1) from None


@contextmanager
def _on_ctrl_c(handler: Callable[..., None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # Python allows it only there
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:  # on purpose, as for a job in a script's background
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        with acknowledging("stopping after the files in progress; Ctrl-C again stops at once"):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read_image() -> bytes:
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("'-' reads an image from stdin, which is a terminal: pipe one in")
    return read_standard_input("an image")


def _say_harm(model: str | None, say: Callable[[str], None]) -> None:
    """Print the known harm of the weights."""
    from derain_cli.checkpoints.catalogue import known_harm

    harm = known_harm(model) if model else ""
    if harm:
        say(f"{model}: {harm}")


def _say_nothing(_line: str) -> None:
    pass


def _load(model: str | None, engine: dict[str, Any], on_phase: Callable[[str], None]) -> "Derainer":
    from derain_cli.inference.derainer import Derainer

    return Derainer.load(model or DEFAULT_WEIGHTS, on_phase=on_phase, **engine)
