"""ONNX Runtime as an engine, on the CPU."""

from typing import Any, cast

import numpy as np

from derain_cli.errors import CheckpointError, first_line
from derain_cli.inference.engine import Array, Engine
from derain_cli.inference.facts import KEY, NetworkFacts


class OnnxEngine(Engine):
    """A network that ONNX Runtime runs, in float32."""

    name, device, precision = "onnx", "cpu", "fp32"

    def __init__(self, content: bytes, file: str, threads: int | None = None) -> None:
        """The network of an ONNX file that `derain models export` wrote.

        Args:
            content: Of the file.
            file: Its name, for errors.
            threads: Of the CPU; None: all cores.

        Raises:
            CheckpointError: ONNX Runtime cannot read it, or it is not one of ours.
        """
        import onnxruntime  # noqa: PLC0415 (an extra)

        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; warnings are about its own optimizations
        options.intra_op_num_threads = threads or 0
        try:
            self._session: Any = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # whatever a damaged file makes it raise
            reason = first_line(error, 200)
            raise CheckpointError(f"{file!r} is no graph ONNX Runtime reads: {reason}") from error
        told = self._session.get_modelmeta().custom_metadata_map
        if KEY not in told:
            raise CheckpointError(f"{file!r} was not written by `derain models export`")
        self.facts = NetworkFacts.from_json(told[KEY], file)
        self._partly = onnxruntime.RunOptions()
        self._partly.only_execute_path_to_fetches = True

    def derain(self, rainy: Array, precision: str, context_mean: Array | None = None) -> Array:
        """As of `Engine`; the precision is always fp32."""
        return self._run("derained", rainy, context_mean)

    def context(self, rainy: Array) -> Array | None:
        """As of `Engine`."""
        return self._run("context", rainy) if self.facts.context_channels else None

    def bytes_per_pixel(self) -> float:
        """As of `Engine`, measured when the network was exported."""
        return self.facts.bytes_per_pixel

    def _run(self, output: str, rainy: Array, context_mean: Array | None = None) -> Array:
        results = []
        for image in rainy:
            inputs = {"rainy": np.ascontiguousarray(image[None])}
            if channels := self.facts.context_channels:
                own = np.full((1, channels, 1, 1), np.nan, np.float32)
                mean = own if context_mean is None else context_mean.astype(np.float32)
                inputs["context_mean"] = mean.reshape(own.shape)
            results += self._session.run([output], inputs, self._partly)
        return cast(Array, results[0] if len(results) == 1 else np.concatenate(results))
