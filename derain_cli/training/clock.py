"""Times of a session's steps."""

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since a session began, and what its steps did with them.

    Attributes:
        started: When the session began, by the monotonic clock.
        stepping: Seconds of all steps, waits for their batches included. Validation, saves and an
            epoch's pass over real photos are not in it, so that rates tell of training alone.
        waited: Seconds of these in which the network waited for a batch.
        images: Crops trained on.
    """

    started: float = field(default_factory=time.monotonic)
    stepping: float = 0.0
    waited: float = 0.0
    images: int = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self.started

    def count(self, taken: float, waited: float, images: int) -> None:
        """Add a step.

        Args:
            taken: Its seconds, with the wait for its batch.
            waited: The seconds of that wait.
            images: Its crops, over all processes.
        """
        self.stepping += taken
        self.waited += waited
        self.images += images

    def rates(self) -> tuple[float, float]:
        """(images per second, share of the time that was spent waiting for them)."""
        seconds = max(self.stepping, 1e-9)
        return self.images / seconds, self.waited / seconds
