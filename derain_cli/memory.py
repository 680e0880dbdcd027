"""How this process keeps its memory."""

import ctypes
import sys

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
KEEP_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Let glibc reuse the big buffers of a network instead of giving them back after every layer.

    By default each feature map is mapped anew and its pages are zeroed by the kernel: 20 to 40 % of
    the CPU time of RDMC on a 481x321 picture. For programs that own their process (our command
    line); a library would decide for others.

    Returns:
        Whether the C library took the settings; False where it is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl has no mallopt
        return False
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, KEEP_BYTES))
    taken = [mallopt(name, value) == 1 for name, value in settings]  # all are tried
    return all(taken)
