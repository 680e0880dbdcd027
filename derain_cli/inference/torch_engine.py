"""The reference engine: torch, on every device that it knows."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from derain_cli.errors import UsageError, first_line
from derain_cli.inference.devices import choose_device, choose_precision
from derain_cli.inference.engine import Array, Engine
from derain_cli.inference.folding import folded_network
from derain_cli.inference.live_bytes import measure_bytes_per_pixel
from derain_cli.models import HasContext, ModelEntry

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine(Engine):
    """A folded copy of a network on its device, channels last.

    On a CUDA card a tile is computed while the next one is read and sent to the card, and the one
    before comes back: copies have streams of their own, from and to page-locked memory.
    """

    name = "torch"

    def __init__(
        self,
        model: nn.Module,
        entry: ModelEntry,
        *,
        name: str,
        device: str = "auto",
        precision: str = "fp32",
        compile: bool = False,
        threads: int | None = None,
    ) -> None:
        """The network ready to run; the given one stays as it is.

        Args:
            model: The network.
            entry: Its entry in `MODELS`.
            name: For messages.
            device: As of `Derainer`.
            precision: As of `Derainer`.
            compile: Compile the network at its first image.
            threads: CPU threads of the whole process; None leaves torch's own choice.

        Raises:
            UsageError: An unknown or absent device or precision.
            CheckpointError: Merging its batch norms changes the network's result.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.precision = choose_precision(precision, self.device)
        self._network = folded_network(model, entry, name).requires_grad_(requires_grad=False)
        self._network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._compiled = _compile(self._network, self.device) if compile else None
        self._copies = _Copies(self.device) if self.device.startswith("cuda") else None
        self.ahead = 0 if self._copies is None else 1

    def derain(self, rainy: Array, precision: str, context_mean: Array | None = None) -> Array:
        """As of `Engine`.

        Raises:
            UsageError: `compile` was asked for and does not work here.
        """
        return self.begin(rainy, precision, context_mean)()

    def begin(
        self, rainy: Array, precision: str, context_mean: Array | None = None
    ) -> Callable[[], Array]:
        """As of `Engine`.

        Raises:
            UsageError: As of `derain`.
        """
        means = [] if context_mean is None else [torch.from_numpy(context_mean).to(self.device)]
        if self._copies is None:
            derained = self._run(precision, self._to_tensor(rainy), *means)
            return lambda: _to_array(derained)
        derained = self._run(precision, self._copies.to_card(rainy), *means)
        return self._copies.to_host(derained)

    def _run(self, precision: str, *inputs: Tensor) -> Tensor:
        network: Callable[..., Tensor] = self._network
        if self._compiled is not None and precision == self.precision:
            network = self._compiled
        with torch.inference_mode(), self._at(precision):
            try:
                return network(*inputs)
            except RuntimeError as error:
                # The compiler's own exceptions are in modules of torch that are costly to import.
                if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                    raise UsageError(f"compile does not work here: {first_line(error)}") from error
                raise

    def context(self, rainy: Array) -> Array | None:
        """As of `Engine`."""
        if not isinstance(self._network, HasContext):
            return None
        with torch.inference_mode(), self._at(self.precision):
            context = self._network.context(self._to_tensor(rainy))
        return None if context is None else _to_array(context)

    def bytes_per_pixel(self) -> float:
        """As of `Engine`, counted while a small image runs through the network."""
        return measure_bytes_per_pixel(self._network, self.device)

    def _at(self, precision: str) -> torch.autocast:
        lower = precision != "fp32"
        kind = torch.device(self.device).type
        return torch.autocast(kind, DTYPES[precision] if lower else None, lower)

    def _to_tensor(self, rainy: Array) -> Tensor:
        # An image's pixels lie channels last already: no copy is made of those.
        tensor = torch.from_numpy(rainy).to(self.device)
        return tensor.contiguous(memory_format=torch.channels_last)


class _Copies:
    """Copies between the host and a CUDA card, beside what the card computes."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._there = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._back = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def to_card(self, rainy: Array) -> Tensor:
        """The tile on the card, channels last; what is computed next waits for it."""
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._there):
            # An image's pixels lie channels last already, and stay so.
            tensor = torch.from_numpy(rainy).pin_memory().to(self._device, non_blocking=True)
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        computing.wait_stream(self._there)
        tensor.record_stream(computing)
        return tensor

    def to_host(self, derained: Tensor) -> Callable[[], Array]:
        """Begin to fetch a result; the function waits until it is there."""
        values = derained.float()
        host = torch.empty_like(values, device="cpu", pin_memory=True)
        self._back.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._back):
            host.copy_(values, non_blocking=True)
            values.record_stream(self._back)
            arrived = self._back.record_event()

        def wait() -> Array:
            arrived.synchronize()
            return cast(Array, host.numpy())

        return wait


def _to_array(values: Tensor) -> Array:
    return cast(Array, values.float().cpu().numpy())


def _compile(network: nn.Module, device: str) -> Callable[[Tensor], Tensor]:
    # Freezing lets the CPU's kernels keep the weights in their own layout.
    return torch.compile(network, options={"freezing": True} if device == "cpu" else None)
