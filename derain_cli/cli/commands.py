"""The commands by name, each loaded when it is used: one photo should not wait for all of them."""

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer

# Module of this package, and the function or Typer group in it.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "derain": ("derain", "derain"),
    "eval": ("evaluate", "evaluate"),
    "train": ("train", "train"),
    "adapt": ("adapt", "adapt"),
    "finetune-real": ("finetune_real", "finetune_real"),
    "search": ("search", "search"),
    "plot": ("plot", "plot"),
    "serve": ("serve", "serve"),
    "manual": ("manual", "manual"),
    "merge": ("merge", "merge"),
    "scale-plan": ("scale_plan", "scale_plan"),
    "reproduce": ("reproduce", "reproduce"),
    "compare": ("compare", "compare"),
    "doctor": ("doctor", "doctor"),
    "models": ("models", "app"),
    "datasets": ("datasets", "app"),
}
# Unexpected words get an error of our own: `train` explains how to name its data.
SETTINGS: Mapping[str, dict[str, Any]] = {"train": {"allow_extra_args": True}}


class Commands(Mapping[str, Any]):
    """Typer's commands of the table, in its order."""

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 (Typer's own type is private)
        """The command; its module is imported now."""
        return _built(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a command; nothing is imported."""
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(COMMANDS)

    def __len__(self) -> int:
        """Number of commands."""
        return len(COMMANDS)


@cache
def _built(name: str) -> Any:  # noqa: ANN401
    module, attribute = COMMANDS[name]
    found = getattr(import_module(f"derain_cli.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = typer.main.get_command(found)
        group.name = name
        return group
    # The options that install completion belong to the group of all commands.
    alone = typer.Typer(add_completion=False)
    alone.command(name, context_settings=SETTINGS.get(name))(found)
    return typer.main.get_command(alone)
