"""The network that the batches of these tests run."""

from pathlib import Path

import pytest

from derain_cli.inference.derainer import Derainer


@pytest.fixture(scope="package")
def derainer(tiny_checkpoint: Path) -> Derainer:
    return Derainer.load(str(tiny_checkpoint), device="cpu", threads=1)
