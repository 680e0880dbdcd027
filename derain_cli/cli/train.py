"""`derain train`: its options are the fields of `TrainConfig`."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.output_files import default_data_root, require_output_file
from derain_cli.cli.runs import (
    config_of_run,
    given_of,
    options_from,
    say_how_to_go_on,
    say_speed,
    stop_on_signal,
)
from derain_cli.errors import INTERRUPTED, UsageError
from derain_cli.training.configs.train import TrainConfig

if TYPE_CHECKING:
    from derain_cli.training.trainer import Progress, TrainResult

Report = Callable[["Progress"], None]


@options_from(TrainConfig())
def train(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Folders of runs, for --plot.", show_default=False)
    ] = None,
    *,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; made when missing.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="config.json of a run; options given beside it win.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Settings of --model: paper (as published), quick (minutes on two CPU cores) or "
            "wide-rain; options given beside it win.",
            show_default=False,
        ),
    ] = None,
    connections: Annotated[
        Path | None,
        typer.Option(help="File of `derain search`: connections of rdmc.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Show every setting and its source; train nothing."),
    ] = False,
    plot: Annotated[
        bool,
        typer.Option("--plot", help="Draw the learning curves of RUNS into one SVG (--out FILE)."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard's files to the run.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    **options: Any,  # noqa: ANN401 (one per config field)
) -> None:
    """Train a network on pairs, or on clean images with painted rain."""
    if plot:
        _plot(runs or [], out)
        return
    eaten = next((word for word in options["data"] or () if word.startswith("--")), None)
    if eaten:
        raise UsageError(
            f"--data takes two folders, RAINY and CLEAN, and was followed by {eaten!r}"
        )
    if runs:
        raise UsageError(f"{str(runs[0])!r}: what is trained on is said by --dataset or --data")
    given = given_options(options, connections)
    chosen = build_config(out, config, resume, given, preset)
    if dry_run:
        file = out / "config.json" if resume and out else config
        _explain(chosen, preset, given, str(file or "environment"))
        return
    if out is None:
        raise UsageError("no --out: name the folder of the run")
    _train(chosen, out, resume=resume, tensorboard=tensorboard, quiet=quiet)


def _train(config: TrainConfig, out: Path, *, resume: bool, tensorboard: bool, quiet: bool) -> None:
    from derain_cli.cli.train_view import show_progress
    from derain_cli.inference.memory import keep_freed_memory
    from derain_cli.training import trainer

    keep_freed_memory()
    talking = os.environ.get("RANK", "0") == "0"
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_on_signal())
        reports = [stack.enter_context(show_progress(config, quiet=quiet or not talking))]
        if tensorboard and talking:
            from derain_cli.training.tensorboard import writing

            reports.append(stack.enter_context(writing(out)))
        result = trainer.train(
            config,
            out,
            resume=resume,
            report=lambda progress: _tell(reports, progress),
            should_stop=lambda: bool(stopping),
        )
    if talking:
        _say_how_it_ended(result, quiet=quiet, interrupted=bool(stopping))
    if stopping and not result.finished:
        raise typer.Exit(INTERRUPTED)


def _tell(reports: Sequence[Report], progress: "Progress") -> None:
    for report in reports:
        report(progress)


def given_options(options: Mapping[str, Any], connections: Path | None = None) -> dict[str, Any]:
    """The config fields that were given on the command line.

    Raises:
        ConfigError: A file of connections that cannot be read.
    """
    given = given_of(options)
    if connections:
        from derain_cli.connections.file import model_option, read_connections

        found = model_option(read_connections(connections))
        given["model_option"] = [*given.get("model_option", []), found]
    return given


def build_config(
    out: Path | None,
    config: Path | None,
    resume: bool,
    given: Mapping[str, Any],
    preset: str | None = None,
) -> TrainConfig:
    """The run's config: a file (`--config`, or the run's own with `--resume`), or a preset; flags.

    Raises:
        ConfigError: An unknown field in the file, an unknown preset, or an impossible value.
    """
    from derain_cli.training.configs.presets import preset_values

    if preset and (config or resume):
        raise UsageError("--preset begins a new run; leave it out with --config or --resume")
    if resume and config is None and out is not None:
        base = config_of_run(TrainConfig, out)
    else:
        base = TrainConfig.read(config) if config else TrainConfig()
    fields = {"data_root": base.data_root or default_data_root()}
    if preset:
        fields |= preset_values(given.get("model", base.model), preset, given)
    return dataclasses.replace(base, **(fields | dict(given)))


def _explain(config: TrainConfig, preset: str | None, given: Mapping[str, Any], file: str) -> None:
    """Every setting with its source, and what the data come to; warn of none to train on."""
    from derain_cli.cli.train_view import show_settings
    from derain_cli.training.configs.presets import explain
    from derain_cli.training.recipes.paired import sources_of

    show_settings(explain(config, preset, given, file))
    if not (config.dataset or config.data or config.clean):
        typer.echo("no data yet: give --dataset, --data or --clean", err=True)
        return
    for source in sources_of(config):
        shown = f"{source.training_count} to train on, {source.held_out_count} held out"
        typer.echo(f"{source.name}: {shown}", err=True)


def _plot(runs: list[Path], out: Path | None) -> None:
    from derain_cli.training.curves import plot_runs

    if not runs:
        raise UsageError("--plot needs the folders of one or more runs")
    if out:
        require_output_file(out, "--out", ".svg")
    target = out or runs[0] / "curves.svg"
    plot_runs(runs, target)
    typer.echo(str(target))


def _say_how_it_ended(result: "TrainResult", *, quiet: bool, interrupted: bool) -> None:
    if not quiet:
        say_speed(result)
    if result.finished:
        typer.echo(str(result.folder))
    else:
        say_how_to_go_on(result, interrupted=interrupted)
