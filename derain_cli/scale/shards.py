"""Shards: which of N runs does an image. A stable hash of its relative path decides."""

import hashlib
import os
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from derain_cli.errors import UsageError

AUTO = "auto"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a job; `index` counts from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, relative: str | os.PathLike[str]) -> bool:
        """Whether an image belongs to this shard.

        The answer depends on the relative path alone: not on the other images, the machine or the
        order of a listing. Forward and backward slashes and both Unicode forms of a name are one.

        Example:
            >>> [Shard(i, 3).holds("holiday/a.jpg") for i in range(3)].count(True)
            1
        """
        return place_of(relative) % self.count == self.index


def place_of(relative: str | os.PathLike[str]) -> int:
    r"""A number of 64 bits that stands for a relative path, the same on every machine.

    Example:
        >>> place_of("below/b.png") == place_of("below\\b.png")
        True
    """
    name = unicodedata.normalize("NFC", os.fspath(relative).replace("\\", "/"))
    digest = hashlib.blake2s(name.encode("utf-8", "surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")


def parse_shard(text: str, environment: Mapping[str, str] | None = None) -> Shard:
    """The shard that `--shard` names: `I/N`, `auto/N` or `auto`.

    `auto` takes the index from a Slurm array (`SLURM_ARRAY_TASK_ID`) or an indexed Kubernetes job
    (`JOB_COMPLETION_INDEX`). Slurm says how many there are; Kubernetes does not, so that `auto/N`
    or the variable `JOB_COMPLETIONS` has to.

    Args:
        text: What the user wrote.
        environment: Variables; None for those of this process.

    Raises:
        UsageError: Not such a text, an index outside the count, or nothing to take `auto` from.

    Example:
        >>> parse_shard("auto/4", {"JOB_COMPLETION_INDEX": "3"})
        Shard(index=3, count=4)
    """
    first, slash, second = text.strip().partition("/")
    if first == AUTO:
        variables = os.environ if environment is None else environment
        return _from_scheduler(variables, _number(second, text) if slash else None)
    return _checked(_number(first, text), _number(second, text), text)


def _number(word: str, text: str) -> int:
    if word.isascii() and word.isdigit():
        return int(word)
    raise UsageError(f"--shard {text!r} must be I/N with I from 0 to N-1, auto, or auto/N")


def _checked(index: int, count: int, text: str) -> Shard:
    if count < 1:
        raise UsageError(f"--shard {text!r} asks for no shards: N must be at least 1")
    if index >= count:
        raise UsageError(
            f"--shard {text!r} is outside: {count} shards are 0/{count} to {count - 1}/{count}"
        )
    return Shard(index, count)


def _from_scheduler(variables: Mapping[str, str], count: int | None) -> Shard:
    if "SLURM_ARRAY_TASK_ID" in variables:
        return _from_slurm(variables, count)
    if "JOB_COMPLETION_INDEX" in variables:
        index = _variable(variables, "JOB_COMPLETION_INDEX")
        if count is None and "JOB_COMPLETIONS" not in variables:
            raise UsageError(
                "--shard auto: Kubernetes does not say how many completions there are; "
                "write --shard auto/N, or set JOB_COMPLETIONS in the pod"
            )
        return _checked(index, count or _variable(variables, "JOB_COMPLETIONS"), AUTO)
    raise UsageError(
        "--shard auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; write --shard "
        "I/N"
    )


def _from_slurm(variables: Mapping[str, str], count: int | None) -> Shard:
    """With a count the task's number is the index; without, the place among the array's tasks."""
    task = _variable(variables, "SLURM_ARRAY_TASK_ID")
    if count is not None:
        return _checked(task, count, f"auto/{count}")
    tasks = _variable(variables, "SLURM_ARRAY_TASK_COUNT")
    first, last = (_variable(variables, f"SLURM_ARRAY_TASK_{end}") for end in ("MIN", "MAX"))
    step = _variable(variables, "SLURM_ARRAY_TASK_STEP", "1")
    if first + step * (tasks - 1) != last:
        raise UsageError(
            f"--shard auto: the Slurm array has gaps ({tasks} tasks from {first} to {last}), so "
            "its tasks do not say which shards they are; write --shard auto/N with the first N"
        )
    return _checked((task - first) // step, tasks, AUTO)


def _variable(variables: Mapping[str, str], name: str, default: str | None = None) -> int:
    value = variables.get(name, default)
    if value is None or not (value.isascii() and value.isdigit()):
        raise UsageError(f"--shard auto: {name} is {value!r}, not a number; write --shard I/N")
    return int(value)
