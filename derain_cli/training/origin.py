"""The commit and the machine that a run was made with."""

import platform
import re
from pathlib import Path

import torch

from derain_cli.version import __version__


def source_commit(root: Path = Path(__file__).parents[2]) -> str:
    """Commit of the git checkout that this package runs from, else `derain-cli VERSION`.

    It is read from git's own files, because the program may be missing, slow, or refuse another
    user's checkout. Uncommitted changes do not show.

    Args:
        root: Folder of the package.
    """
    try:
        commit = _checked_out(root / ".git")
    except (OSError, ValueError):
        commit = ""
    return commit if re.fullmatch(r"[0-9a-f]{40,64}", commit) else f"derain-cli {__version__}"


def _checked_out(git: Path) -> str:
    """The commit that HEAD points to, "" if unknown. In a worktree, `.git` is a file."""
    if git.is_file():
        git = git.parent / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head
    name, shared = head.removeprefix("ref:").strip(), git / "commondir"
    folders = [git, git / shared.read_text(encoding="utf-8").strip()] if shared.exists() else [git]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8").strip()
        packed = folder / "packed-refs"
        for line in packed.read_text(encoding="utf-8").splitlines() if packed.exists() else ():
            if line.endswith(f" {name}"):
                return line.split()[0]
    return ""


def machine(device: torch.device) -> str:
    """What a run's speed depends on: processor or GPU, threads, version of torch. No host name.

    Example:
        >>> machine(torch.device("cpu")).endswith(f"torch {torch.__version__}")
        True
    """
    on_gpu = device.type == "cuda"
    processor = torch.cuda.get_device_name(device) if on_gpu else _cpu_model()
    threads = torch.get_num_threads()
    unit = "thread" if threads == 1 else "threads"
    on_device = f" ({device.type})" if device.type not in ("cpu", "cuda") else ""
    return f"{processor}{on_device}, {threads} {unit}, torch {torch.__version__}"


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(\S.*)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.machine() or "unknown processor"
