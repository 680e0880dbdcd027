"""The command group, and the one place where errors become exit codes."""

import difflib
import errno
import functools
import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from derain_cli.checkpoints import DEFAULT_WEIGHTS
from derain_cli.cli.commands import Commands
from derain_cli.cli.output_files import give_up_standard_output
from derain_cli.cli.streams import LONGEST_MESSAGE, prepare_streams, printable
from derain_cli.cli.wording import in_flags, reword, reword_parameter
from derain_cli.errors import INTERRUPTED, DerainError, ResourceError, UsageError
from derain_cli.version import __version__

DEFAULT_COMMAND = "derain"

# Errors of disk and permissions, wherever they happen; any other OSError is a bug.
REFUSED = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOTDIR}
    | {errno.EISDIR, errno.ENAMETOOLONG, errno.EMFILE}
)


class DerainGroup(typer.core.TyperGroup):
    """Commands by name; any other words are images for the default command."""

    def __init__(self, **attributes: Any) -> None:  # noqa: ANN401 (Typer's own types are private)
        super().__init__(**attributes)
        self.commands = Commands()  # type: ignore[assignment]  # Typer only reads it

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Names, in the order of the help."""
        return list(self.commands)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Insert the command `derain` before inputs without a command."""
        if args and args[0] not in self.commands and args[0] not in self._own_options(ctx):
            self._refuse_misspelt_command(args)
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def _own_options(self, ctx: Any) -> set[str]:  # noqa: ANN401
        return {name for param in self.get_params(ctx) for name in param.opts}

    def _refuse_misspelt_command(self, args: Sequence[str]) -> None:
        word = args[0]
        looks_like_a_path = any(sign in word for sign in "./\\*?") or word.startswith("-")
        if looks_like_a_path or Path(word).exists():
            return
        close = difflib.get_close_matches(word, self.commands, n=1, cutoff=0.6)
        if close:
            raise UsageError(f"no file and no command {word!r}. Did you mean 'derain {close[0]}'?")

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:  # noqa: ANN401
        """Run, and turn every error a user can fix into one line on stderr and its exit code."""
        prepare_streams()
        run = functools.partial(super().main, *args, **(extra | {"standalone_mode": False}))
        given = args[0] if args else extra.get("args")
        words = sys.argv[1:] if given is None else given
        code = _exit_code(run, words, self._flags(words))
        if standalone_mode:
            sys.exit(code)
        return code

    def _flags(self, words: Sequence[str]) -> dict[str, str]:
        """How the command of these words spells its parameters: `batch_size` is `--batch-size`."""
        command: Any = self
        for word in words:
            command = getattr(command, "commands", {}).get(word, command)
        command = self.commands[DEFAULT_COMMAND] if command is self else command
        options = [param for param in command.params if param.param_type_name == "option"]
        return {
            param.name: next((flag for flag in param.opts if flag.startswith("--")), param.opts[0])
            for param in options
        }

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """A command, whose help names types in words."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            reword(command, ctx)
        return command

    def get_params(self, ctx: Any) -> Any:  # noqa: ANN401
        """The group's own options, likewise."""
        params = super().get_params(ctx)
        for param in params:
            reword_parameter(param, ctx)
        return params

    def get_usage(self, ctx: Any) -> str:  # noqa: ANN401
        """Both forms of the command, the more common one first."""
        name = ctx.command_path
        return f"Usage: {name} [OPTIONS] IMAGES...\n       {name} COMMAND [OPTIONS] ..."

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command; Ctrl-C ends with 130 (Click would make it 1)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            print("interrupted", file=sys.stderr)  # noqa: T201
            raise typer.Exit(INTERRUPTED) from interrupt


def _exit_code(run: Callable[[], Any], words: Sequence[str], flags: Mapping[str, str]) -> int:
    try:
        _check_working_folder()
        return run() or 0
    except DerainError as error:
        _say_error(_with_way_out_of_dashes(in_flags(str(error), flags), words))
        return error.exit_code
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _say_error(_said_by_the_system(error))
        return ResourceError.exit_code
    except Exception as error:
        # Click's usage errors carry these two; their class is private to Typer.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        _say_error(_usage_line(error, words))
        return int(error.exit_code)


def _check_working_folder() -> None:
    """Relative paths mean nothing in a folder that was deleted, and libraries fail there.

    Raises:
        UsageError: It was.
    """
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder was deleted: change to another one") from error


def _said_by_the_system(error: OSError) -> str:
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)!r}: {error.strerror}"
    give_up_standard_output()  # it, most likely: files have names
    return f"cannot write: {error.strerror}"


def _usage_line(error: Any, words: Sequence[str]) -> str:  # noqa: ANN401 (Typer's own type is private)
    """Click's message with the value it rejects."""
    # Typer passes on how pydantic begins.
    message: str = error.format_message().replace("\n", " ").replace("Value error, ", "")
    names = getattr(getattr(error, "param", None), "opts", ())
    value = next((value for value in _values_of(names, words)), None)
    if value is not None and repr(value) not in message:
        message = message.replace("Invalid value", f"Invalid value {value!r}", 1)
    return _with_way_out_of_dashes(message, words)


def _with_way_out_of_dashes(message: str, words: Sequence[str]) -> str:
    """A message, and what to write where a file was read as an option, as before a `--`."""
    read = itertools.takewhile(lambda word: word != "--", words)
    file = next((word for word in read if word.startswith("-") and Path(word).is_file()), None)
    return f"{message}. Is {file!r} a file? Write './{file}'" if file else message


def _values_of(names: Sequence[str], words: Sequence[str]) -> list[str]:
    """Values given for an option on a command line.

    Example:
        >>> _values_of(["--limit"], ["eval", "--limit", "-1"])
        ['-1']
    """
    apart = [after for word, after in pairwise(words) if word in names]
    joined = [word.partition("=") for word in words]
    return apart + [value for name, equals, value in joined if equals and name in names]


def _say_error(message: str) -> None:
    if message:
        print(f"error: {printable(message, LONGEST_MESSAGE)}", file=sys.stderr)  # noqa: T201 (the one place)


app = typer.Typer(
    cls=DerainGroup,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=f"Take the rain out of images, with the weights {DEFAULT_WEIGHTS} unless -m names others."
    "\n\n`derain photo.jpg` writes photo_derained.jpg beside it. It is short for "
    "`derain derain photo.jpg`; `derain derain -h` lists the options.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of the group itself."""
