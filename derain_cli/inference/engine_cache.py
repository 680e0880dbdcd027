"""Networks that an engine compiled, kept on disk so that the next run need not.

A file is named after everything that its content depends on: the weights, the code of the networks,
the engine's version, the precision and the processor. It states them again inside, with the digest
of its content, and is written whole; one that is damaged or of anything else is never used.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from derain_cli.errors import CheckpointError, UsageError
from derain_cli.inference.facts import NetworkFacts
from derain_cli.version import __version__
from derain_cli.whole_files import cache_folder, write_whole_file

MOST_HEADER = 1 << 20  # bytes
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}  # modules, and usually distributions
# What decides the graph of given weights, beside the packages.
CODE = ("models/*.py", "inference/graphs.py", "inference/folding.py", "conv_norm.py", "sizes.py")


def engine_folder() -> Path:
    """`$DERAIN_CACHE` or `~/.cache/derain`, and in it `engines`."""
    chosen = os.environ.get("DERAIN_CACHE")
    folder = Path(chosen).expanduser() if chosen else cache_folder()
    return folder / "engines"


class Slot:
    """The place of one compiled network."""

    def __init__(self, sha256: str, engine: str, precision: str) -> None:
        """The place that belongs to these.

        Args:
            sha256: Of the checkpoint file.
            engine: "openvino" or "onnx".
            precision: Of the arithmetic.
        """
        self._depends = {
            "weights": sha256,
            "engine": f"{engine} {_version(PACKAGES[engine])}",
            "precision": precision,
            "cpu": _cpu(),
            "derain": f"{__version__} {_code()}",
        }
        name = hashlib.sha256(json.dumps(self._depends).encode()).hexdigest()[:32]
        self.path = engine_folder() / f"{engine}-{name}.bin"

    def read(self) -> tuple[NetworkFacts, list[bytes]] | None:
        """The facts and parts that lie there; None where there is nothing that can be trusted."""
        try:
            with self.path.open("rb") as file:
                header = json.loads(file.readline(MOST_HEADER))
                content = file.read()
            if header["depends"] != self._depends or header["sha256"] != _digest(content):
                return None
            return NetworkFacts.from_json(header["facts"], str(self.path)), _split(
                content, header["parts"]
            )
        except (OSError, ValueError, KeyError, TypeError, CheckpointError):
            return None

    def write(self, facts: NetworkFacts, parts: Sequence[bytes]) -> None:
        """Keep the parts of a network; where they cannot be kept, the next run compiles again."""
        content = b"".join(parts)
        header = {
            "depends": self._depends,
            "facts": facts.to_json(),
            "parts": [len(part) for part in parts],
            "sha256": _digest(content),
        }
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole_file(self.path, json.dumps(header).encode() + b"\n" + content)


def _version(module: str) -> str:
    """Of what holds an engine's module: onnxruntime is also in distributions of other names.

    Raises:
        UsageError: Nothing holds it.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(module)
    for name in importlib.metadata.packages_distributions().get(module, ()):
        return f"{name} {importlib.metadata.version(name)}"
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a stray folder of that name, say
        raise UsageError(f"module {module!r} is no engine: its package is not installed whole")
    # Of no distribution, as a module on a path of its own is: a changed one has another time.
    return str(Path(spec.origin).stat().st_mtime_ns)


def _split(content: bytes, lengths: Sequence[int]) -> list[bytes]:
    if sum(lengths) != len(content):
        raise ValueError("parts do not fill the file")
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [content[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def _cpu() -> str:
    """A digest of the processor's name and instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = f"{platform.processor()} {platform.node()}"
    kept = ("vendor_id", "model", "stepping", "flags", "Features", "CPU ")
    lines = [line for line in text.partition("\n\n")[0].splitlines() if line.startswith(kept)]
    return _digest("\n".join(lines or [text]).encode())[:16]


@cache
def _code() -> str:
    root = Path(__file__).parents[1]
    files = sorted(file for pattern in CODE for file in root.glob(pattern))
    return _digest(b"".join(file.read_bytes() for file in files))[:16]
