"""Devices and precisions: what is present and what was asked for."""

import torch

from derain_cli.errors import UsageError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Device by name; "auto" takes a CUDA card, else an Apple GPU, else the CPU.

    Raises:
        UsageError: No such name, or the device is absent: what was named is what runs, or nothing.
    """
    present = _present_devices()
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if kind in present))
    if name in present:
        return torch.device(name)
    raise UsageError(f"device {name!r} is not here. There is: auto, {', '.join(present)}")


def _present_devices() -> list[str]:
    present = ["cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    return present
