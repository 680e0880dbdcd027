"""`derain train`: its options are the fields of `TrainConfig`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from derain_cli.cli.output_files import default_data_root
from derain_cli.cli.runs import (
    LogOption,
    build_config,
    config_of_run,
    given_of,
    options_from,
    say_how_to_go_on,
    say_speed,
    say_where_data_lie,
    stop_on_signal,
    talks,
)
from derain_cli.cli.wording import in_flags
from derain_cli.errors import INTERRUPTED, DatasetError, UsageError
from derain_cli.training.configs.train import TrainConfig

if TYPE_CHECKING:
    from derain_cli.training.trainer import Progress, TrainResult

Report = Callable[["Progress"], None]


@options_from(TrainConfig())
def train(
    context: typer.Context,
    *,
    out: Annotated[Path | None, typer.Option(metavar="folder", help="Folder of the run.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="file", help="Take the options of a run's config.json."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="name",
            help="Take a named set of options for --arch: paper (as published), quick (minutes on "
            "two CPU cores) or wide-rain.",
        ),
    ] = None,
    connections: Annotated[
        Path | None,
        typer.Option(metavar="file", help="Build rdmc with the connections of a `derain search`."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Show each setting and its source, then stop."),
    ] = False,
    plot: Annotated[bool, typer.Option("--plot", hidden=True)] = False,
    until: Annotated[
        float,
        typer.Option(min=0, help="Stop at this validation PSNR; 0 = never.", show_default=False),
    ] = 0.0,
    patience: Annotated[
        int,
        typer.Option(min=0, help="Stop after this many validations without a new best; 0 = never."),
    ] = 0,
    log: LogOption = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", hidden=True)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    **options: Any,  # noqa: ANN401 (one per config field)
) -> None:
    """Train a network on pairs, or on clean images with painted rain.

    An architecture (--arch) is the design of a network. Weights (--weights, and
    --model of the other commands) are a file of its trained parameters.

    Options given beside --config, --preset or --resume override theirs.
    """
    if plot:
        runs = " ".join(context.args or ["RUN..."])
        raise UsageError(f"--plot is a command of its own now: derain plot {runs}")
    eaten = next((word for word in options["data"] or () if word.startswith("--")), None)
    if eaten:
        raise UsageError(
            f"`data` takes two folders, RAINY and CLEAN, and was followed by {eaten!r}"
        )
    if context.args:
        raise UsageError(f"{context.args[0]!r}: name what to train on with `dataset` or `data`")
    from derain_cli.cli.train_view import starting

    with starting(quiet=quiet):
        given = given_options(options, connections)
        chosen = config_of(out, config, resume, given, preset)
    if dry_run:
        file = out / "config.json" if resume and out else config
        try:
            explain_run(chosen, preset, given, str(file or "environment"))
            _check(chosen, out, resume=resume)
        except DatasetError as error:
            _note_missing_data(error, preset, given)
        return
    if out is None:
        raise UsageError("no `out`: name the folder of the run")
    if resume:
        say_where_data_lie(out, chosen)
    goal = Goal(until, patience)
    loggers = [*(log or []), *["tensorboard"] * tensorboard]
    _train(chosen, out, goal, loggers, resume=resume, quiet=quiet)


@dataclass
class Goal:
    """Criteria to end a run early, judged by the validations of this session.

    Attributes:
        until: Stop at this PSNR; 0 = never.
        patience: Stop after this many validations without a new best; 0 = never.
        reached: Reason to stop; empty until there is one.
    """

    until: float = 0.0
    patience: int = 0
    reached: str = ""
    _best: float = float("-inf")
    _stale: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        """As on a command line, for a run that goes on; none once it was reached.

        Example:
            >>> Goal(until=30.5).words, Goal(patience=2, reached="no better").words
            (('--until', '30.5'), ())
        """
        asked = {"--until": self.until, "--patience": self.patience}
        given = [(flag, f"{value:g}") for flag, value in asked.items() if value]
        return () if self.reached else tuple(word for pair in given for word in pair)

    def note(self, progress: "Progress") -> None:
        """Record a step.

        Example:
            >>> from types import SimpleNamespace as Step
            >>> goal = Goal(patience=2)
            >>> for psnr in (30.0, 29.0, None, 29.5):
            ...     goal.note(Step(psnr=psnr))
            >>> goal.reached
            'no better than 30.00 dB in 2 validations'
        """
        if progress.psnr is None:
            return
        self._stale = 0 if progress.psnr > self._best else self._stale + 1
        self._best = max(self._best, progress.psnr)
        if self.until and progress.psnr >= self.until:
            self.reached = f"reached {progress.psnr:.2f} dB"
        elif self.patience and self._stale >= self.patience:
            self.reached = f"no better than {self._best:.2f} dB in {self._stale} validations"


def _train(
    config: TrainConfig,
    out: Path,
    goal: Goal,
    loggers: Sequence[str],
    *,
    resume: bool,
    quiet: bool,
) -> None:
    from derain_cli.cli.train_view import show_progress

    talking = talks()
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_on_signal())
        show = stack.enter_context(show_progress(config, quiet=quiet or not talking))
        reports = [goal.note, show]
        # After the view has begun, because loading torch takes seconds.
        from derain_cli.inference.memory import keep_freed_memory
        from derain_cli.training import trainer
        from derain_cli.training.loggers import writing

        keep_freed_memory()
        if talking:
            reports.append(stack.enter_context(writing(loggers, out, config)))
        result = trainer.train(
            config,
            out,
            resume=resume,
            report=lambda progress: _tell(reports, progress),
            should_stop=lambda: bool(stopping or goal.reached),
        )
    if talking:
        why = goal.reached or ("interrupted" if stopping else "time is up")
        _say_how_it_ended(result, loggers, goal.words, quiet=quiet, why=why)
    if stopping and not result.finished:
        raise typer.Exit(INTERRUPTED)


def _tell(reports: Sequence[Report], progress: "Progress") -> None:
    for report in reports:
        report(progress)


def given_options(options: Mapping[str, Any], connections: Path | None = None) -> dict[str, Any]:
    """Config fields given on the command line.

    Raises:
        ConfigError: A file of connections that cannot be read.
    """
    given = given_of(options)
    file = connections or _connections_of(given.get("weights"))
    if file:
        from derain_cli.connections.file import model_option, read_connections

        found, own = [model_option(read_connections(file))], given.get("model_option", [])
        # The last one counts: a search that --weights names yields to edges that are stated.
        given["model_option"] = [*own, *found] if connections else [*found, *own]
    return given


def _connections_of(weights: str | None) -> Path | None:
    """Connections of a search, if --weights is the folder of one: the derived network has them."""
    found = Path(weights or "") / "connections.toml"
    return found if weights and found.is_file() else None


def config_of(
    out: Path | None,
    config: Path | None,
    resume: bool,
    given: Mapping[str, Any],
    preset: str | None = None,
) -> TrainConfig:
    """The run's config: a file (`--config`, or the run's own with `--resume`), or a preset; flags.

    Raises:
        ConfigError: An unknown field in the file, an unknown preset, an impossible value, or an
            option that the recipe does not use.
    """
    from derain_cli.training.configs.presets import preset_values

    _refuse_weights(given.get("model", ""))
    if preset and (config or resume):
        raise UsageError("`preset` begins a new run; leave it out with `config` or `resume`")
    if resume and config is None and out is not None:
        base = config_of_run(TrainConfig, out)
    else:
        base = TrainConfig.read(config) if config else TrainConfig()
    fields = {"data_root": base.data_root or default_data_root()}
    if preset:
        fields |= preset_values(given.get("model", base.model), preset, given)
    return build_config(base, fields, given)


def _refuse_weights(architecture: str) -> None:
    """Catch the commonest slip: the name of weights instead of an architecture."""
    from derain_cli.checkpoints.catalogue import list_weights

    entry = next((entry for entry in list_weights() if entry.name == architecture), None)
    if entry:
        raise UsageError(
            f"`model` is an architecture, and {architecture!r} are weights of {entry.model!r}: "
            f"to start from them, give `model` {entry.model} `weights` {architecture}"
        )


def _check(config: TrainConfig, out: Path | None, *, resume: bool) -> None:
    """Refuse what the run would refuse, if it has data."""
    if config.dataset or config.data or config.clean:
        from derain_cli.training import trainer

        trainer.check(config, out, resume=resume)


def _note_missing_data(error: DatasetError, preset: str | None, given: Mapping[str, Any]) -> None:
    """Say what a preset needs to run, whose settings can be read without; data named must be there.

    Raises:
        DatasetError: The same.
    """
    if preset is None or given.keys() & {"dataset", "data", "clean", "rain", "data_root"}:
        raise error
    typer.echo(f"before it can run: {in_flags(str(error), {'data_root': '--data-root'})}", err=True)


def explain_run(
    config: TrainConfig, preset: str | None, given: Mapping[str, Any], file: str
) -> None:
    """Print every setting with its source and the size of the data.

    Raises:
        UsageError: No such network.
        ConfigError: Training would refuse the data, or has none.
        DatasetError: Likewise.
    """
    from derain_cli.cli.train_view import show_settings
    from derain_cli.models import find_model
    from derain_cli.training.configs.presets import explain
    from derain_cli.training.recipes.paired import sources_of, with_steps

    find_model(config.model)
    show_settings(explain(config, preset, given, file))
    for source in sources_of(config):
        shown = f"{source.training_count} to train on, {source.held_out_count} held out"
        typer.echo(f"{source.name}: {shown}", err=True)
    if config.epochs:
        steps = with_steps(config).steps
        typer.echo(f"{config.epochs} epochs are {steps} steps on these images", err=True)


def _say_how_it_ended(
    result: "TrainResult", loggers: Sequence[str], more: Sequence[str], *, quiet: bool, why: str
) -> None:
    if not quiet:
        say_speed(result)
    if result.finished:
        typer.echo(str(result.folder))
    else:
        say_how_to_go_on(result, "train", why, loggers, more)
