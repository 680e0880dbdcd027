"""`derain finetune-real`: adapt a trained network to your own rainy photos."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
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
from derain_cli.errors import INTERRUPTED, UsageError, did_you_mean
from derain_cli.training.configs.finetune import METHODS, FinetuneConfig, method_values

if TYPE_CHECKING:
    from derain_cli.training.guard import EpochReport
    from derain_cli.training.trainer import Progress, TrainResult


@options_from(FinetuneConfig(**METHODS["online_update"]))
def finetune_real(
    *,
    out: Annotated[
        Path, typer.Option(metavar="folder", help="Folder of the run.", show_default=False)
    ],
    method: Annotated[
        str,
        typer.Option(metavar="name", help="online-update (any network) or self-training."),
    ] = "online-update",
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="name",
            help="Weights to adapt: a name, a checkpoint or a run folder.",
        ),
    ] = None,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Start from random weights of the architecture --model."
        ),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            metavar="name", help="paper (as published) or quick (minutes on two CPU cores)."
        ),
    ] = "paper",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", "-n", help="Show every setting and its source, then stop."),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")] = False,
    log: LogOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    **options: Any,  # noqa: ANN401 (one per config field)
) -> None:
    """Adapt a network to rainy photos that have no clean counterpart.

    Every epoch is judged on the photos themselves (epochs.jsonl) and, with
    --dataset, on held-out labelled images. best.safetensors is the best epoch. If
    no epoch beats the starting weights, those are kept and the command says so.

    The defaults shown are the online update's; self-training has crop 256, batch
    size 16, learning rate 1e-4 and 100,000 steps, as published.
    """
    from derain_cli.cli.train_view import starting

    given = given_of(options)
    with starting(quiet=quiet or not talks()):
        if resume:
            chosen = build_config(config_of_run(FinetuneConfig, out), {}, given)
            _refuse_another_run(chosen, method, model, preset, from_scratch=from_scratch)
            if talks():
                say_where_data_lie(out, chosen)
        else:
            chosen = config_of(method, model, given, from_scratch=from_scratch, preset=preset)
    if dry_run:
        from derain_cli.cli.train_view import show_settings
        from derain_cli.training import trainer
        from derain_cli.training.configs.presets import explain

        show_settings(explain(chosen, None, given, f"{preset} of {method}"))
        trainer.check(chosen, out, resume=resume)
        return
    run_finetuning(chosen, out, resume=resume, log=log or [], quiet=quiet)


def run_finetuning(
    chosen: FinetuneConfig, out: Path, *, resume: bool, log: Sequence[str], quiet: bool
) -> None:
    """Adapt with a view of it; after Ctrl-C or when time is up, say how to go on.

    Raises:
        typer.Exit: Interrupted.
        DerainError: What `trainer.train` raises.
    """
    from derain_cli.cli.train_view import show_progress

    talking = talks()
    silent = quiet or not talking
    with ExitStack() as stack:
        stopping = stack.enter_context(stop_on_signal())
        show = stack.enter_context(show_progress(chosen, quiet=silent))
        from derain_cli.inference.memory import keep_freed_memory
        from derain_cli.training import trainer
        from derain_cli.training.loggers import writing

        keep_freed_memory()
        say_epoch = _epoch_lines(out)
        log_numbers = stack.enter_context(writing(log if talking else [], out, chosen))

        def report(progress: "Progress") -> None:
            show(progress)
            log_numbers(progress)
            if not silent:
                say_epoch(progress)

        result = trainer.train(
            chosen, out, resume=resume, report=report, should_stop=lambda: bool(stopping)
        )
    if talking:
        if not quiet:
            say_speed(result)
        if result.finished:
            _say_what_was_kept(result)
        else:
            why = "interrupted" if stopping else "time is up"
            say_how_to_go_on(result, "finetune-real", why, log)
    if stopping and not result.finished:
        raise typer.Exit(INTERRUPTED)


def config_of(
    method: str,
    model: str | None,
    given: Mapping[str, Any],
    *,
    from_scratch: bool,
    preset: str = "paper",
) -> FinetuneConfig:
    """Config of the run: published settings of the method, then flags; network from its weights.

    Raises:
        UsageError: An unknown method, or no --model.
        UnavailableError: No such weights.
        ConfigError: An impossible value.
    """
    names = [name.replace("_", "-") for name in METHODS]
    if method not in names:
        raise UsageError(f"unknown `method` {method!r}. {did_you_mean(method, names)}")
    if model is None:
        raise UsageError("no `model`: name the weights to adapt")
    recipe = method.replace("-", "_")
    if from_scratch and recipe == "online_update":
        raise UsageError("an online update refines trained weights; leave `from_scratch` out")
    fields = {"data_root": default_data_root(), "recipe": recipe} | method_values(
        recipe, given, preset
    )
    fields |= {"model": model} if from_scratch else _network_of(model)
    own_options = given.get("model_option", [])
    fields["model_option"] = (*fields.get("model_option", ()), *own_options)
    rest = {name: value for name, value in given.items() if name != "model_option"}
    from derain_cli.training.finetuning import with_steps

    return with_steps(build_config(FinetuneConfig(), fields, rest))


def _refuse_another_run(
    chosen: FinetuneConfig, method: str, model: str | None, preset: str, *, from_scratch: bool
) -> None:
    """Refuse what would begin another run than the one that is resumed.

    Raises:
        UsageError: A preset, or another method or network than the run's.
    """
    if preset != "paper":
        raise UsageError("`preset` begins a new run; leave it out with `resume`")
    own, begun_with = chosen.recipe.replace("_", "-"), chosen.weights or chosen.model
    if method not in ("online-update", own):
        raise UsageError(f"`resume` with another `method`: the run has {own!r}, now {method!r}")
    if model not in (None, begun_with) or (from_scratch and chosen.weights):
        now = f"{model!r} from scratch" if from_scratch else repr(model)
        raise UsageError(f"`resume` with another `model`: the run has {begun_with!r}, now {now}")


def _network_of(name: str) -> dict[str, Any]:
    """Config fields of the network whose weights these are."""
    from derain_cli.checkpoints.resolving import load_model
    from derain_cli.models import model_config

    loaded = load_model(name)
    options = model_config(loaded.model).items()
    described = tuple(f"{field}={json.dumps(value)}" for field, value in options)
    return {"model": loaded.architecture, "weights": name, "model_option": described}


def _epoch_lines(out: Path) -> Callable[["Progress"], None]:
    """A function to call after every step: a line for every new epoch."""
    from derain_cli.training.guard import REPORTS, read_reports

    changed, shown = -1, read_reports(out)[:-1]

    def report(progress: "Progress") -> None:
        nonlocal changed, shown
        file = out / REPORTS
        if not file.exists() or file.stat().st_mtime_ns == changed:
            return
        changed, reports = file.stat().st_mtime_ns, read_reports(out)
        # An epoch of one step, the last, is reported on both sides of it.
        for line in (epoch_line(report) for report in reports if report not in shown):
            typer.echo(f"step {progress.step} of {progress.steps}: {line}", err=True)
        shown = reports

    return report


def epoch_line(report: "EpochReport") -> str:
    """A report in words."""
    parts = [
        f"epoch {report.epoch}: {verdict(report)}",
        f"pseudo ground truth changed by {255 * report.change:.3f} of 255",
        f"rain energy {report.rain_energy:.3g}",
    ]
    parts += [] if report.niqe is None else [f"NIQE {report.niqe:.2f}"]
    parts += [] if report.psnr is None else [f"PSNR (y) {report.psnr:.2f} dB"]
    return ", ".join(parts)


def verdict(report: "EpochReport") -> str:
    """Whether an epoch is better or worse than those before it, in words.

    Example:
        >>> from derain_cli.training.guard import EpochReport
        >>> verdict(EpochReport(0, 0.0, 1.0, kept=True)), verdict(EpochReport(2, 0.1, 2.0))
        ('before adapting', 'not better than the best so far')
        >>> verdict(EpochReport(3, 0.1, 9.0, worse="NIQE rose"))
        'worse (NIQE rose)'
    """
    if report.worse:
        return f"worse ({report.worse})"
    if report.epoch == 0:
        return "before adapting"
    if report.warming:
        return "warming up, not judged yet"
    return "better, the best so far" if report.kept else "not better than the best so far"


def _say_what_was_kept(result: "TrainResult") -> None:
    from derain_cli.training.guard import best_of, read_reports

    reports = read_reports(result.folder)
    best = best_of(reports) or reports[0]
    first = next((report for report in reports if not report.warming), best)
    if best.epoch == first.epoch and len(reports) > best.epoch + 1:
        why = next((report.worse for report in reversed(reports) if report.worse), "")
        verdict = f"adaptation made things worse ({why})" if why else "adaptation gained nothing"
        kept = f"best.safetensors is the network of epoch {best.epoch}, before it"
        typer.echo(f"{verdict}: {kept}", err=True)
    else:
        typer.echo(f"best.safetensors is the network of epoch {best.epoch}", err=True)
    typer.echo(str(result.folder))
