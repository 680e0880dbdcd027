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
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_forward_pre_hook,
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from derain_cli.errors import CheckpointError
from derain_cli.models import MODELS, build_model, find_model, model_config
from derain_cli.version import __version__
from derain_cli.whole_files import write_whole

FORMAT = "1"
HARMLESS = 4_000_000  # parameters that any machine has room for
MODULES_PER_TENSOR = 4  # most modules hold tensors, or stand beside one that does
BUILD_SECONDS = 2  # of this thread's own work; the largest network takes a tenth of it
MOST_METADATA = 1 << 24  # bytes; ours are some kilobytes


def read_metadata(path: Path) -> dict[str, str]:
    """Metadata of a checkpoint, checked to be one of ours.

    Raises:
        CheckpointError: Not a safetensors file, not made by this program, or of a newer format.
    """
    try:
        with path.open("rb") as file_:
            length = int.from_bytes(file_.read(8), "little")
        if MOST_METADATA < length < path.stat().st_size:
            raise CheckpointError(
                f"{str(path)!r} has {length:,} bytes of metadata, far more than a network needs"
            )
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
        return f"{str(path)!r} is only a Git LFS pointer: run `git lfs pull` in its repository"
    return (
        f"{str(path)!r} is not a safetensors checkpoint ({error}); pickled files of strangers are "
        "never loaded"
    )


def build_described(path: Path, metadata: Mapping[str, str]) -> nn.Module:
    """The network that a checkpoint describes, unless it is larger than the checkpoint.

    A stranger's file names the widths and depths of its network; those of a hostile one would take
    all memory, or hours. Where they are far from the published ones, the network is built without
    memory first.
    """
    try:
        config = json.loads(metadata["model_config"])
        name, size = metadata["model"], path.stat().st_size
        if not _is_ordinary(config, find_model(name).config()):
            with _limits(path, size), torch.device("meta"):
                build_model(name, config)
        with _limits(path, size):
            return build_model(name, config)
    except Exception as error:  # whatever a foreign config makes a network's constructor raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise CheckpointError(f"{str(path)!r} describes no network: {reason}") from error


def _is_ordinary(config: Mapping[str, Any], published: object) -> bool:
    """Whether no number of a config is far larger than the published one.

    Example:
        >>> from derain_cli.models import MODELS
        >>> rdmc = MODELS["rdmc"].config()
        >>> _is_ordinary({"widths": [8, 8]}, rdmc), _is_ordinary({"widths": [8, 9000]}, rdmc)
        (True, False)
    """
    return all(
        _largest(value) <= max(16, 4 * _largest(getattr(published, name, 0)))
        for name, value in config.items()
    )


def _largest(value: Any) -> float:  # noqa: ANN401 (any JSON value)
    """The largest number in a value; a list is as large as it is long."""
    if isinstance(value, list | tuple):
        return max([len(value), *map(_largest, value)])
    return abs(value) if isinstance(value, int | float) else 0


@contextmanager
def _limits(path: Path, size: int) -> Iterator[None]:
    """Refuse to build a network that cannot be that of a file of a size.

    Raises:
        MemoryError: Within the block, when it gets more parameters, buffers or modules than fit.
        TimeoutError: It takes too long.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = len(file.keys())
    left = {"numbers": max(2 * size, HARMLESS), "modules": MODULES_PER_TENSOR * tensors + 200}
    thread, end = threading.get_ident(), time.thread_time() + BUILD_SECONDS

    def take(kind: str, count: int) -> None:
        if threading.get_ident() != thread:
            return
        left[kind] -= count
        if left[kind] < 0:
            raise MemoryError("its config is of a far larger one than it holds")
        if time.thread_time() > end:
            raise TimeoutError(f"it takes more than {BUILD_SECONDS} s to build")

    def take_tensor(_module: nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
        if tensor is not None:
            take("numbers", tensor.numel())

    def take_module(_module: nn.Module, _name: str, _child: nn.Module | None) -> None:
        take("modules", 1)

    handles = [
        register_module_parameter_registration_hook(take_tensor),
        register_module_buffer_registration_hook(take_tensor),
        register_module_module_registration_hook(take_module),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def limited_forward(seconds: float) -> Iterator[None]:
    """Refuse a forward pass that takes too long, as that of a network with endless repetitions.

    Raises:
        CheckpointError: Within the block, when its time is over.
    """
    thread, end = threading.get_ident(), time.thread_time() + seconds

    def look(_module: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 (torch's own signature)
        if threading.get_ident() == thread and time.thread_time() > end:
            raise CheckpointError(f"its network takes more than {seconds:g} s to measure")

    handle = register_module_forward_pre_hook(look)
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
