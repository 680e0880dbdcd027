"""Several processes as one: what `torchrun` starts, and how they share a batch.

Every process draws its slice of the one global batch, gradients are averaged by
DistributedDataParallel, and batch norm sees the whole batch (`batch_norm.SharedNorm`): N processes
compute what one would, up to the rounding of sums. Process 0 alone validates and writes files.

Without `torchrun` there is one process, and the functions here do next to nothing.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import _set_pg_timeout
from torch.nn.parallel import DistributedDataParallel

from derain_cli.errors import ConfigError
from derain_cli.training.configs.train import TrainConfig

# The others wait as long while process 0 validates.
PATIENCE = timedelta(hours=6)
# All processes are started at once, but some import torch more slowly.
MEETING = timedelta(seconds=60)


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if _together() else 0


def is_first() -> bool:
    """Whether this is the process that validates, writes files and prints."""
    return rank() == 0


def may_be_restarted() -> bool:
    """Whether a launcher repeats this very command after a process or a machine was lost.

    `torchrun --max-restarts N` and a requeued Slurm job do; they cannot add `--resume` to it.
    """
    names = ("TORCHELASTIC_MAX_RESTARTS", "SLURM_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in names)


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the other processes that `torchrun` started; yields the device of this one.

    Args:
        device: As configured. Process number k of a machine uses its k-th GPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _together():
        yield device
        return
    on_gpu = device in ("auto", "cuda") and torch.cuda.is_available()
    if on_gpu:
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    # A launcher that started some processes twice may have left an address of one that is gone: who
    # waits for it must fail soon, to be started again, and not after hours.
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=MEETING)
    _set_pg_timeout(PATIENCE)
    try:
        yield "cpu" if device == "auto" else device
    finally:
        dist.destroy_process_group()


def share_of(count: int) -> range:
    """This process's samples of a batch: neighbouring numbers, sizes as even as can be.

    Raises:
        ConfigError: Fewer samples than processes.

    Example:
        >>> share_of(6)
        range(0, 6)
    """
    size = world_size()
    if count < size:
        raise ConfigError(f"a batch of {count} cannot be shared by {size} processes")
    return range(count * rank() // size, count * (rank() + 1) // size)


def shares_of(count: int, parts: int) -> list[range]:
    """This process's samples of each part of a batch that is computed part by part.

    There are as many parts in every process, fewer where else one had no sample in one of them.

    Raises:
        ConfigError: Fewer samples than processes.

    Example:
        >>> shares_of(6, 2)
        [range(0, 3), range(3, 6)]
    """
    parts = max(1, min(parts, count // world_size()))
    borders = [count * part // parts for part in range(parts + 1)]
    shares = [(first, share_of(end - first)) for first, end in pairwise(borders)]
    return [range(first + share.start, first + share.stop) for first, share in shares]


def wrap(model: nn.Module, config: TrainConfig, *, unused: bool = False) -> nn.Module:
    """What a recipe calls instead of the model: the same weights, gradients averaged, compiled.

    Args:
        model: The network, on its device; it stays what is validated and saved.
        config: Its `compile`.
        unused: Some parameters get no gradient in a step.
    """
    forward = model
    if world_size() > 1:
        # Buffers need no broadcast: batch norm and MOSS's memory take sums over all processes.
        options: dict[str, Any] = {"find_unused_parameters": unused, _buffer_option(): False}
        forward = DistributedDataParallel(model, **options)
    if config.compile:
        compiled: nn.Module = torch.compile(forward)  # type: ignore[assignment]
        return compiled
    return forward


def alone(forward: nn.Module) -> AbstractContextManager[None]:
    """Context in which gradients stay in this process, to be averaged with those of the next pass.

    Args:
        forward: What `wrap` made; forward and backward pass belong into the context.
    """
    if world_size() == 1:
        return nullcontext()
    kept: AbstractContextManager[None] = forward.no_sync()  # type: ignore[operator]
    return kept


def _buffer_option() -> str:
    """What torch calls the broadcast of buffers before each forward pass; renamed in 2.13."""
    known = inspect.signature(DistributedDataParallel).parameters
    return "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"


def mean_of(values: Tensor) -> Tensor:
    """Mean over the processes; the same numbers everywhere."""
    if world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
        values /= world_size()
    return values


def any_of(wish: bool) -> bool:
    """Whether any process wishes it; the same answer everywhere."""
    if world_size() == 1:
        return wish
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    vote = torch.tensor(int(wish), device=device)
    dist.all_reduce(vote, op=dist.ReduceOp.MAX)
    return bool(vote.item())


def wait_for_all() -> None:
    """Go on when every process is here."""
    if world_size() > 1:
        dist.barrier()


@torch.no_grad()
def take_from_first(model: nn.Module) -> None:
    """Give every process the buffers (batch-norm statistics) of process 0."""
    if world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
