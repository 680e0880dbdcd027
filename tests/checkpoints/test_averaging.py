"""Weights between two trainings of one network."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.app import app
from derain_cli.models import build_model


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        save_checkpoint(path, build_model("menet", {"width": 8}), "menet", {})
    return paths


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["models", "average", *map(str, words)])
    return result.exit_code, result.output


@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_every_tensor_lies_between_its_two(
    two: tuple[Path, Path], tmp_path: Path, share: float
) -> None:
    target = tmp_path / "between.safetensors"
    assert run(*two, "--share", share, "-o", target)[0] == 0
    one, other, between = (load_model(path).model.state_dict() for path in (*two, target))
    for name, tensor in between.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, share * one[name] + (1 - share) * other[name])
        else:
            assert torch.equal(tensor, one[name])


def test_another_network_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    wider, target = tmp_path / "wider.safetensors", tmp_path / "between.safetensors"
    save_checkpoint(wider, build_model("menet", {"width": 4}), "menet", {})
    code, said = run(two[0], wider, "-o", target)
    assert (code, target.exists()) == (2, False)
    assert "are not of the same network" in said


def test_a_file_that_is_there_stays(two: tuple[Path, Path], tmp_path: Path) -> None:
    before = two[1].read_bytes()
    code, said = run(*two, "-o", two[1])
    assert (code, two[1].read_bytes()) == (2, before)
    assert "exists already" in said
    assert run(*two, "-o", tmp_path / "between.pth")[0] == 2
