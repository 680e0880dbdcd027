"""`derain reproduce`: train, score and print a paper's table beside the paper's figures."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from derain_cli.cli.options import PlainDevice
from derain_cli.cli.output_files import DataRoot, default_data_root
from derain_cli.cli.runs import stop_on_signal, talks
from derain_cli.cli.scaling import ShardOption
from derain_cli.errors import INTERRUPTED, UsageError

if TYPE_CHECKING:
    from derain_cli.reproduce.plan import Options
    from derain_cli.reproduce.results import Results
    from derain_cli.reproduce.runner import Event, Report
    from derain_cli.reproduce.tables import Table


def reproduce(
    table: Annotated[
        str | None, typer.Argument(help="A table, for instance menet-1.", show_default=False)
    ] = None,
    *,
    list_tables: Annotated[
        bool, typer.Option("--list", help="Show every table of the five papers and its state.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder of the table; finished rows are kept (default: reproduce/TABLE).",
            show_default=False,
        ),
    ] = None,
    data_root: DataRoot = None,
    rows: Annotated[
        list[str] | None,
        typer.Option(help="A row's name, with * for any letters; repeatable (default: all)."),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Number of training runs per row, each with its own seed.")
    ] = 1,
    budget: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes of training in all, shared evenly among the runs, with smaller crops "
            "and fewer test images; 0 trains as published.",
        ),
    ] = 0,
    steps: Annotated[
        int,
        typer.Option(
            min=0,
            help="Steps of every run, in place of --budget: the same for all, even on a busy "
            "machine; 0 trains as published.",
        ),
    ] = 0,
    images: Annotated[
        int, typer.Option(min=0, help="Score this many images of each test set; 0 = all.")
    ] = 0,
    instead: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=OTHER",
            help="Use another data set for a missing one; the result says so; repeatable.",
        ),
    ] = None,
    vgg: Annotated[
        str | None,
        typer.Option(
            help="safetensors file of VGG-19's weights; without it the contrastive prior is left "
            "out, and rows about it are not run.",
            show_default=False,
        ),
    ] = None,
    device: PlainDevice = "auto",
    precision: Annotated[
        str, typer.Option(help="Precision of training: fp32, bf16 or fp16.")
    ] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 lets PyTorch choose.")] = 0,
    shard: ShardOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            "-n",
            help="List the runs, their steps, rough hours on this machine and missing data.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Train, score and print a table of one of the five papers beside its published figures.

    Run the command again to resume after an interruption or a kill. With --shard it does a part of
    the training; one --out for all parts, or their folders copied into one, gives the whole table.
    """
    from derain_cli.reproduce.catalogue import find_table
    from derain_cli.reproduce.plan import Options, require_used

    if as_json and (list_tables or dry_run):
        raise UsageError("--json prints results: leave it out beside --list and --dry-run")
    root = Path(data_root or default_data_root())
    if list_tables:
        _show_list(root)
        return
    if table is None:
        raise UsageError("name a table; `derain reproduce --list` shows them")
    chosen = find_table(table)
    options = Options(
        out=out or Path("reproduce") / table,
        data_root=root,
        rows=tuple(rows or ()),
        seeds=seeds,
        budget=budget,
        steps=steps,
        images=images,
        instead=_replacements(instead or []),
        vgg=vgg,
        device=device,
        precision=precision,
        threads=threads,
        shard=_shard_of(shard),
    )
    require_used(chosen, options)
    if dry_run:
        _show_plan(chosen, options)
        return
    _run(chosen, options, as_json=as_json, quiet=quiet)


