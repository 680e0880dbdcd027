"""How long a command's live view stands still: runs it on a terminal and times what it writes.

    python tests/benchmarks/live_view.py train --dataset rain100l_train --steps 40 --out RUN
    python tests/benchmarks/live_view.py --record eval.cast --stop-after 30 eval --dataset rain100l

Prints the longest stretches without a sign of life, each with the last text before it, and ends
with 1 where one is longer than three seconds. `--record` writes what the terminal showed as an
asciicast (version 2, for `asciinema play FILE`); `--stop-after` sends Ctrl-C after so many seconds.
"""

import argparse
import codecs
import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

LONGEST = 3.0
SHOWN = 5
COLUMNS, LINES = 120, 40
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


@dataclass
class Watched:
    """What a terminal was sent: seconds since the start, and bytes."""

    code: int = 0
    began: float = field(default_factory=time.time)
    sent: list[tuple[float, bytes]] = field(default_factory=list)
    seconds: float = 0.0

    def stretches(self) -> list[tuple[float, str]]:
        """Seconds without anything, each with the last words before; the last until the exit."""
        times = [0.0, *(at for at, _ in self.sent), self.seconds]
        texts = ["(start)", *(_last_words(text) for _, text in self.sent)]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return list(zip(gaps, texts, strict=True))

    def asciicast(self, arguments: list[str]) -> str:
        """The recording; the words that stand for the program are `derain`."""
        command = shlex.join(["derain", *arguments])
        header = {"version": 2, "width": COLUMNS, "height": LINES, "timestamp": int(self.began)}
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        events = [[round(at, 3), "o", decode(text)] for at, text in self.sent]
        lines = [header | {"command": command, "env": {"TERM": "xterm-256color"}}, *events]
        return "".join(json.dumps(line) + "\n" for line in lines)


def watch(arguments: list[str], stop_after: float = 0.0) -> Watched:
    """Run a command on a terminal of its own, to its end.

    Args:
        arguments: Of `derain`.
        stop_after: Seconds after which it gets Ctrl-C; 0 for never.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    watched, start = Watched(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "derain_cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color"},
    )
    os.close(theirs)
    try:
        while True:
            if stop_after and time.monotonic() - start > stop_after:
                process.send_signal(signal.SIGINT)
                stop_after = 0.0
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                written = os.read(ours, 1 << 16)
            except OSError:  # the terminal's other side is closed
                written = b""
            if not written:
                break
            watched.sent.append((time.monotonic() - start, written))
        watched.code = process.wait()
    finally:
        process.kill()
    watched.seconds = time.monotonic() - start
    return watched


def _last_words(text: bytes) -> str:
    return " ".join(CONTROL.sub(b" ", text).decode(errors="replace").split())[:100]


def main() -> None:
    """Watch the command in the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--record", type=Path, metavar="FILE")
    parser.add_argument("--stop-after", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the command ends, too
    watched = watch(options.arguments, options.stop_after)
    if options.record:
        options.record.write_text(watched.asciicast(options.arguments), encoding="utf-8")
    *running, (leaving, _) = watched.stretches()
    print(f"exit code {watched.code}, {len(running)} signs of life in {watched.seconds:.0f} s")
    for seconds, text in sorted(running, reverse=True)[:SHOWN]:
        print(f"{seconds:6.2f} s after: {text}")
    print(f"{leaving:6.2f} s from the last word to the exit")
    sys.exit(max(running)[0] > LONGEST)


if __name__ == "__main__":
    main()
