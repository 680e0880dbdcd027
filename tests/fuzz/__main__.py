"""`python -m tests.fuzz --files 10000 --seconds 600`: the long form, whose figures are printed."""

import argparse
import sys
import time

from tests.fuzz.harness import run


def main() -> int:
    """Exit code 0 where nothing happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="of the first file")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    began = time.monotonic()
    outcome = run(chosen.seed, chosen.files, chosen.seconds, chosen.workers)
    for kind in ("foreign", "hangs", "printed"):
        for line in getattr(outcome, kind):
            print(f"{kind}: {line}")
    print(
        f"{outcome.files} files in {time.monotonic() - began:.0f} s: {outcome.read} read "
        f"({outcome.said} with notices), {outcome.refused} refused; {len(outcome.foreign)} foreign "
        f"exceptions, {len(outcome.hangs)} hangs, {len(outcome.printed)} lines on stderr"
    )
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
