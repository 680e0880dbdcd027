"""What an evaluation is of: image files and weights by their SHA-256."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from derain_cli.datasets.layouts import Pair
from derain_cli.errors import DatasetError
from derain_cli.whole_files import sha256_of

READERS = 4


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DatasetError(f"cannot read {str(path)!r}: {error.strerror}") from error


def data_identity(
    datasets: Mapping[str, Sequence[Pair]], report: Callable[[int, int], None]
) -> dict[str, Any]:
    """By data set: how many pairs, and one SHA-256 over their names and files.

    Args:
        datasets: Name to pairs.
        report: Called with (files read, files in all).

    Raises:
        DatasetError: A file cannot be read.
    """
    paths = list(
        dict.fromkeys(
            path
            for pairs in datasets.values()
            for pair in pairs
            for path in (pair.rainy, pair.clean)
        )
    )
    digests: dict[Path, str] = {}
    with ThreadPoolExecutor(READERS, "hashing") as readers:
        for path, digest in zip(paths, readers.map(file_sha256, paths), strict=True):
            digests[path] = digest
            report(len(digests), len(paths))
    return {
        name: {"pairs": len(pairs), "sha256": _set_digest(pairs, digests)}
        for name, pairs in datasets.items()
    }


def _set_digest(pairs: Sequence[Pair], digests: Mapping[Path, str]) -> str:
    whole = hashlib.sha256()
    for pair in pairs:
        about = (pair.name, pair.group, pair.rainy_half, digests[pair.rainy], digests[pair.clean])
        whole.update("\0".join((*about, "\n")).encode("utf-8", "surrogateescape"))
    return whole.hexdigest()