def _replacements(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, separator, other = text.partition("=")
        if not (name and separator and other):
            raise UsageError(f"`instead` is {text!r}; it must be NAME=OTHER")
        found[name] = other
    return found


def _shard_of(text: str | None) -> tuple[int, int]:
    """Number of this part, from 1, and of all parts."""
    if text is None:
        return 1, 1
    from derain_cli.scale.shards import parse_shard

    shard = parse_shard(text)
    return shard.index + 1, shard.count


def _show_list(data_root: Path) -> None:
    """Every table with its state, and the unreproducible ones with their reasons."""
    from derain_cli.reproduce.catalogue import OUT_OF_REACH, TABLES

    for table in TABLES.values():
        ours = sum(row.is_ours for row in table.rows)
        rows = f"{ours} of {len(table.rows)} rows run" if ours < len(table.rows) else f"{ours} rows"
        typer.echo(
            f"{table.name:12} {table.source}: {table.title} ({rows}); {_state_of(table, data_root)}"
        )
    typer.echo("\nout of reach:")
    for missing in OUT_OF_REACH:
        typer.echo(f"{missing.name:12} {missing.title}: {missing.reason}")


def _state_of(table: "Table", data_root: Path) -> str:
    from derain_cli.reproduce.plan import Options, jobs_of, missing_data
    from derain_cli.reproduce.runner import missing_tests

    options = Options(out=Path("reproduce"), data_root=data_root)
    jobs = [] if table.count_only else jobs_of(table, options)
    lacking = [reason for job in jobs if (reason := missing_data(job, options))]
    tests = missing_tests(table, options)
    if not lacking and not tests:
        return "ready"
    reasons = dict.fromkeys([*lacking, *(f"test set {name!r} is missing" for name in tests)])
    share = f"{len(jobs) - len(lacking)} of {len(jobs)} runs ready"
    return f"{share}: {'; '.join(reasons)}"


def _show_plan(table: "Table", options: "Options") -> None:
    """Runs with their published steps, rough hours on this machine and missing data."""
    from derain_cli.reproduce.plan import estimated_seconds, jobs_of, missing_data, published_config
    from derain_cli.reproduce.runner import missing_tests

    jobs = [] if table.count_only else jobs_of(table, options)
    hours, known = 0.0, {}
    for job in jobs:
        lacks = missing_data(job, options)
        if lacks:
            typer.echo(f"{job.name}: cannot be run: {lacks}")
            continue
        config = published_config(job, options)
        kind = (config.model, config.model_option, config.crop, config.batch_size, config.recipe)
        if kind not in known:
            known[kind] = estimated_seconds(config)
        own = config.steps * known[kind] / 3600
        hours += own
        typer.echo(f"{job.name}: {config.steps:,} steps as published, about {own:,.1f} h here")
    for name in missing_tests(table, options):
        typer.echo(f"test set {name!r} is missing: its columns stay empty")
    if options.budget:
        minutes = f"{options.budget:g}"
        typer.echo(f"with --budget {minutes}: {minutes} min of training in all")
    elif options.steps:
        typer.echo(f"with --steps {options.steps:,}: at most this many per run, on smaller crops")
    else:
        typer.echo(f"in all about {hours:,.1f} h of training here; --budget MINUTES shortens it")


def _run(table: "Table", options: "Options", *, as_json: bool, quiet: bool) -> None:
    from derain_cli.inference.memory import keep_freed_memory
    from derain_cli.reproduce.pages import to_json, write_pages
    from derain_cli.reproduce.results import results_of
    from derain_cli.reproduce.runner import reproduce as run

    keep_freed_memory()
    talking = talks()
    with stop_on_signal() as stopping, _progress(quiet or not talking) as report:
        if not table.count_only:
            run(table, options, report=report, should_stop=lambda: bool(stopping))
    if not talking:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    results = results_of(table, options)
    files = write_pages(results, options, shlex.join(["derain", *_words()]))
    if as_json:
        typer.echo(to_json(results, options), nl=False)
    else:
        _show(results, options)
        typer.echo(str(files[0]))
    if stopping:
        typer.echo("interrupted; run it again to resume", err=True)
        raise typer.Exit(INTERRUPTED)


def _words() -> list[str]:
    return sys.argv[1:]


def _show(results: "Results", options: "Options") -> None:
    from derain_cli.reproduce.pages import difference_grid, plain_lines, score_grid, shortened

    typer.echo(f"{results.table.source}: {results.table.title}")
    for line in shortened(results, options):
        typer.echo(f"- {line}")
    for grid in (score_grid(results), difference_grid(results)):
        if grid.rows:
            typer.echo("")
            for line in plain_lines(grid):
                typer.echo(line)


@contextmanager
def _progress(quiet: bool) -> Iterator["Report"]:
    """Progress on stderr: a bar on a terminal, otherwise a line per run."""
    if quiet:
        yield lambda event: None
        return
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _say
        return
    with Progress(
        *Progress.get_default_columns()[:3],
        TimeRemainingColumn(),
        TextColumn("{task.fields[what]}"),
        console=console,
    ) as bar:
        task = bar.add_task("", total=None, what="")

        def show(event: "Event") -> None:
            description = f"{event.number} of {event.count} {event.job}"
            total = event.steps or None
            bar.update(
                task,
                description=description,
                completed=event.step,
                total=total,
                what=event.note or event.what,
            )

        yield show


def _say(event: "Event") -> None:
    if event.what == "step":
        return
    words = {
        "run": "training",
        "done": "trained",
        "score": f"scoring on {event.note}",
        "measure": "measuring a step",
    }
    typer.echo(f"{event.number} of {event.count} {event.job}: {words[event.what]}", err=True)
