"""A stranger's checkpoint cannot take all memory or hours, whichever command looks at it."""

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from typer.testing import CliRunner

from derain_cli.checkpoints import files
from derain_cli.checkpoints.catalogue import read_entries
from derain_cli.checkpoints.files import build_described, read_metadata, save_checkpoint
from derain_cli.checkpoints.resolving import load_model
from derain_cli.cli.app import app
from derain_cli.errors import CheckpointError, DerainError
from derain_cli.models import MODELS, build_model
from derain_cli.release.cards import network_facts


def header_of(content: bytes) -> tuple[dict[str, object], bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_config(checkpoint: Path, target: Path, model: str, config: object) -> Path:
    """The checkpoint with other metadata."""
    header, tensors = header_of(checkpoint.read_bytes())
    told = config if isinstance(config, str) else json.dumps(config)
    header["__metadata__"] |= {"model": model, "model_config": told}
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    return target


@contextmanager
def layers_counted() -> Iterator[list[str]]:
    """The kinds of the layers that are built in the block.

    Counted, not timed: a slow machine builds as many as a fast one.
    """
    built: list[str] = []

    def count(owner: nn.Module, _name: str, _parameter: nn.Parameter | None) -> None:
        built.append(type(owner).__name__)

    handle = register_module_parameter_registration_hook(count)
    try:
        yield built
    finally:
        handle.remove()


FEW_LAYERS = 10
HOSTILE = {
    "wide": ("resnet", {"channels": 6000, "blocks": 2}),
    "deep": ("resnet", {"channels": 1, "blocks": 10_000_000}),
    "wide and deep": ("swinir", {"channels": 60_000, "depths": [99_999] * 4}),
    "large buffer": ("moss", {"items": 2_000_000_000}),
    "large window": ("swinir", {"window": 65_536}),
    "negative": ("resnet", {"channels": -4}),
    "of another kind": ("unet", {"channels": {"a": []}}),
    "no object": ("rdmc", "[1, 2]"),
    "nested": ("rdmc", "[" * 50_000),
    "a number of 4000 digits": ("resnet", '{"channels": ' + "9" * 4000 + "}"),
    "not a number": ("resnet", '{"channels": NaN}'),
    "infinite": ("resnet", '{"channels": Infinity}'),
    "long": ("rdmc", '{"' + "x" * 70_000 + '": 1}'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_metadata_end_in_one_line_before_much_is_built(
    name: str, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    path = with_config(tiny_checkpoint, tmp_path / "x.safetensors", *HOSTILE[name])
    with layers_counted() as layers, pytest.raises(CheckpointError) as caught:
        build_described(path, read_metadata(path))
    assert len(layers) <= FEW_LAYERS
    assert "describes no network" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    result = CliRunner().invoke(app, ["models", "info", str(path)])
    assert result.exit_code == 4
    assert result.output.startswith("error: ")


def of_many_tensors(path: Path, number: int) -> Path:
    """A checkpoint whose tensors, of one number each, would explain a network of many modules."""
    header: dict[str, object] = {
        f"t{at}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * at, 4 * at + 4]}
        for at in range(number)
    }
    header["__metadata__"] = {"format": "1", "model": "rdmc", "model_config": "{}"}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4 * number))
    return path


@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("resnet", {"channels": 1, "blocks": 18_000}),
        ("hcn", {"mining_levels": 1_000_000}),
        ("swinir", {"depths": [24] * 16}),
    ],
)
def test_a_network_of_other_tensors_ends_at_its_first_layer(
    model: str, config: object, tmp_path: Path
) -> None:
    many = of_many_tensors(tmp_path / "many.safetensors", 18_000)
    path = with_config(many, tmp_path / "x.safetensors", model, config)
    with (
        layers_counted() as layers,
        pytest.raises(CheckpointError, match=r"does not fit its tensors: no weight of"),
    ):
        build_described(path, read_metadata(path))
    assert len(layers) <= FEW_LAYERS


def test_the_clock_stops_a_network_far_larger_than_the_published_one(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = {"channels": 1, "blocks": 100_000}
    hostile = with_config(tiny_checkpoint, tmp_path / "x.safetensors", "resnet", deep)
    monkeypatch.setattr(files, "BUILD_SECONDS", -1.0)
    with pytest.raises(CheckpointError, match="takes more than"):
        build_described(hostile, read_metadata(hostile))
    # A busy host may take its time with any other.
    assert build_described(tiny_checkpoint, read_metadata(tiny_checkpoint))


def test_endless_repetitions_of_a_foreign_network_are_not_counted(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "prenet.safetensors", build_model("prenet"), "prenet", {})
    endless = {"stages": 1_000_000}
    path = with_config(
        tmp_path / "prenet.safetensors", tmp_path / "x.safetensors", "prenet", endless
    )
    # A million stages would take hours: that this ends is the test.
    facts = network_facts("prenet", built=build_described(path, read_metadata(path)))
    assert facts["multiply_adds_256"] is None


def test_a_network_built_with_care_is_the_one_that_was_saved(tmp_path: Path) -> None:
    saved = build_model("swinir", {"channels": 12, "depths": [1, 1]})
    save_checkpoint(tmp_path / "x.safetensors", saved, "swinir", {})
    loaded = load_model(tmp_path / "x.safetensors").model
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded(image), saved.eval()(image))


def test_every_published_network_passes_the_guard(tmp_path: Path) -> None:
    for name in MODELS:
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, build_model(name), name, {})
        build_described(path, read_metadata(path))


def test_endless_metadata_are_not_parsed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    header, tensors = header_of(tiny_checkpoint.read_bytes())
    header["__metadata__"]["about"] = "x" * (1 << 25)
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + tensors)
    with pytest.raises(CheckpointError, match="bytes of metadata, far more than a network needs"):
        read_metadata(path)


ENTRY = '[x]\nmodel = "rdmc"\nfile = "x.safetensors"\nsha256 = "0"\n'


@pytest.mark.parametrize(
    "text",
    [
        "x = 1",
        "[x]\nmodel = 1\nfile = 'a'\nsha256 = 'b'",
        ENTRY.replace("x.safetensors", "../../etc/passwd"),
        ENTRY + "default = 'yes'\n",
        ENTRY + "revision = 7\n",
        ENTRY + "revision = 'main'\n",
        "[x]\n",
        "[[x]]\n",
        "\x00",
        "[x",
        "x = " + "[" * 5000,
    ],
)
def test_any_weights_toml_ends_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "weights.toml").write_text(text)
    with pytest.raises(DerainError) as caught:
        read_entries(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_weights_toml_that_is_no_text_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "weights.toml").write_bytes(bytes(range(256)))
    with pytest.raises(CheckpointError, match="is not TOML"):
        read_entries(tmp_path)
