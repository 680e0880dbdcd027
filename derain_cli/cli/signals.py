"""Ctrl-C that is acknowledged at once."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def acknowledging(line: str) -> Iterator[None]:
    """Say a line on stderr the moment the first Ctrl-C comes.

    Python's own handler waits for the call that the main thread is in, and a network may compute a
    tile for seconds. What the C handler writes into a socket reaches another thread at once.
    """
    ours, written = socket.socketpair()
    written.setblocking(False)
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    words = f"\n{line}\n".encode()
    listener = threading.Thread(target=_listen, args=(ours, words), daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()
        listener.join()
        ours.close()


def _listen(signals: socket.socket, words: bytes) -> None:
    while number := signals.recv(1):
        if number[0] == signal.SIGINT:
            with suppress(OSError):  # past Python's buffers, which the main thread may be in
                os.write(2, words)
            return
