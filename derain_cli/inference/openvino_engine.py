"""OpenVINO as an engine: often the fastest way through a network on a CPU."""

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from derain_cli.errors import CheckpointError, UsageError
from derain_cli.inference.engine import Array, Engine
from derain_cli.inference.facts import KEY, NetworkFacts
from derain_cli.inference.openvino_package import import_openvino

HINTS = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoEngine(Engine):
    """A network that OpenVINO compiled for this CPU, and where it has one its context."""

    name, device = "openvino", "cpu"

    def __init__(
        self,
        compiled: Sequence[Any],
        facts: NetworkFacts,
        precision: str,
        in_fp32: Callable[[], Engine],
    ) -> None:
        """The network ready to run.

        Args:
            compiled: The compiled network, and its context's if it has one.
            facts: What it says of itself.
            precision: "fp32" or "bf16".
            in_fp32: Makes the engine that takes over where bf16 gave values that are not finite.
        """
        self.facts, self.precision = facts, precision
        self._compiled, self._in_fp32 = compiled, in_fp32
        self._requests = threading.local()  # a request serves one thread

    def derain(self, rainy: Array, precision: str, context_mean: Array | None = None) -> Array:
        """As of `Engine`."""
        if precision != self.precision:
            return self._plain.derain(rainy, precision, context_mean)
        inputs = {"rainy": rainy}
        if self.facts.context_channels:
            shape = (1, self.facts.context_channels, 1, 1)
            own = np.full(shape, np.nan, np.float32)
            means = own if context_mean is None else context_mean.astype(np.float32)
            inputs["context_mean"] = means.reshape(shape)
        return self._run(0, inputs)

    def context(self, rainy: Array) -> Array | None:
        """As of `Engine`."""
        return self._run(1, {"rainy": rainy}) if self.facts.context_channels else None

    def bytes_per_pixel(self) -> float:
        """As of `Engine`, measured when the network was exported."""
        return self.facts.bytes_per_pixel

    def release(self) -> None:
        """As of `Engine`: a request keeps the tensors of its largest tile."""
        self._requests = threading.local()

    @cached_property
    def _plain(self) -> Engine:
        return self._in_fp32()

    def _run(self, network: int, inputs: dict[str, Array]) -> Array:
        """The one output for each image of a batch, which the graph takes one by one."""
        request = self._request(network)
        results = []
        for image in inputs["rainy"]:
            given = inputs | {"rainy": np.ascontiguousarray(image[None])}
            request.infer(given, share_inputs=True)
            results.append(request.get_output_tensor(0).data.copy())
        return cast(Array, results[0] if len(results) == 1 else np.concatenate(results))

    def _request(self, network: int) -> Any:  # noqa: ANN401 (a class of an extra)
        kept = self._requests.__dict__.setdefault("kept", {})
        if network not in kept:
            kept[network] = self._compiled[network].create_infer_request()
        return kept[network]


def compile_graph(
    model: Any,  # noqa: ANN401 (a class of an extra)
    facts: NetworkFacts,
    precision: str,
    threads: int | None,
) -> list[Any]:
    """The compiled network of an `openvino.Model`, and its context's if it has one.

    Raises:
        UsageError: This CPU does not compute in that precision.
    """
    openvino = import_openvino()
    rainy = model.input("rainy")
    parts = [openvino.Model([model.output("derained")], model.get_parameters())]
    if facts.context_channels:
        parts.append(openvino.Model([model.output("context")], [rainy.get_node()]))
    core, settings = openvino.Core(), _settings(precision, threads)
    compiled = [core.compile_model(part, "CPU", settings) for part in parts]
    taken = compiled[0].get_property("INFERENCE_PRECISION_HINT").to_string()
    if taken not in (HINTS[precision], {"f32": "float32", "bf16": "bfloat16"}[HINTS[precision]]):
        raise UsageError(
            f"precision {precision!r} is not native to this CPU, where OpenVINO computes in fp32: "
            "leave it auto, or take engine torch"
        )
    return compiled


def _settings(precision: str, threads: int | None) -> dict[str, Any]:
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": HINTS[precision]}
    return settings | ({} if threads is None else {"INFERENCE_NUM_THREADS": threads})


def packed(compiled: Sequence[Any]) -> list[bytes]:
    """Compiled networks as bytes for the disk."""
    blobs = [network.export_model() for network in compiled]
    return [blob if isinstance(blob, bytes) else blob.getvalue() for blob in blobs]


def unpacked(blobs: Sequence[bytes], precision: str, threads: int | None) -> list[Any]:
    """The compiled networks of such bytes."""
    core, settings = import_openvino().Core(), _settings(precision, threads)
    return [core.import_model(blob, "CPU", settings) for blob in blobs]


def read_graph(path: Path) -> tuple[Any, NetworkFacts]:
    """The graph and the facts of an exported `.xml`, whose weights lie in the `.bin` beside it.

    Raises:
        CheckpointError: OpenVINO cannot read it, or `derain models export` did not write it.
    """
    try:
        model = import_openvino().Core().read_model(path, path.with_suffix(".bin"))
    except Exception as error:  # whatever a damaged file makes it raise
        reason = (str(error).strip().splitlines() or [""])[-1][:200]
        raise CheckpointError(f"{str(path)!r} is no graph that OpenVINO reads: {reason}") from error
    if not model.has_rt_info(KEY):
        raise CheckpointError(f"{str(path)!r} was not written by `derain models export`")
    return model, NetworkFacts.from_json(model.get_rt_info(KEY).astype(str), str(path))
