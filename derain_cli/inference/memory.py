"""Available memory, the budget per image, and malloc settings."""

import ctypes
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MEBIBYTE = 2**20
# What the tensors of a tile may take on a CPU at most, however much is free, and what they may take
# in any case. Between the two it shrinks by nine times the image's own pixels, which are read,
# derained and copied by the codecs: so a command stays near 3 GiB for 24 megapixels and near 2 for
# 100. Larger tiles than these save next to no overlap.
MOST_FOR_A_TILE, LEAST_FOR_A_TILE = 3072 * MEBIBYTE, 640 * MEBIBYTE
SHRINKING = 9
# glibc's mallopt parameters (malloc.h): no block is mapped on its own (older versions refuse a high
# M_MMAP_THRESHOLD, which would say the same), the heap is not trimmed, and grows in large steps.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP_SETTINGS = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 64 * MEBIBYTE))

# Messages of CUDA, MPS, torch's CPU allocator, oneDNN, OpenVINO and ONNX Runtime; with
# "descriptor", oneDNN means other faults.
OUT_OF_MEMORY = re.compile(
    "out of memory|not enough memory|can't allocate memory|bad.alloc|failed to allocate memory"
    "|could not create a (memory|primitive)(?! desc)",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device: torch has one exception type only for CUDA."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None


def memory_budget(device: str, image_bytes: int = 0) -> int:
    """Bytes that the tensors of one tile may take: at most half of what is free.

    Args:
        device: Where the network runs.
        image_bytes: Size of the whole image's pixels, which need memory besides.
    """
    if device != "cpu":
        return _budget_of_a_card(device)
    wanted = max(MOST_FOR_A_TILE - SHRINKING * image_bytes, LEAST_FOR_A_TILE)
    return min(available_memory() // 2, wanted)


def _budget_of_a_card(device: str) -> int:
    import torch  # noqa: PLC0415 (heavy, and of no use where another engine runs on the CPU)

    if device.startswith("cuda"):
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return (torch.cuda.mem_get_info(device)[0] + reusable) // 2
    return torch.mps.recommended_max_memory() // 4


def available_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still allocate: free memory, within this process's limits.

    Args:
        root: Folder that holds `proc` and `sys`. Without `proc`, 4 GiB are assumed.
    """
    free = _number(root / "proc/meminfo", "MemAvailable:")
    room = [4096 * MEBIBYTE if free is None else 1024 * free, *_cgroup_headroom(root)]
    limit = _address_space_limit(root)
    if limit is not None:
        room.append(limit - 1024 * (_number(root / "proc/self/status", "VmSize:") or 0))
    return max(0, min(room))


def _address_space_limit(root: Path = Path("/")) -> int | None:
    """Bytes that `ulimit -v` allows; None when unlimited."""
    return _number(root / "proc/self/limits", "Max address space")


def _cgroup_headroom(root: Path) -> Iterator[int]:
    """Bytes left under each memory limit that holds for this process, cgroups version 2 and 1."""
    for hierarchy, limit, usage, cache in (
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        for folder in _own_cgroups(root, root / "sys/fs/cgroup" / hierarchy):
            most, used = _number(folder / limit), _number(folder / usage)
            if most is not None and used is not None:
                # Cached files count as used, but make room when memory is wanted.
                yield most - used + (_number(folder / "memory.stat", cache) or 0)


def _own_cgroups(root: Path, hierarchy: Path) -> list[Path]:
    """This process's control group and those around it; in a container often the outermost only."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    names = [PurePosixPath(line.split(":", 2)[-1].lstrip("/")) for line in lines]
    nested = {hierarchy / part for name in names for part in (name, *name.parents)}
    return sorted(nested | {hierarchy})


def _number(path: Path, label: str = "") -> int | None:
    """First number that starts a line, after `label`; None without such a file or line."""
    try:
        text = path.read_text()
    except OSError:
        return None
    found = re.search(rf"^{label}\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else None


def keep_freed_memory() -> bool:
    """Let glibc keep a network's big buffers for reuse instead of giving them back to the kernel.

    By default each feature map is mapped anew and its pages are zeroed, which takes 20 to 40 % of
    RDMC's CPU time on a 481x321 image and half of it on tiles of a megapixel. Under `ulimit -v`
    the default stays, because memory that is kept counts there.

    Returns:
        Whether the C library accepted the settings; False without glibc, or under a limit.
    """
    if _address_space_limit() is not None:
        return False
    taken = [_call_glibc("mallopt", name, value) == 1 for name, value in KEEP_SETTINGS]
    return all(taken)


def give_back_freed_memory(device: str) -> None:
    """Return memory that is kept for reuse to the GPU or the system."""
    if device == "cpu":
        _call_glibc("malloc_trim", 0)
        return
    import torch  # noqa: PLC0415 (as above)

    (torch.cuda if device.startswith("cuda") else torch.mps).empty_cache()


def _call_glibc(name: str, *arguments: int) -> int:
    """Result of a glibc function; 0, its "not done", where the C library lacks it."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return int(function(*arguments)) if function is not None else 0
