"""`derain manual`: a manual page generated from the help of the commands."""

import re
from collections.abc import Iterator
from typing import Any

import typer

ENDING = (
    ".SH EXIT STATUS",
    "0 done or skipped; 1 some images failed; 2 wrong usage; 3 nothing to do;",
    "4 weights or data set not available; 5 out of memory or disk; 130 interrupted.",
)


def manual(context: typer.Context) -> None:
    """Print a manual page of all commands: `derain manual > derain.1 && man ./derain.1`."""
    assert context.parent is not None, "a command has a group"
    typer.echo("\n".join(_page(context.parent.command)))


def _page(group: Any) -> Iterator[str]:  # noqa: ANN401 (Typer's own types are private)
    """Lines of the page, in roff."""
    from derain_cli.version import __version__

    yield f'.TH DERAIN 1 "" "derain {__version__}" "User commands"'
    yield from (".SH NAME", r"derain \- take the rain out of photos")
    yield from (".SH SYNOPSIS", ".B derain", r"[\fICOMMAND\fR] [\fIOPTIONS\fR] [\fIINPUTS\fR]")
    yield from (".SH DESCRIPTION", *_paragraphs(group.help or ""))
    for name, command in _commands(group, "derain"):
        yield from (f'.SH "{name.upper()}"', *_paragraphs(command.help or ""))
        for parameter in command.params:
            yield from _described(parameter)
    yield from ENDING


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Every command with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def _described(parameter: Any) -> Iterator[str]:  # noqa: ANN401
    """An argument or option and its help; none for --help, which every command has."""
    names = [*parameter.opts, *parameter.secondary_opts]
    text = getattr(parameter, "help", None)
    if not text or "--help" in names:
        return
    shown = ", ".join(rf"\fB{_escaped(name)}\fR" for name in names)
    is_bare = getattr(parameter, "is_flag", False) or parameter.param_type_name == "argument"
    value = "" if is_bare else rf" \fI{_escaped(parameter.metavar or 'VALUE')}\fR"
    yield from (".TP", shown + value, _escaped(" ".join(text.split())))


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _escaped(" ".join(part.split())))


def _escaped(text: str) -> str:
    r"""Text escaped for man.

    Example:
        >>> _escaped("--out runs/a")
        '\\-\\-out runs/a'
    """
    plain = text.replace(r"\[", "[").replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^([.'])", r"\\&\1", plain)
