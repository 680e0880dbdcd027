"""Batch norm: statistics that fit whole images, and statistics over several processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from derain_cli.errors import TrainingError
from derain_cli.training import processes


class FixedNorm(nn.Module):
    """Batch norm with the statistics it came with, in training too; its weights still learn.

    Crops of a few photos make poor statistics, and whole photos' statistics would change the
    network before it learnt anything. To the trainer it is no batch norm: it gathers none.
    """

    eps: float
    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `(batch, channels, height, width)`."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )


def keep_norms(model: nn.Module) -> None:
    """Turn a network's batch norms into `FixedNorm`s.

    The layers stay the same objects with the same weights, so that checkpoints do not change.
    """
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.__class__ = FixedNorm  # type: ignore[assignment]


BatchNorm = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def gather_norm_statistics(model: nn.Module, images: Iterator[Tensor]) -> None:
    """Set batch-norm statistics to their plain average over whole images, in float32.

    Statistics gathered on small crops do not fit whole images: zero padding and context differ at
    1/16 size. Without batch norm there is nothing to do.

    Raises:
        TrainingError: No image was given.
    """
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return
    momentum = [norm.momentum for norm in norms]
    was_training = model.training
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's cumulative average
        norm.train()
    with _each_process_alone(norms):
        count = 0
        for image in images:
            model(image)  # its norms average what passes through them
            count += 1
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    model.train(was_training)
    if not count:
        raise TrainingError("no images to gather batch-norm statistics on")


def freeze_norms(model: nn.Module) -> None:
    """Batch norm as in inference, its weights still learning."""
    for module in model.modules():
        if isinstance(module, BatchNorm):
            module.eval()


class SharedNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes: N processes normalise as one would.

    torch's own SyncBatchNorm runs on GPUs only; this one is plain tensor arithmetic, and so slower
    there, but the same everywhere.

    Attributes:
        alone: Look at this process's batch only.
    """

    alone = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalised `(batch, channels, height, width)`."""
        if not self.training or self.alone:
            unshared: Tensor = super().forward(x)
            return unshared
        with torch.autocast(x.device.type, enabled=False):
            return self._normalise(x.float()).to(x.dtype)

    def _normalise(self, x: Tensor) -> Tensor:
        own = x.new_tensor([x.numel() / x.shape[1]])
        sums = _sum_over_processes(torch.cat((x.sum(dim=(0, 2, 3)), own)))
        count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = x - mean[:, None, None]
        # Summed from centred values: mean of squares minus squared mean would lose digits.
        squares = _sum_over_processes(centred.square().sum(dim=(0, 2, 3)))
        self._follow(mean.detach(), squares.detach(), count)
        scale = self.weight * torch.rsqrt(squares / count + self.eps)
        normed: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normed

    @torch.no_grad()
    def _follow(self, mean: Tensor, squares: Tensor, count: Tensor) -> None:
        """Move the running statistics as torch's batch norm does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum or 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(squares / (count - 1), share)


class _SumOverProcesses(torch.autograd.Function):
    """Sum that gradients flow through, back to every process."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:  # noqa: ANN401 (autograd's own object)
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(own: Tensor) -> Tensor:
    summed: Tensor = _SumOverProcesses.apply(own)  # type: ignore[no-untyped-call]
    return summed


def share_norms(model: nn.Module) -> None:
    """Let the batch norms of a network look at the batches of all processes, if there are several.

    The layers stay the same objects with the same weights, so that checkpoints do not change.
    """
    if processes.world_size() == 1:
        return
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedNorm


@contextmanager
def _each_process_alone(norms: list[BatchNorm]) -> Iterator[None]:
    """Batch norms that do not wait for other processes, which are doing something else."""
    shared = [norm for norm in norms if isinstance(norm, SharedNorm)]
    for norm in shared:
        norm.alone = True
    try:
        yield
    finally:
        for norm in shared:
            norm.alone = False
