"""Ctrl-C that finds every file reported."""

import contextlib
from collections.abc import Iterator


class Interrupter:
    """Ends a running batch from a signal handler, without losing an event on the way.

    A `KeyboardInterrupt` that Python raises wherever the main thread happens to be may hit the
    moment between a file's last byte and its report. `interrupt` raises within the network alone,
    where minutes may pass and nothing is lost but the image that is dropped anyway; elsewhere it
    waits for the event at hand. Called again, it raises at once.
    """

    def __init__(self) -> None:
        self.asked = self._in_network = False

    def interrupt(self, *_signal: object) -> None:
        """The signal handler."""
        again, self.asked = self.asked, True
        if again or self._in_network:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def in_network(self) -> Iterator[None]:
        """Marks the time in which the network runs."""
        self._in_network = True
        try:
            if self.asked:
                raise KeyboardInterrupt
            yield
        finally:
            self._in_network = False
