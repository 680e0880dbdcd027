"""Exported networks: each is read back and gives the original's image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.cli.app import app
from derain_cli.errors import CheckpointError, UsageError
from derain_cli.inference import exporting
from derain_cli.inference.derainer import Derainer
from derain_cli.inference.exporting import FORMATS, export_network
from derain_cli.models import MODELS, build_model
from tests.inference.test_engines import OTHERS, photo, tiny_menet  # noqa: F401 (a fixture)

FORMATS_HERE = [*OTHERS, "torch"]
# ONNX takes longest to write: the short form of the tests writes it once, for the documents.
QUICK = [OTHERS[0], pytest.param("onnx", marks=pytest.mark.slow), "torch"]


@pytest.mark.parametrize("format", QUICK)
def test_a_file_gives_the_original_image_and_says_what_it_is(
    format: str,
    tiny_menet: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = tmp_path / f"small{FORMATS[format].suffix}"
    done = export_network(tiny_menet, format, target)
    assert all(path.is_file() for path in done.paths)
    assert len(list(tmp_path.iterdir())) == len(done.paths)
    assert done.difference <= 1 / 255
    facts = done.facts
    assert (facts.name, facts.architecture, facts.padding_multiple) == ("tiny", "menet", 16)
    assert (facts.tile_overlap, facts.receptive_radius) == (112, 25)  # one residual block
    assert facts.config["width"] == 8
    assert len(facts.sha256) == 64
    if format == "torch":
        assert exporting.graphs.read_torch(target)[1] == facts
        return
    for tile in (None, 64):
        exported = Derainer.load(target, engine="auto", tile=tile)
        assert exported.engine.name == format
        rainy = photo(131, 150)
        wanted = Derainer.load(tiny_menet, tile=tile)(rainy)
        assert np.abs(exported(rainy).astype(int) - wanted).max() <= 1
    with pytest.raises(UsageError, match=f"is for engine '{format}', not for 'torch'"):
        Derainer.load(target)
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="is no graph"):
        Derainer.load(target, engine=format)


def test_what_would_replace_a_file_or_ends_otherwise_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there.pt2").touch()
    for name, words in (("x.onnx", r"must end in \.pt2"), ("there.pt2", "is there already")):
        with pytest.raises(UsageError, match=words):
            export_network("rdmc-real", "torch", tmp_path / name)


def test_a_network_that_changes_once_exported_leaves_no_file(
    tiny_menet: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for changed in (lambda x: x, lambda x: x * np.nan):
        wrong = FORMATS["torch"].__class__(".pt2", FORMATS["torch"].write, lambda _, c=changed: c)
        monkeypatch.setitem(FORMATS, "torch", wrong)
        with pytest.raises(CheckpointError, match="'tiny' is another network once it is exported"):
            export_network(tiny_menet, "torch", tmp_path / "x.pt2")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("format", FORMATS_HERE)
def test_every_network_round_trips_or_says_why_not(name: str, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "new.safetensors", build_model(name), name, {})
    target = tmp_path / f"new{FORMATS[format].suffix}"
    if reason := MODELS[name].not_exportable:
        with pytest.raises(UsageError, match=f"'new' cannot be exported: {reason}"):
            export_network(tmp_path / "new.safetensors", format, target)
        return
    assert export_network(tmp_path / "new.safetensors", format, target).difference <= 1 / 255


def test_the_command_prints_the_files_and_the_difference(
    tiny_menet: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    target = str(tmp_path / "small.pt2")
    words = ["models", "export", str(tiny_menet), "--format", "torch", "-o", target, "--json"]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    assert told["paths"] == [target]
    assert told["padding_multiple"] == 16
    assert told["difference"] <= 1 / 255
