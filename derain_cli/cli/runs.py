"""Shared by the training commands: options from config fields, Ctrl-C, final messages."""

import dataclasses
import inspect
import os
import shlex
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import typer

from derain_cli.cli.wording import escaped
from derain_cli.errors import ConfigError, UsageError
from derain_cli.training.configs.fields import (
    facts,
    hidden,
    require_used,
    shown,
    without_unused,
    word_of,
)
from derain_cli.training.configs.train import TrainConfig, require_scheduled

if TYPE_CHECKING:
    from derain_cli.training.trainer import TrainResult

Config = TypeVar("Config", bound=TrainConfig)
LogOption = Annotated[
    list[str] | None,
    typer.Option(
        "--log",
        metavar="name",
        help="Also log to tensorboard, wandb (offline) or mlflow, in the run's folder; repeatable.",
    ),
]


def talks() -> bool:
    """Whether this process shows progress: of those that `torchrun` started, the first."""
    return os.environ.get("RANK", "0") == "0"


STOPPING = b"\nstopping after this step, which will be saved; Ctrl-C again stops at once\n"

Command = TypeVar("Command", bound=Callable[..., None])


# Name of the recipe's flag in commands that do not call it --recipe.
RECIPE_FLAGS = {"finetune-real": "--method"}
ONLY = "Only with"


def options_from(config: TrainConfig) -> Callable[[Command], Command]:
    """Decorator: replace a command's `**options` by one option per field of the config.

    Args:
        config: Fields, their facts, and the defaults that the help shows. Options that are not
            on the command line are None, so that a preset or a file can set them.
    """
    left_out = hidden(type(config))
    fields = [field for field in dataclasses.fields(config) if field.name not in left_out]
    fields.sort(key=lambda field: _rank(field, config))
    options = [_option_of(field, config) for field in fields]

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True)
        named = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        command.__signature__ = own.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
        return command

    return decorate


def given_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options given on the command line; an empty list means a repeatable one was not."""
    return {name: value for name, value in options.items() if value not in (None, [], ())}


def build_config(base: Config, fields: Mapping[str, Any], given: Mapping[str, Any]) -> Config:
    """Config merged from several sources; later ones override earlier ones.

    A setting that the recipe does not use is an error in `given`, and ignored elsewhere.

    Args:
        base: A run's, or one of defaults.
        fields: Of a preset.
        given: On the command line.

    Raises:
        ConfigError: An impossible value, or an option that the recipe or the schedule does not use.
        UsageError: Both steps and epochs.
    """
    if given.get("epochs") and "steps" in given:
        raise UsageError("`epochs` and `steps` exclude each other: leave one out")
    settings = {**dataclasses.asdict(base), **fields, **given}
    if "steps" in given:
        settings["epochs"] = 0
    require_used(type(base), settings["recipe"], given)
    config = type(base)(**without_unused(type(base), settings))
    require_scheduled(config, given)
    return config


def config_of_run(kind: type[Config], out: Path) -> Config:
    """Config of the run to resume.

    Raises:
        ConfigError: There is no run, or it is one of another command.
    """
    path = out / "config.json"
    if not path.exists():
        raise ConfigError(f"{str(out)!r} has no run to resume; drop `resume` to begin one")
    try:
        return kind.read(path)
    except ConfigError as error:
        raise ConfigError(f"{error} (perhaps a run of another command)") from error


def _option_of(field: dataclasses.Field[Any], config: TrainConfig) -> inspect.Parameter:
    """Command-line parameter of a config field; None unless given."""
    known, value = facts(field), getattr(config, field.name)
    default = known.shown or ("" if value in (None, "", (), False) else shown(value))
    text = escaped(f"{known.help} [default: {default}]" if default else known.help)
    declaration: Any = typer.Option(
        *known.flags,
        help=text,
        metavar=word_of(field),
        rich_help_panel=_panel_of(field, config) or None,
        show_default=False,
    )
    kind = _plain_type(field.type, pair=known.pair)
    declaration = Annotated[kind | None, declaration]
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=declaration
    )


def _rank(field: dataclasses.Field[Any], config: TrainConfig) -> int:
    """Order of the help panels: the command's own, shared ones, those of one recipe."""
    if _panel_of(field, config).startswith(ONLY):
        return 2
    shared = {item.name for kind in type(config).__bases__ for item in _fields_of(kind)}
    return int(field.name in shared)


def _fields_of(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _panel_of(field: dataclasses.Field[Any], config: TrainConfig) -> str:
    """The panel of the help: the field's group, or the only recipe that uses it."""
    using = [name for name in config.recipes if name in facts(field).recipes]
    if len(using) != 1 or len(config.recipes) == 1:
        return facts(field).group
    recipe_flag = RECIPE_FLAGS.get(config.command)
    name = using[0].replace("_", "-") if recipe_flag else using[0]
    return f"{ONLY} {recipe_flag or '--recipe'} {name}"


def _plain_type(annotation: Any, *, pair: bool) -> Any:  # noqa: ANN401 (a type)
    """`tuple[str, ...]` becomes `list[str]`, or `tuple[str, str]`; `str | None` becomes `str`."""
    if get_origin(annotation) is tuple:
        member = get_args(annotation)[0]
        return tuple[member, member] if pair else list[member]  # type: ignore[valid-type]
    members = [member for member in get_args(annotation) if member is not type(None)]
    return members[0] if members else annotation


@contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that the first Ctrl-C fills (finish the step, save); a second one interrupts.

    The first is acknowledged at once on stderr. A cluster's SIGTERM counts as well.
    """
    stopping: list[int] = []

    def note(number: int, frame: Any) -> None:  # noqa: ANN401 (a frame)
        if stopping:
            raise KeyboardInterrupt
        stopping.append(number)
        with suppress(OSError):  # past Python's buffers, which a signal may not enter again
            os.write(2, STOPPING)

    numbers = (signal.SIGINT, signal.SIGTERM)
    # A signal that is ignored on purpose, as in a script's background, stays ignored.
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heard}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_speed(result: "TrainResult") -> None:
    """Print on stderr the training speed and the share of time spent waiting for data."""
    if result.images_per_second:
        speed = f"{result.images_per_second:.3g} images/s"
        typer.echo(f"{speed}, waited {100 * result.waited:.1f} % for data", err=True)


def say_where_data_lie(out: Path, chosen: TrainConfig) -> None:
    """Print on stderr that a resumed run reads its data from another folder."""
    before = type(chosen).read(out / "config.json").data_root
    if before != chosen.data_root:
        typer.echo(f"data sets are read from {chosen.data_root}, no longer from {before}", err=True)


def say_how_to_go_on(
    result: "TrainResult",
    command: str,
    why: str,
    loggers: Sequence[str] = (),
    more: Sequence[str] = (),
) -> None:
    """Print on stderr why a run ended early, at which step, and the command that resumes it.

    Args:
        result: Of the run.
        command: Its name.
        why: It ended.
        loggers: Of `--log`.
        more: Words of the command line that no file of the run holds.
    """
    words = ["derain", command, "--out", str(result.folder), "--resume", *more]
    words += [word for name in loggers for word in ("--log", name)]
    typer.echo(f"{why} at step {result.step}; go on with: {shlex.join(words)}", err=True)
