"""Networks as files for other programs, each checked after it was written."""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram

from derain_cli.checkpoints.resolving import load_model
from derain_cli.errors import CheckpointError, ResourceError, UsageError
from derain_cli.inference import graphs
from derain_cli.inference.engine import Array
from derain_cli.inference.engines import MADE_OF_ONNX, load_engine, require_installed
from derain_cli.inference.facts import NetworkFacts
from derain_cli.inference.openvino_package import import_openvino
from derain_cli.inference.pixels import pad_to_multiple
from derain_cli.models import entry_of
from derain_cli.whole_files import sha256_of, write_whole

CHECKED_SIZES = (37, 53), (70, 43)  # heights and widths, odd ones among them
# A level of 8 bits: what float32 rounding of another program may change at most.
MOST_DIFFERENCE = 1 / 255

Network = Callable[[Array], Array]


@dataclass(frozen=True)
class Format:
    """A file format of networks.

    Attributes:
        suffix: Of the file's name.
        also: Suffix of a second file with the weights, "" for none.
        extra: What installs the packages it takes, "" for none.
        packages: Those.
        write: Writes the file (and the second one).
        read: The network of a written file.
    """

    suffix: str
    write: Callable[[ExportedProgram, NetworkFacts, Path], None]
    read: Callable[[Path], Network]
    extra: str = ""
    packages: tuple[str, ...] = ()
    also: str = ""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        paths: The file, and the one with its weights where they lie apart.
        facts: What the file says of itself.
        difference: Largest difference from the original network, of 1.
    """

    paths: tuple[Path, ...]
    facts: NetworkFacts
    difference: float


def export_network(
    name: str | os.PathLike[str], format: str, output: Path, *, overwrite: bool = False
) -> Exported:
    """Write a network for other programs, for images of any height and width.

    The file holds the network with its batch norms merged and says what it is (`NetworkFacts`).
    It is read back and run on images of odd sides before it gets its name.

    Args:
        name: As of `load_model`.
        format: A key of `FORMATS`.
        output: The file; ends as the format does.
        overwrite: Whether a file that is there is replaced.

    Raises:
        UsageError: Another suffix, a file that is there, a missing package, or a network that
            `torch.export` cannot take.
        CheckpointError: The exported network gives another image than the original.
        ResourceError: The file cannot be written.
        UnavailableError: No such weights.
    """
    kind = FORMATS[format]
    _check_target(output, kind, overwrite)
    if kind.packages:
        require_installed(kind.extra, *kind.packages)
    loaded = load_model(name)
    entry = entry_of(loaded.model)
    sha256 = sha256_of(loaded.path)
    program, facts = graphs.trace(loaded.model, entry, loaded.name, sha256)
    paths = tuple(output.with_suffix(suffix) for suffix in (kind.suffix, kind.also) if suffix)
    with tempfile.TemporaryDirectory(prefix="derain-") as folder:
        draft = Path(folder) / output.name
        try:
            kind.write(program, facts, draft)
        except OSError as error:
            raise ResourceError(f"cannot write {str(draft)!r}: {error.strerror}") from error
        difference = _difference(kind.read(draft), loaded.model, facts)
        for path in reversed(paths):  # the one that is named last, when all is there
            write_whole(path, draft.with_suffix(path.suffix).read_bytes())
    return Exported(paths, facts, difference)


def _check_target(output: Path, kind: Format, overwrite: bool) -> None:
    if output.suffix != kind.suffix:
        raise UsageError(f"output {str(output)!r} must end in {kind.suffix}")
    for suffix in (kind.suffix, kind.also):
        if suffix and output.with_suffix(suffix).exists() and not overwrite:
            path = str(output.with_suffix(suffix))
            raise UsageError(f"{path!r} is there already: name another file, or overwrite it")


def _difference(exported: Network, original: nn.Module, facts: NetworkFacts) -> float:
    """The largest difference from the original network on images of odd sides.

    Raises:
        CheckpointError: It is more than rounding.
    """
    random, largest = np.random.default_rng(0), 0.0
    for height, width in CHECKED_SIZES:
        rainy = random.random((1, 3, height, width), np.float32)
        padded = pad_to_multiple(rainy, facts.padding_multiple)
        with torch.inference_mode():
            wanted = original(torch.from_numpy(rainy)).numpy()
        derained = exported(padded)[..., :height, :width]
        difference = np.abs(derained - wanted).max() / max(1, wanted.max())
        largest = float(np.maximum(largest, difference))  # Python's max would pass over NaN
    if not largest <= MOST_DIFFERENCE:
        raise CheckpointError(
            f"{facts.name!r} is another network once it is exported: its result differs by "
            f"{largest:.3g} (of 1), so nothing was written"
        )
    return largest


def _write_onnx(program: ExportedProgram, facts: NetworkFacts, path: Path) -> None:
    path.write_bytes(graphs.to_onnx(program, facts))


def _write_openvino(program: ExportedProgram, facts: NetworkFacts, path: Path) -> None:
    graph = graphs.to_openvino(program, facts)
    import_openvino().save_model(graph, path, compress_to_fp16=False)


def _write_torch(program: ExportedProgram, facts: NetworkFacts, path: Path) -> None:
    path.write_bytes(graphs.to_torch(program, facts))


def _read_by_engine(path: Path) -> Network:
    engine = load_engine(path, "auto", device="cpu").engine
    return lambda rainy: engine.derain(rainy, "fp32")


def _read_torch(path: Path) -> Network:
    program, facts = graphs.read_torch(path)
    network = program.module()

    def run(rainy: Array) -> Array:
        inputs = [torch.from_numpy(rainy)]
        if facts.context_channels:
            inputs.append(torch.full((1, facts.context_channels, 1, 1), torch.nan))
        with torch.inference_mode():
            derained = network(*inputs)
        result: Array = (derained[0] if facts.context_channels else derained).numpy()
        return result

    return run


FORMATS: Mapping[str, Format] = {
    "onnx": Format(".onnx", _write_onnx, _read_by_engine, "onnx", ("onnxruntime", *MADE_OF_ONNX)),
    # OpenVINO's own format has the graph in one file and the weights in another.
    "openvino": Format(
        ".xml", _write_openvino, _read_by_engine, "openvino", ("openvino",), also=".bin"
    ),
    "torch": Format(".pt2", _write_torch, _read_torch),
}
