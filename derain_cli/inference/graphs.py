"""A network's graph for other programs: traced by `torch.export`, for any height and width.

Inputs are `rainy`, `(1, 3, height, width)` in 0..1, sides multiples of the padding multiple, and
for networks that average something over the whole image `context_mean`, `(1, channels, 1, 1)`: the
mean where `rainy` is a tile, NaN where it is the image itself. Outputs are `derained`, not clipped,
and for such networks `context`, what is averaged.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from derain_cli.errors import UsageError
from derain_cli.inference.facts import KEY, NetworkFacts
from derain_cli.inference.folding import folded_network
from derain_cli.inference.live_bytes import measure_bytes_per_pixel
from derain_cli.inference.openvino_package import import_converter
from derain_cli.models import HasContext, ModelEntry, architecture_of, model_config
from derain_cli.version import __version__

LONGEST_TILE = 1 << 16  # pixels; beyond it `torch.export` need not prove anything


class _WithContext(nn.Module):
    """A network with a context, whose mean is an input and which is an output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, rainy: Tensor, context_mean: Tensor) -> tuple[Tensor, Tensor]:
        context: Tensor = self.network.context(rainy)  # type: ignore[operator]
        own = context.mean(dim=(2, 3), keepdim=True)
        mean = torch.where(torch.isnan(context_mean), own, context_mean)
        return self.network(rainy, mean), context


def trace(
    model: nn.Module, entry: ModelEntry, name: str, sha256: str = ""
) -> tuple[ExportedProgram, NetworkFacts]:
    """The graph of a network, batch norms merged, and what its file shall say.

    Args:
        model: The network; it stays as it is.
        entry: Its entry in `MODELS`.
        name: Of the weights.
        sha256: Of the checkpoint file.

    Raises:
        UsageError: `torch.export` cannot take this network.
    """
    if entry.not_exportable:
        raise UsageError(f"network {name!r} cannot be exported: {entry.not_exportable}")
    network = folded_network(model, entry, name).requires_grad_(requires_grad=False).cpu()
    multiple = entry.padding_multiple
    example = torch.rand(1, 3, 2 * max(multiple, 16), 3 * max(multiple, 16))
    channels = _context_channels(network, example)
    facts = NetworkFacts(
        name=name,
        architecture=architecture_of(model),
        config=model_config(model),
        padding_multiple=multiple,
        tile_overlap=entry.tile_overlap,
        receptive_radius=entry.receptive_radius,
        not_tile_exact=entry.not_tile_exact,
        context_channels=channels,
        bytes_per_pixel=measure_bytes_per_pixel(network, "cpu"),
        sha256=sha256,
        derain_version=__version__,
    )
    inputs: tuple[Tensor, ...] = (example,)
    if channels:
        network = _WithContext(network)
        inputs += (torch.full((1, channels, 1, 1), torch.nan),)
    shapes: tuple[Any, ...] = ({2: _sides("height", multiple), 3: _sides("width", multiple)},)
    shapes += (None,) * (len(inputs) - 1)
    with quiet():
        program = torch.export.export(network, inputs, dynamic_shapes=shapes, strict=False)
    return program, facts


def _context_channels(network: nn.Module, example: Tensor) -> int:
    if not isinstance(network, HasContext):
        return 0
    with torch.inference_mode():
        context = network.context(example)
    return 0 if context is None else context.shape[1]


def _sides(name: str, multiple: int) -> Any:  # noqa: ANN401 (torch's own type of a derived size)
    steps = Dim(name, min=2, max=LONGEST_TILE // multiple)
    return steps if multiple == 1 else multiple * steps


def to_onnx(program: ExportedProgram, facts: NetworkFacts) -> bytes:
    """An ONNX file, the facts in its metadata."""
    names = _names(facts)
    with quiet():
        exported = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=names[0], output_names=names[1]
        )
    proto = cast(Any, exported).model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = KEY, facts.to_json()
    content: bytes = proto.SerializeToString()
    return content


def to_openvino(program: ExportedProgram, facts: NetworkFacts) -> Any:  # noqa: ANN401 (openvino.Model)
    """OpenVINO's graph, the facts in its run-time information."""
    converter = import_converter()
    with quiet():
        model = converter.convert_model(program)
    shapes = {0: [1, 3, -1, -1]}
    if facts.context_channels:
        shapes[1] = [1, facts.context_channels, 1, 1]
    model.reshape(shapes)
    inputs, outputs = _names(facts)
    for port, name in zip([*model.inputs, *model.outputs], [*inputs, *outputs], strict=True):
        port.get_tensor().set_names({name})
    model.set_rt_info(facts.to_json(), KEY)
    return model


def to_torch(program: ExportedProgram, facts: NetworkFacts) -> bytes:
    """A `.pt2` archive for `torch.export.load`, the facts in an extra file of it."""
    buffer = BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={f"{KEY}.json": facts.to_json()})
    return buffer.getvalue()


def read_torch(path: Path) -> tuple[ExportedProgram, NetworkFacts]:
    """The graph of such an archive, and what it says of itself.

    Raises:
        CheckpointError: It says nothing, or nothing that is possible.
    """
    extra = {f"{KEY}.json": ""}
    with quiet():
        program = torch.export.load(path, extra_files=extra)
    return program, NetworkFacts.from_json(extra[f"{KEY}.json"], str(path))


def _names(facts: NetworkFacts) -> tuple[list[str], list[str]]:
    if facts.context_channels:
        return ["rainy", "context_mean"], ["derained", "context"]
    return ["rainy"], ["derained"]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings of the exporters' own insides from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
