"""What a run is doing apart from its steps, for whoever shows it: validating, saving and so on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Phase:
    """A part of a run, and how far it is; a total of 0 where there is nothing to count."""

    name: str
    done: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.done} of {self.total}" if self.total else self.name


Listener = Callable[[Phase], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call the listener with every phase until the context ends."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def say(name: str, done: int = 0, total: int = 0) -> None:
    """Tell the listeners what is being done now."""
    for listener in _listeners:
        listener(Phase(name, done, total))


def each(name: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items one by one; before each the listeners hear which of how many it is.

    Example:
        >>> with listening(lambda phase: print(phase)):
        ...     list(each("validating", "ab", 2))
        validating 1 of 2
        validating 2 of 2
        ['a', 'b']
    """
    for number, item in enumerate(items, 1):
        say(name, number, total)
        yield item
