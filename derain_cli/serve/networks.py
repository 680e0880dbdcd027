"""The networks of a server: loaded when first asked for, the last ones kept."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from derain_cli.checkpoints.catalogue import DEFAULT_WEIGHTS, list_weights
from derain_cli.checkpoints.resolving import locate
from derain_cli.errors import DerainError, UnavailableError, did_you_mean
from derain_cli.inference.derainer import Derainer, DerainerOptions
from derain_cli.inference.pixels import Levels

KEPT = 2  # a page shows two side by side


class StoppedError(DerainError):
    """Nobody waits for this image any more."""


class StoppableDerainer(Derainer):
    """A derainer that gives up between two tiles when nobody waits for the image.

    Attributes:
        is_unwanted: Asked before each tile.
    """

    is_unwanted: Callable[[], bool] = staticmethod(lambda: False)

    def begin_network(
        self, rainy: Levels, precision: str, context_mean: Levels | None = None
    ) -> Callable[[], Levels]:
        """As of `Derainer`.

        Raises:
            StoppedError: Nobody waits for the image.
        """
        if self.is_unwanted():
            raise StoppedError("stopped: nobody waits for this image")
        return super().begin_network(rainy, precision, context_mean)


class Networks:
    """Networks by name. Whoever calls `get` runs the network in the same thread.

    Attributes:
        default: Name of the weights that are taken when a request names none.
    """

    def __init__(self, chosen: str | None, options: DerainerOptions) -> None:
        """The chosen network is loaded at once.

        Args:
            chosen: As of `Derainer.load`; None for the default weights.
            options: How networks run.

        Raises:
            UnavailableError: No such weights.
            CheckpointError: The file is damaged or not one of ours.
            UsageError: A device or precision that is not here.
        """
        self._options = options
        self._kept: OrderedDict[str, StoppableDerainer] = OrderedDict()
        self._speed: dict[str, float] = {}
        self._lock = threading.Lock()
        first = _load(chosen or DEFAULT_WEIGHTS, options)
        self.default = first.name
        self._chosen = chosen or DEFAULT_WEIGHTS
        self._kept[first.name] = first

    def names(self) -> list[str]:
        """Names that a request may give: weights that are here, the server's own first."""
        here = [entry.name for entry in list_weights() if locate(entry)]
        return list(dict.fromkeys([self.default, *here]))

    def check(self, name: str | None) -> str:
        """The name, or the default's; paths and addresses are no names here.

        Raises:
            UnavailableError: No such weights on this server.
        """
        if name is not None and name not in self.names():
            raise UnavailableError(f"unknown model {name!r}. {did_you_mean(name, self.names())}")
        return name or self.default

    def get(self, name: str) -> StoppableDerainer:
        """The network, from memory or from its file."""
        if name not in self._kept:
            source = self._chosen if name == self.default else name
            self._kept[name] = _load(source, self._options)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]

    def learn_speed(self, name: str, seconds: float, megapixels: float) -> None:
        """Note how long an image took, to foretell the next one's time."""
        if megapixels <= 0:
            return
        now = seconds / megapixels
        with self._lock:
            before = self._speed.get(name, now)
            self._speed[name] = 0.5 * before + 0.5 * now

    def expected_seconds(self, name: str, megapixels: float) -> float | None:
        """How long an image will take; None before the first."""
        with self._lock:
            speed = self._speed.get(name, _stated_speed(name))
        return speed * megapixels if speed else None

    def describe(self) -> list[dict[str, Any]]:
        """What a user chooses from: names, sizes, speeds, what each is for and does badly."""
        entries = {entry.name: entry for entry in list_weights()}
        rows = []
        for name in self.names():
            about = entries[name].about if name in entries else {}
            size = entries[name].bundled_path if name in entries else None
            rows.append(
                {
                    "name": name,
                    "default": name == self.default,
                    "summary": about.get(
                        "summary", "the weights that this server was started with"
                    ),
                    "harm": about.get("harm"),
                    "seconds_per_megapixel": self._speed.get(name) or _stated_speed(name) or None,
                    "megabytes": size.stat().st_size / 1e6 if size and size.is_file() else None,
                }
            )
        return rows


def _load(source: str, options: DerainerOptions) -> StoppableDerainer:
    derainer = StoppableDerainer.load(source, **options)
    assert isinstance(derainer, StoppableDerainer), "load makes one of its own class"
    return derainer


def _stated_speed(name: str) -> float:
    """Seconds per megapixel by the card of the weights; 0 where it says nothing."""
    about = next((entry.about for entry in list_weights() if entry.name == name), {})
    return float(about.get("seconds_per_megapixel", 0))
