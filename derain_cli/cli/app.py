"""The command group: which word is a command, and the one place where errors become exit codes."""

import difflib
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from derain_cli import __version__
from derain_cli.cli import datasets, derain, evaluate, finetune_real, models, search, train
from derain_cli.errors import INTERRUPTED, DerainError, UsageError

DEFAULT_COMMAND = "derain"


class DerainGroup(typer.core.TyperGroup):
    """Commands by name; anything else is pictures for the default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 (Typer's own type is private)
        """Put `derain` in front of inputs that name no command."""
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
        run = functools.partial(super().main, *args, **(extra | {"standalone_mode": False}))
        code = _exit_code(run)
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Run the command; Ctrl-C ends with 130 (Click would make it 1)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise typer.Exit(INTERRUPTED) from interrupt


def _exit_code(run: Callable[[], Any]) -> int:
    try:
        return run() or 0
    except DerainError as error:
        _say_error(str(error))
        return error.exit_code
    except Exception as error:
        # Click's usage errors carry these two; their class is private to Typer.
        if not hasattr(error, "format_message") or not hasattr(error, "exit_code"):
            raise
        _say_error(error.format_message().replace("\n", " "))
        return int(error.exit_code)


def _say_error(message: str) -> None:
    if message:
        print(f"error: {message}", file=sys.stderr)  # noqa: T201 (the one place)


app = typer.Typer(
    cls=DerainGroup,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Take the rain out of photographs. `derain PHOTO` is short for `derain derain PHOTO`.",
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def group(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Options of the group itself."""


app.command("derain")(derain.derain)
app.command("eval")(evaluate.evaluate)
app.command("train")(train.train)
app.command("finetune-real")(finetune_real.finetune_real)
app.command("search")(search.search)
app.add_typer(models.app, name="models")
app.add_typer(datasets.app, name="datasets")
