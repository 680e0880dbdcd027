"""The command of every bundled checkpoint, run from nothing: `pytest -n 0 -m slow THIS_FILE`.

A card's command is a chain of runs, each from the weights of the one before. Here the first run
takes 200 steps and the others take 3, which shortens their schedules; nothing else is changed.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from derain_cli.checkpoints.catalogue import list_weights
from derain_cli.checkpoints.resolving import load_model

DATA = Path(__file__).parents[3] / "shared" / "data"
FIRST, LATER = 200, 3


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data sets in {DATA}")
@pytest.mark.parametrize("entry", list_weights(), ids=lambda entry: entry.name)
def test_the_command_of_a_card_runs_as_it_stands(
    entry: Any, derain_process: Callable[..., Any], tmp_path: Path
) -> None:
    steps = FIRST
    for command in entry.about["command"].split(" && "):
        program, *words = shlex.split(command)
        assert program == "derain"
        # Capitals stand for run folders and files: here those of this test.
        if words[0] in ("train", "finetune-real"):
            words += ["--steps", str(steps), "--data-root", str(DATA), "--quiet"]
            steps = LATER
        process = derain_process(*words, cwd=tmp_path)
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr.decode()[-2000:]
    (result,) = tmp_path.glob("RUN*")
    assert load_model(result).architecture == entry.model
