"""`python -m tests.kill --kills 1000`: the long form, whose figures are printed."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.kill.harness import run


def tiny_checkpoint(folder: Path) -> Path:
    """A real network of a few numbers."""
    import torch

    from derain_cli.checkpoints.files import save_checkpoint
    from derain_cli.models import build_model

    torch.manual_seed(0)
    model = build_model("rdmc", {"widths": [2, 2, 2, 2, 2], "stages": 1}).eval()
    save_checkpoint(folder / "tiny.safetensors", model, "rdmc", {})
    return folder / "tiny.safetensors"


def main() -> int:
    """Exit code 0 where nothing happened that must not."""
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = tiny_checkpoint(Path(folder))
        outcome = run(checkpoint, chosen.kills, chosen.seconds, chosen.seed)
    for kind in ("torn", "changed", "lost", "stuck", "printed"):
        for line in getattr(outcome, kind):
            print(f"{kind}: {line}")
    print(
        f"{outcome.kills} kills and {outcome.finished} finished runs in "
        f"{time.monotonic() - began:.0f} s: {len(outcome.torn)} torn files, "
        f"{len(outcome.changed)} originals changed, {len(outcome.lost)} lost results or litter, "
        f"{len(outcome.stuck)} runs stuck, {len(outcome.printed)} lines on stderr"
    )
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
