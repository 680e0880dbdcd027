"""Wording of the command line: types and defaults in help, fields in errors.

One place for every command: Typer's help would say `<float>` and `[0<=x<=1]`, the library's errors
say `batch_size` where a user of the command line writes `--batch-size`.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from derain_cli.training.configs.fields import shown

# Types as the help names them.
WORDS = {"bool": "", "int": "number", "float": "number", "str": "text", "Path": "path"}


def reword(command: Any, ctx: Any) -> None:  # noqa: ANN401 (Typer's own types are private)
    """Rewrite the help of a command, or of a group's commands."""
    for param in command.get_params(ctx):
        reword_parameter(param, ctx)
    for below in getattr(command, "commands", {}).values():
        reword(below, ctx)


def reword_parameter(param: Any, ctx: Any) -> None:  # noqa: ANN401
    """Name an option's type in a word, and append its default to its help, once."""
    types = _type_in_words(param, ctx)
    if param.param_type_name == "argument":
        param.metavar = param.metavar or param.name.upper()
        param.display_type_rich = lambda ctx: ""
        return
    if param.metavar is None:
        param.metavar = types
    elif param.metavar.isupper():
        param.metavar = param.metavar.lower()
    param.min = param.max = None  # for the help only: Typer checks with its own copy
    default = _default_in_words(param)
    if default and "[default:" not in param.help:
        param.help = f"{param.help} {escaped(f'[default: {default}]')}"
    param.show_default = False


def _type_in_words(param: Any, ctx: Any) -> str:  # noqa: ANN401
    """A type: number, 0..1 where both ends are known, the values of a choice."""
    if param.min is not None and param.max is not None:
        return f"{param.min}..{param.max}"
    plain = param.display_type(ctx).replace(" range", "")
    if "|" in plain:
        return str(plain.strip("<>"))
    names = [name for name in re.findall(r"\w+", plain) if name != "list"]
    return " ".join(WORDS.get(name, name) for name in names)


def _default_in_words(param: Any) -> str:  # noqa: ANN401
    if isinstance(param.show_default, str):
        return param.show_default
    default = param.default.value if isinstance(param.default, Enum) else param.default
    off = default is None or callable(default) or not default
    return "" if off or not param.show_default else shown(default)


def escaped(text: str) -> str:
    r"""Help text whose square brackets Rich prints instead of parsing them as markup.

    `rich.markup.escape` does the same, but importing Rich would slow down every command.

    Example:
        >>> print(escaped("cuda[:N] [default: auto]"))
        cuda[:N] \[default: auto]
    """
    return re.sub(r"\[(?=[a-z#/@])", r"\\[", text)


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Translate a library message, which names fields in backticks, to command-line flags.

    Example:
        >>> in_flags("`batch_size` is 0; it must be above 0", {"batch_size": "--batch-size"})
        '--batch-size is 0; it must be above 0'
    """
    return re.sub(r"`(\w+)`", lambda name: flags.get(name[1], name[0]), message)
