"""Checkpoints of other programs, turned into ours: tensor names mapped, shapes checked.

A `.pth` file is a pickle, which can run anything while it is read. Here it is read with
`weights_only`, which admits tensors and plain containers and refuses the rest.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from derain_cli.checkpoints.files import save_checkpoint
from derain_cli.errors import CheckpointError, UnavailableError, first_line
from derain_cli.models import build_model
from derain_cli.whole_files import sha256_of

# Keys and name prefixes under which training programs save weights.
WRAPPERS = ("state_dict", "params_ema", "params", "model_state_dict", "model", "net", "network")
PREFIXES = re.compile(r"^(?:(?:module|_orig_mod|net|network|model)\.)+")
# A zip file that unpacks to more than this many times its size is a trap.
LARGEST_RATIO = 4
SHOWN = 3

Rename = tuple[str, str]

# By network: (pattern of a whole name in public checkpoints, our name).
ADAPTERS: Mapping[str, Sequence[Rename]] = {
    "prenet": (
        (r"conv0\.0\.(\w+)", r"to_features.\1"),
        (r"conv_i\.0\.(\w+)", r"recurrent.input_gate.\1"),
        (r"conv_f\.0\.(\w+)", r"recurrent.forget_gate.\1"),
        (r"conv_g\.0\.(\w+)", r"recurrent.candidate.\1"),
        (r"conv_o\.0\.(\w+)", r"recurrent.output_gate.\1"),
        *((rf"res_conv{k + 1}\.0\.(\w+)", rf"blocks.{k}.conv_in.\1") for k in range(5)),
        *((rf"res_conv{k + 1}\.2\.(\w+)", rf"blocks.{k}.conv_out.\1") for k in range(5)),
        (r"conv\.0\.(\w+)", r"to_image.\1"),
    ),
}


@dataclass(frozen=True)
class Imported:
    """Result of an import.

    Attributes:
        path: The new checkpoint.
        parameters: How many parameters the network has.
        names: Names in the source file to names in our network, in the source's order.
        ignored: Tensors of the source file that have no counterpart, such as batch counts.
    """

    path: Path
    parameters: int
    names: Mapping[str, str]
    ignored: Sequence[str]


def import_weights(
    source: Path, target: Path, architecture: str, config: Mapping[str, Any] | None = None
) -> Imported:
    """Write another program's checkpoint as one of ours.

    Args:
        source: `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors`, holding a state dict, bare or
            under a usual key such as `state_dict` or `params`.
        target: Checkpoint to write.
        architecture: Key of `MODELS` whose weights these are.
        config: Fields of the network's config that differ from the published ones.

    Raises:
        UnavailableError: No such file.
        CheckpointError: It cannot be read safely, or does not fit the network.
        UsageError: No network of this name.
    """
    model = build_model(architecture, config)
    wanted = model.state_dict()
    tensors = read_foreign_tensors(source)
    names = map_names(list(tensors), set(wanted), architecture)
    ignored = [name for name in tensors if name not in names]
    _require_fit(source, architecture, tensors, names, wanted)
    renamed = {ours: tensors[theirs].to(wanted[ours].dtype) for theirs, ours in names.items()}
    model.load_state_dict(renamed, strict=True)
    about = {"imported_from": source.name, "imported_sha256": sha256_of(source)}
    about["recipe"] = "imported"
    save_checkpoint(target, model, architecture, about)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Imported(target, parameters, names, ignored)


def map_names(theirs: Sequence[str], ours: set[str], architecture: str) -> dict[str, str]:
    """Map another program's tensor names to ours, where possible.

    A name that our network has, with or without a wrapper's prefix, stays; the network's
    `ADAPTERS` translate the others.

    Example:
        >>> map_names(["module.conv_i.0.bias"], {"recurrent.input_gate.bias"}, "prenet")
        {'module.conv_i.0.bias': 'recurrent.input_gate.bias'}
    """
    names: dict[str, str] = {}
    for name in theirs:
        bare = PREFIXES.sub("", name)
        for candidate in (name, bare, _adapted(bare, architecture)):
            if candidate in ours:
                names[name] = candidate
                break
    return names


def _adapted(name: str, architecture: str) -> str:
    for pattern, ours in ADAPTERS.get(architecture, ()):
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    return ""


def _require_fit(
    source: Path,
    architecture: str,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    wanted: Mapping[str, Tensor],
) -> None:
    missing = [name for name in wanted if name not in names.values()]
    if missing:
        example = next((name for name in tensors if name not in names), "")
        hint = f"; {example!r} of the file has no place" if example else ""
        raise CheckpointError(
            f"{str(source)!r} does not hold the weights of {architecture!r}: nothing for "
            f"{_listed(missing)}{hint}"
        )
    for theirs, ours in names.items():
        if tensors[theirs].shape != wanted[ours].shape:
            raise CheckpointError(
                f"{str(source)!r} does not fit {architecture!r}: {theirs!r} is "
                f"{tuple(tensors[theirs].shape)}, {ours!r} is {tuple(wanted[ours].shape)}; name "
                "the network's own options with `model_option`"
            )
    if len(set(names.values())) != len(names):
        raise CheckpointError(f"{str(source)!r} holds tensors twice under different prefixes")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def read_foreign_tensors(source: Path) -> dict[str, Tensor]:
    """Tensors by name of another program's checkpoint.

    Raises:
        UnavailableError: No such file.
        CheckpointError: The file has anything but tensors, is damaged, or unpacks to far more
            than its size.
    """
    if not source.is_file():
        raise UnavailableError(f"no checkpoint {str(source)!r} to import")
    try:
        if source.suffix == ".safetensors":
            return load_file(source)
        _require_honest_size(source)
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # any error of a reader on a damaged or hostile file
        raise CheckpointError(
            f"{str(source)!r} cannot be read as tensors alone, and nothing else in a pickled file "
            f"is ever run ({first_line(error)})"
        ) from error
    tensors = _unwrapped(stored)
    if not tensors:
        raise CheckpointError(f"{str(source)!r} holds no table of tensors")
    return tensors


def _require_honest_size(source: Path) -> None:
    if not zipfile.is_zipfile(source):
        return
    with zipfile.ZipFile(source) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > LARGEST_RATIO * source.stat().st_size:
        raise CheckpointError(
            f"{str(source)!r} unpacks to {unpacked:,} bytes, far more than its size: refused"
        )


def _unwrapped(stored: object) -> dict[str, Tensor]:
    """The table of tensors in a saved object, under any of the usual keys."""
    for _ in range(3):
        if not isinstance(stored, Mapping):
            return {}
        tensors = {str(name): x for name, x in stored.items() if isinstance(x, Tensor)}
        inner = next(
            (stored[key] for key in WRAPPERS if isinstance(stored.get(key), Mapping)), None
        )
        if inner is None:
            return tensors
        stored = inner
    return {}
