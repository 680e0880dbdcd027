"""Checkpoints of other programs: public PReNet names are mapped, hostile files are refused."""

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from derain_cli.checkpoints.importing import import_weights
from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.app import app
from derain_cli.errors import CheckpointError, UnavailableError
from derain_cli.models import build_model
from derain_cli.models.prenet import PReNet

CHANNELS = 32


def published_prenet() -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the public checkpoints, and random numbers."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv0.0": (CHANNELS, 6), "conv.0": (3, CHANNELS)}
    shapes |= {f"conv_{gate}.0": (CHANNELS, 2 * CHANNELS) for gate in "ifgo"}
    shapes |= {
        f"res_conv{block}.{place}": (CHANNELS, CHANNELS)
        for block in range(1, 6)
        for place in (0, 2)
    }
    state = {}
    for name, (outputs, inputs) in shapes.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
        state[f"{name}.weight"] = 0.1 * weight
        state[f"{name}.bias"] = 0.1 * torch.randn(outputs, generator=generator)
    return state


class Restated(nn.Module):
    """The recurrence of the paper on the public names, as plainly as it can be said."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.state = state

    def conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weights = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return nn.functional.conv2d(x, *weights, padding=1)

    def forward(self, rainy: torch.Tensor) -> torch.Tensor:
        x, h = rainy, rainy.new_zeros(len(rainy), CHANNELS, *rainy.shape[2:])
        c = h
        for _ in range(6):
            z = torch.cat([self.conv("conv0.0", torch.cat([rainy, x], 1)).relu(), h], 1)
            i, f, o = (self.conv(f"conv_{gate}.0", z).sigmoid() for gate in "ifo")
            c = f * c + i * self.conv("conv_g.0", z).tanh()
            h = o * c.tanh()
            r = h
            for k in range(1, 6):
                inner = self.conv(f"res_conv{k}.0", r).relu()
                r = (r + self.conv(f"res_conv{k}.2", inner).relu()).relu()
            x = rainy + self.conv("conv.0", r)
        return x


def run(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, ["models", "import", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def public_file(tmp_path: Path) -> Path:
    torch.save(published_prenet(), tmp_path / "net_latest.pth")
    return tmp_path / "net_latest.pth"


@torch.inference_mode()
def test_a_public_prenet_runs_as_its_names_say(public_file):
    imported = import_weights(public_file, public_file.with_suffix(".safetensors"), "prenet")
    assert (imported.parameters, len(imported.names), imported.ignored) == (168_963, 32, [])
    loaded = load_model(imported.path)
    assert loaded.architecture == "prenet"
    rainy = torch.rand(1, 3, 20, 27)
    expected = Restated(published_prenet())(rainy)
    torch.testing.assert_close(loaded.model(rainy), expected, atol=1e-5, rtol=1e-5)
    assert loaded.metadata["imported_from"] == "net_latest.pth"


def test_the_command_shows_the_mapping_and_prints_the_file(public_file):
    result = run(public_file, "--model", "prenet")
    assert result.stdout.strip() == str(public_file.with_suffix(".safetensors"))
    assert "conv_i.0.weight -> recurrent.input_gate.weight" in result.stderr
    assert "prenet: 168,963 parameters" in result.stderr
    assert "exists already" in run(public_file, "--model", "prenet", code=2).stderr
    found = json.loads(run(public_file, "-m", "prenet", "--overwrite", "--json").stdout)
    assert found["names"]["conv.0.bias"] == "to_image.bias"


def test_an_imported_network_is_scored_beside_ours(
    public_file, tiny_checkpoint, tmp_path, make_image
):
    """What a user with the published file does to see its decibels beside ours."""
    run(public_file, "--model", "prenet")
    for side in ("rainy", "clean"):
        make_image(tmp_path / "set" / side / "1.png", (40, 32))
    models = ["-m", str(public_file.with_suffix(".safetensors")), "-m", str(tiny_checkpoint)]
    arguments = ["eval", "--dataset", str(tmp_path / "set"), *models, "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    scores = [line for line in lines if line["event"] == "score"]
    assert [line["model"] for line in scores] == ["(input)", models[1], models[3]]
    assert all(line["images"] == 1 for line in scores)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": {f"module.{name}": x for name, x in state.items()}},
        lambda state: {"epoch": 3, "params": state},
        lambda state: {f"net.{name}": x.half() for name, x in state.items()},
    ],
)
def test_usual_wrappers_and_prefixes_are_seen_through(wrap, tmp_path):
    torch.save(wrap(published_prenet()), tmp_path / "a.pt")
    imported = import_weights(tmp_path / "a.pt", tmp_path / "b.safetensors", "prenet")
    assert len(imported.names) == 32
    assert load_model(imported.path).model.to_image.weight.dtype == torch.float32


def test_our_own_state_dict_comes_in_under_its_own_names(tmp_path):
    torch.manual_seed(0)
    network = build_model("resnet", {"channels": 4, "blocks": 1})
    torch.save(network.state_dict() | {"extra": torch.zeros(1)}, tmp_path / "a.pth")
    config = {"channels": 4, "blocks": 1}
    imported = import_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", "resnet", config)
    assert imported.ignored == ["extra"]
    loaded = load_model(imported.path).model.state_dict()
    assert all(torch.equal(loaded[name], x) for name, x in network.state_dict().items())


def test_what_does_not_fit_is_named(public_file, tmp_path):
    target = tmp_path / "b.safetensors"
    with pytest.raises(CheckpointError, match=r"nothing for 'to_features.weight', .* and 67 more"):
        import_weights(public_file, target, "resnet")
    with pytest.raises(CheckpointError, match=r"is \(32, 6, 3, 3\), .* is \(8, 6, 3, 3\); name"):
        import_weights(public_file, target, "prenet", {"channels": 8})
    with pytest.raises(UnavailableError, match="no checkpoint"):
        import_weights(tmp_path / "gone.pth", target, "prenet")
    assert not target.exists()


class Hostile:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_nothing_in_a_pickled_file_is_ever_run(tmp_path):
    trace = tmp_path / "it ran"
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Hostile(trace)))
    torch.save({"state_dict": Hostile(trace)}, tmp_path / "new.pth")
    for name in ("old.pth", "new.pth"):
        with pytest.raises(CheckpointError, match="nothing else in a pickled file is ever run"):
            import_weights(tmp_path / name, tmp_path / "b.safetensors", "prenet")
    assert not trace.exists()


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1 << 20))
    with pytest.raises(CheckpointError, match="unpacks to 1,048,576 bytes"):
        import_weights(tmp_path / "bomb.pth", tmp_path / "b.safetensors", "prenet")


def test_every_parameter_of_the_published_names_is_mapped():
    assert sum(x.numel() for x in published_prenet().values()) == 168_963
    assert len(published_prenet()) == len(PReNet().state_dict())
