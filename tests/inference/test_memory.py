"""What memory there is, what says that it ran out, and what keeps it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from derain_cli.inference.live_bytes import measure_bytes_per_pixel
from derain_cli.inference.memory import available_memory, is_out_of_memory


def test_real_allocators_errors_are_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as numpy_caught:
        np.empty(2**50, np.uint8)
    assert is_out_of_memory(numpy_caught.value)
    assert not is_out_of_memory(ValueError("out of memory"))


def test_available_memory_obeys_every_cgroup_around_the_process(tmp_path: Path) -> None:
    def write(path: str, text: object) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    assert available_memory(tmp_path) == 4 * 2**30
    write("proc/meminfo", "MemTotal:  9000000 kB\nMemAvailable:    8000 kB")
    assert available_memory(tmp_path) == 8000 * 1024
    write("sys/fs/cgroup/memory.max", "max")
    write("sys/fs/cgroup/memory.current", 5_000_000)
    assert available_memory(tmp_path) == 8000 * 1024
    write("proc/self/cgroup", "0::/outer/inner")
    write("sys/fs/cgroup/outer/memory.max", 6_000_000)
    write("sys/fs/cgroup/outer/memory.current", 5_000_000)
    write("sys/fs/cgroup/outer/memory.stat", "anon 1\ninactive_file 2000000")
    assert available_memory(tmp_path) == 3_000_000
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", 2_500_000)
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", 2_600_000)
    assert available_memory(tmp_path) == 0


def test_available_memory_obeys_an_address_space_limit(tmp_path: Path) -> None:
    folder = tmp_path / "proc/self"
    folder.mkdir(parents=True)
    (folder / "status").write_text("Name: python\nVmSize:\t  1000 kB\n")
    (folder / "limits").write_text("Max address space         unlimited    unlimited    bytes\n")
    assert available_memory(tmp_path) == 4 * 2**30
    (folder / "limits").write_text("Max address space         5000000      9000000      bytes\n")
    assert available_memory(tmp_path) == 5_000_000 - 1_024_000


KEEP_AND_LOOK = """
import resource
import torch
from derain_cli.inference.memory import give_back_freed_memory, keep_freed_memory
{first}
kept = keep_freed_memory()

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(8 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for _ in range(20):  # until blocks that lie side by side have grown together
    new_pages()
again = min(new_pages() for _ in range(4))
give_back_freed_memory("cpu")
print(kept, again, new_pages())
"""


def kept_and_pages(first: str = "") -> tuple[bool, int, int]:
    """Whether a new process keeps memory; new pages of a tensor after others, and after that."""
    command = [sys.executable, "-c", KEEP_AND_LOOK.format(first=first)]
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return words[0] == "True", int(words[1]), int(words[2])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_used_again_until_it_is_given_back() -> None:
    kept, again, given_back = kept_and_pages()
    if not kept:
        pytest.skip("this C library has no such settings")
    assert again < 100  # 32 MiB anew are 8192 pages of 4 KiB
    assert given_back > 1000


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits")
def test_memory_is_not_kept_where_the_address_space_is_limited() -> None:
    limit = "resource.setrlimit(resource.RLIMIT_AS, (64 * 2**30, resource.RLIM_INFINITY))"
    kept, again, _ = kept_and_pages(limit)
    assert not kept
    assert again > 1000


class Working(nn.Module):
    """Holds four copies of an image at a time, whatever it held before."""

    def forward(self, rainy: Tensor) -> Tensor:
        for _ in range(3):
            wide = torch.cat([rainy] * 4, dim=1)
            del wide
        return torch.cat([rainy] * 4, dim=1)[:, :3] * 2


def test_bytes_per_pixel_count_what_is_alive_together() -> None:
    # 12 channels and the result's 3, of 4 bytes each.
    assert measure_bytes_per_pixel(Working(), "cpu") == 60
