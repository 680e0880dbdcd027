"""The network's turn: images of one shape together, each alone where that fails."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from derain_cli.batch.decoding import Decoded
from derain_cli.batch.events import Job, Result
from derain_cli.batch.failures import as_derain_error
from derain_cli.batch.interruption import Interrupter

if TYPE_CHECKING:  # torch is not needed to plan
    from derain_cli.inference.bands import RunFacts
    from derain_cli.inference.derainer import Derainer

# Told after each tile of an image: the job, and the share of its image that is done.
OnProgress = Callable[[Job, float], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Derained:
    """What the network made of an image.

    Attributes:
        rainy: What went in.
        pixels: `(height, width, 3)` of the input's type.
        seconds: Time in the network.
        tile: Side of the tiles, 0 for a whole image.
        precision: Of the arithmetic.
        scales: What the image was shrunken by at most, to find wide rain; 1 for not at all.
        notices: What the engine has to say, such as a result computed again in fp32.
    """

    rainy: Decoded
    pixels: np.ndarray
    seconds: float
    tile: int
    precision: str
    scales: int
    notices: tuple[str, ...] = ()

    def result(self) -> Result:
        """A result that states the image's size, tile and time so far."""
        notices = self.rainy.image.notices + self.notices
        seconds = self.rainy.seconds + self.seconds
        return self.rainy.result(
            tile=self.tile,
            seconds=seconds,
            precision=self.precision,
            scales=self.scales,
            notices=notices,
        )


class Network:
    """Runs groups of decoded images through a derainer and adds up the time that takes."""

    def __init__(
        self,
        derainer: "Derainer | None",
        strength: float,
        interrupter: Interrupter,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._derainer, self._strength, self._interrupter = derainer, strength, interrupter
        self._on_progress = on_progress
        self.seconds = 0.0

    @property
    def derainer(self) -> "Derainer":
        """The network, which only a plan with nothing to do can be without."""
        assert self._derainer is not None, "a plan with something to do needs a derainer"
        return self._derainer

    def derain(self, group: Sequence[Decoded]) -> Iterator[Derained | Result]:
        """The derained images of a group in order, or the failure of one."""
        # Where each image may take other scales, each says which it took.
        alone = len(group) == 1 or self.derainer.scales == "auto"
        together = None if alone else self._derain_together(group)
        if together is not None:
            yield from together
            return
        for rainy in group:
            yield self._derain_one(rainy)

    def _derain_one(self, rainy: Decoded) -> Derained | Result:
        began = time.perf_counter()
        try:
            with self._interrupter.in_network():
                pixels, facts = self.derainer.run(
                    rainy.image.rgb, self._strength, on_progress=self._observer(rainy)
                )
        except Exception as error:  # noqa: BLE001 (one odd image must not end a night's batch)
            return rainy.result(status="failed", error=as_derain_error(rainy.job, error))
        seconds = time.perf_counter() - began
        self.seconds += seconds
        return _derained(rainy, pixels, seconds, facts)

    def _observer(self, rainy: Decoded) -> Callable[[float], None] | None:
        on_progress = self._on_progress
        return None if on_progress is None else lambda share: on_progress(rainy.job, share)

    def _derain_together(self, group: Sequence[Decoded]) -> list[Derained] | None:
        """Images of one shape in one go; None where that fails."""
        began = time.perf_counter()
        try:
            with self._interrupter.in_network():
                images = [rainy.image.rgb for rainy in group]
                derained, facts = self.derainer.run_together(images, self._strength)
        except Exception as error:  # noqa: BLE001 (each alone will say what is wrong)
            log.info("%d images are derained one by one: %s", len(group), error)
            return None
        seconds = time.perf_counter() - began
        self.seconds += seconds
        share = seconds / len(group)
        pairs = zip(group, derained, strict=True)
        return [_derained(rainy, pixels, share, facts) for rainy, pixels in pairs]


def _derained(rainy: Decoded, pixels: np.ndarray, seconds: float, facts: "RunFacts") -> Derained:
    return Derained(
        rainy, pixels, seconds, facts.tile, facts.precision, facts.scales, facts.notices
    )
