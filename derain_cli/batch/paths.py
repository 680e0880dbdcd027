"""What paths lead to; a missing file or a loop of links is an answer, not an error."""

import stat
from functools import lru_cache
from pathlib import Path


def mode_of(path: Path) -> int:
    """What kind of file a path leads to (`st_mode`), 0 where it leads nowhere."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder, be it through links."""
    return stat.S_ISDIR(mode_of(path))


@lru_cache(maxsize=4096)
def resolved(folder: Path) -> Path:
    """The folder's one true path, remembered until `collect_inputs` begins the next plan."""
    return folder.resolve()


def resolved_parent(path: Path) -> Path:
    """The one true path of the folder that a path itself, not what it links to, lies in."""
    return resolved(path.parent)
