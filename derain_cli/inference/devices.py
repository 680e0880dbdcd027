"""Devices and precisions: which are present, and which one a name means."""

import re
import sys
from functools import cache
from pathlib import Path

from derain_cli.errors import UsageError

PRECISIONS = ("fp32", "bf16", "fp16")
# Instructions that multiply bfloat16 as /proc/cpuinfo lists them: x86 with AVX-512 or AMX, Arm.
# Elsewhere it is emulated, and slower than float32.
NATIVE_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
FLAGS = re.compile(r"^(?:flags|Features)\s*:(.*)$", re.MULTILINE)


def choose_device(name: str) -> str:
    """Device as torch spells it; "auto" takes a CUDA card, else an Apple GPU, else the CPU.

    Raises:
        UsageError: No such name, or the device is absent. A named device is never replaced by
            another one.
    """
    if name == "cpu" or (name == "auto" and not may_have_a_card()):
        return "cpu"
    present = _present_devices()
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if kind in present)
    if name in present:
        return name
    raise UsageError(f"device {name!r} is not here. There is: auto, {', '.join(present)}")


def may_have_a_card(system: str = sys.platform, root: Path = Path("/")) -> bool:
    """False where there is no GPU for sure; told without torch, which takes a second to load.

    Linux shows a card that a CUDA or ROCm program can use as a device file (WSL as /dev/dxg).
    """
    if system != "linux":
        return True
    files = ("dev/nvidiactl", "dev/nvidia0", "dev/kfd", "dev/dxg", "dev/nvhost-gpu", "dev/nvmap")
    return any((root / file).exists() for file in files)


def _present_devices() -> list[str]:
    import torch  # noqa: PLC0415 (heavy, and of no use where another engine runs on the CPU)

    present = ["cpu"]
    if torch.cuda.is_available():
        present += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        present.append("mps")
    return present


def choose_precision(name: str, device: str) -> str:
    """Precision by name; "auto" takes bf16 where the device multiplies it natively, else fp32.

    Raises:
        UsageError: No such name.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise UsageError(f"unknown precision {name!r}. Known: auto, {', '.join(PRECISIONS)}")
    if device.startswith("cuda"):
        import torch  # noqa: PLC0415 (as above)

        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and cpu_multiplies_bf16()
    return "bf16" if native else "fp32"


def cpu_multiplies_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has instructions for bfloat16; False where it cannot be read."""
    return not NATIVE_BF16.isdisjoint(cpu_flags(cpuinfo))


@cache
def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Names of this processor's instruction sets as Linux lists them; empty where it does not."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    return frozenset(name for line in FLAGS.findall(text) for name in line.split())
