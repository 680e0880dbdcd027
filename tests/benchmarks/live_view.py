"""How long a command's live view stands still: runs it on a terminal and times what it writes.

    python tests/benchmarks/live_view.py train --dataset rain100l_train --steps 40 --out RUN

Prints the longest stretches without a sign of life, each with the last text before it, and ends
with 1 where one is longer than three seconds.
"""

import os
import pty
import re
import subprocess
import sys
import time

LONGEST = 3.0
SHOWN = 5
CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


def watch(arguments: list[str]) -> tuple[int, list[tuple[float, str]]]:
    """(exit code, stretches in seconds with the last text before each) of a command."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "derain_cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    stretches, last, text = [], time.monotonic(), b"(start)"
    while True:
        try:
            written = os.read(ours, 1 << 16)
        except OSError:  # the terminal's other side is closed
            written = b""
        now = time.monotonic()
        stretches.append((now - last, _last_words(text)))
        if not written:
            break
        last, text = now, written
    return process.wait(), stretches


def _last_words(text: bytes) -> str:
    return " ".join(CONTROL.sub(b" ", text).decode(errors="replace").split())[:100]


def main() -> None:
    """Watch the command in the arguments."""
    code, stretches = watch(sys.argv[1:])
    print(f"exit code {code}, {len(stretches)} signs of life")
    *running, (leaving, _) = stretches
    for seconds, text in sorted(running, reverse=True)[:SHOWN]:
        print(f"{seconds:6.2f} s after: {text}")
    print(f"{leaving:6.2f} s from the last word to the exit")
    sys.exit(max(running)[0] > LONGEST)


if __name__ == "__main__":
    main()
