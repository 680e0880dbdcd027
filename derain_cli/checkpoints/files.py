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
from collections import Counter
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
from torch.overrides import TorchFunctionMode

from derain_cli.errors import CheckpointError, first_line
from derain_cli.models import MODELS, build_model, find_model, model_config
from derain_cli.version import __version__
from derain_cli.whole_files import write_whole

FORMAT = "1"
HARMLESS = 4_000_000  # numbers in buffers that any machine has room for
MODULES_PER_TENSOR = 4  # most modules hold tensors, or stand beside one that does
BUILD_SECONDS = 0.4  # of this thread's own work, for a network far larger than the published one
ORDINARY_SECONDS = 10.0  # for any other: it needs 0.15, on a machine whose host is busy far more
BYTES_A_SECOND = 1e9  # a large file may take longer, as does reading it
MOST_METADATA = 1 << 21  # bytes; ours are 150 kilobytes at most
MOST_CONFIG = 1 << 16  # letters
LARGEST_NUMBER = 1_000_000  # of a config; loops and powers of larger ones take long by themselves


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
    memory first. Its parameters mean nothing until `load_tensors` has filled them in: drawing
    random ones would take most of the time.

    Raises:
        CheckpointError: The metadata describe no network, or one far larger than the file.
    """
    try:
        name, config = metadata["model"], _config_of(metadata)
        ordinary = _is_ordinary(config, find_model(name).config())
        limits = _Limits(path, ORDINARY_SECONDS if ordinary else BUILD_SECONDS)
        if not ordinary:
            with limits.held(), _WithoutDrawing(), torch.device("meta"):
                build_model(name, config)
        with limits.held(), _WithoutDrawing():
            return build_model(name, config)
    except Exception as error:  # whatever a foreign config makes a network's constructor raise
        raise CheckpointError(f"{str(path)!r} describes no network: {first_line(error)}") from error


def _config_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The network's config.

    Raises:
        ValueError: It is no JSON object, or too large to be a config.
    """
    text = metadata["model_config"]
    if len(text) > MOST_CONFIG:
        raise ValueError(f"its config has {len(text):,} letters, far more than a network needs")
    config = json.loads(text)
    if not isinstance(config, dict):
        raise ValueError("its config is no JSON object")
    if any(not _largest(value) <= LARGEST_NUMBER for value in config.values()):
        raise ValueError(f"its config holds a number above {LARGEST_NUMBER:,}")
    return config


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


class _Limits:
    """Refuses to build a network that cannot be that of a file.

    Each parameter must be one of the file's, by its own name and its shape: that alone ends nearly
    all that is too large at its first layer. The clock is that of this thread's own work, so that a
    busy machine builds what an idle one does.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            self._parameters = Counter(
                (name.rpartition(".")[2], tuple(file.get_slice(name).get_shape())) for name in names
            )
        size = path.stat().st_size
        self._most_buffered = size // 2 + HARMLESS  # half precision: two bytes a number
        self._most_modules = MODULES_PER_TENSOR * len(names) + 200
        self._seconds = seconds + size / BYTES_A_SECOND
        self._thread, self._end = threading.get_ident(), time.thread_time() + self._seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        """Count what is built in the block.

        Raises:
            MemoryError: Within the block, at a parameter that the file does not hold, or at more
                buffers or modules than fit.
            TimeoutError: Within the block, when the time of all blocks together is over.
        """
        left = Counter(modules=self._most_modules, buffered=self._most_buffered)
        unbuilt = self._parameters.copy()

        def take(left: Counter[Any], kind: Any, count: int) -> bool:  # noqa: ANN401 (any key)
            if threading.get_ident() != self._thread:
                return True
            if time.thread_time() > self._end:
                raise TimeoutError(f"it takes more than {self._seconds:.1f} s to build")
            left[kind] -= count
            return left[kind] >= 0

        def take_parameter(_of: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
            if tensor is not None and not take(unbuilt, (name, tuple(tensor.shape)), 1):
                shape = "x".join(map(str, tensor.shape))
                raise MemoryError(f"its config does not fit its tensors: no {name} of {shape} left")

        def take_buffer(_of: nn.Module, _name: str, tensor: torch.Tensor | None) -> None:
            if tensor is not None and not take(left, "buffered", tensor.numel()):
                raise MemoryError("its config is of a far larger one than it holds")

        def take_module(_of: nn.Module, _name: str, _child: nn.Module | None) -> None:
            if not take(left, "modules", 1):
                raise MemoryError("its config is of a far larger one than it holds")

        handles = [
            register_module_parameter_registration_hook(take_parameter),
            register_module_buffer_registration_hook(take_buffer),
            register_module_module_registration_hook(take_module),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _WithoutDrawing(TorchFunctionMode):
    """Zeros, or no values at all, in place of random numbers: a checkpoint holds the true ones."""

    def __torch_function__(
        self,
        function: Any,  # noqa: ANN401 (torch's own signature)
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """The result of a function of torch; of those that draw, something cheaper."""
        given = kwargs or {}
        if function in _DRAWING:
            tensor = args[0] if args else given["tensor"]
            with torch.no_grad():
                return tensor.zero_()  # some initialisers draw until they like the numbers
        if function is nn.functional.normalize:
            return args[0]
        if function is torch.randn:
            function = torch.empty
        return function(*args, **given)


_DRAWING = frozenset(
    {torch.Tensor.uniform_, torch.Tensor.normal_}
    | {getattr(nn.init, name) for name in dir(nn.init) if name.endswith("_") and name[0] != "_"}
)


@contextmanager
def limited_forward(seconds: float) -> Iterator[None]:
    """Refuse a forward pass that takes too long, as that of a network with endless repetitions.

    Raises:
        TimeoutError: Within the block, when its time is over.
    """
    thread, end = threading.get_ident(), time.thread_time() + seconds

    def look(_module: nn.Module, _inputs: Any) -> None:  # noqa: ANN401 (torch's own signature)
        if threading.get_ident() == thread and time.thread_time() > end:
            raise TimeoutError

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
