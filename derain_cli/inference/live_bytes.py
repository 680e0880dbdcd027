"""How much memory a network's tensors take, by counting them while it runs once."""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def measure_bytes_per_pixel(network: nn.Module, device: str) -> float:
    """Bytes of float32 tensors that a network holds at once, per pixel of the image."""
    side = 64
    rainy = torch.zeros(1, 3, side, side, device=device)
    with torch.inference_mode(), LiveBytes() as live:
        network(rainy)
    return float(max(live.peak / side**2, 3 * 4))


class LiveBytes(TorchFunctionMode):
    """A context whose `peak` is the most bytes that new tensors held at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._live: dict[int, int] = {}

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run one operation and count the memory of what it returns."""
        result = function(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key not in self._live:
            self._live[key] = storage.nbytes()
            weakref.finalize(storage, self._live.pop, key, None)
            self.peak = max(self.peak, sum(self._live.values()))
