"""Name or path -> verified file -> network; and saving.

A checkpoint is a safetensors file that describes itself: its metadata hold the format version, the
network's name and config, and how it was trained. Nothing is ever unpickled.

`--model X` is looked up in this order: a file or a run folder; an entry of `weights.toml`, first
among the bundled files, then in the Hub's cache, then on the Hub at the revision that the entry
pins; otherwise an error that says what there is. `hf:org/repo[@revision][:file]` is any checkpoint
that this program saved: from the cache if it is there, `derain models pull` refreshes it.
"""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from derain_cli.errors import CheckpointError
from derain_cli.models import MODELS, build_model, model_config
from derain_cli.version import __version__
from derain_cli.whole_files import write_whole

FORMAT = "1"
HARMLESS = 4_000_000  # parameters that any machine has room for


def read_metadata(path: Path) -> dict[str, str]:
    """What a checkpoint says of itself, checked to be one of ours.

    Raises:
        CheckpointError: Not a safetensors file, not made by this program, or of a newer format.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_not_safetensors(path, error)) from error
    if metadata.get("model") not in MODELS:
        raise CheckpointError(f"{str(path)!r} was not saved by this program: it names no network")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{str(path)!r} has format {metadata.get('format')!r}, this version reads {FORMAT!r}"
        )
    return metadata


def _not_safetensors(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        return f"{str(path)!r} is only a Git LFS pointer: run `git lfs pull` where it lies"
    return (
        f"{str(path)!r} is not a safetensors checkpoint ({error}); pickled files of strangers are "
        "never loaded"
    )


def build_described(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    """The network that a checkpoint describes, unless it is larger than the checkpoint."""
    try:
        config = json.loads(metadata["model_config"])
        with _at_most(max(2 * path.stat().st_size, HARMLESS)):
            return build_model(metadata["model"], config)
    except Exception as error:  # whatever a foreign config makes a network's constructor raise
        raise CheckpointError(f"{str(path)!r} describes no network: {error}") from error


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Refuse to build a network of more parameters, before any of their memory is touched.

    A stranger's file names the widths of its network; those of a hostile one would take all memory.

    Raises:
        MemoryError: Within the block, when more parameters are made.
    """
    thread, left = threading.get_ident(), count

    def subtract(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        if parameter is not None and threading.get_ident() == thread:
            left -= parameter.numel()
            if left < 0:
                raise MemoryError("its config is of a far larger one than it holds")

    handle = register_module_parameter_registration_hook(subtract)
    try:
        yield
    finally:
        handle.remove()


def load_tensors(model: nn.Module, path: Path) -> None:
    """Fill in the tensors; half precision, in which weights may be stored, becomes float32."""
    with safe_open(str(path), framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"{str(path)!r} does not fit its own config: {reason}") from error


def save_checkpoint(
    path: str | os.PathLike[str], model: nn.Module, architecture: str, about: Mapping[str, str]
) -> None:
    """Write a network's weights, whole or not at all.

    Args:
        path: File to write; an old one is replaced at once.
        model: Any state, any device.
        architecture: Key of `MODELS` it was built from.
        about: More metadata: recipe, data, scores.

    Raises:
        ResourceError: No space or no permission; an old file stays as it was.
    """
    metadata = dict(about) | {
        "format": FORMAT,
        "model": architecture,
        "model_config": json.dumps(model_config(model)),
        "derain_version": __version__,
    }
    tensors = {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in model.state_dict().items()
    }
    write_whole(Path(path), save(tensors, metadata))
