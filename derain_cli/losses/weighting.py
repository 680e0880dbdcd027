"""How much each task of a multi-task loss counts: fixed, loss-balanced or gradient-balanced.

Paper: Y. Fan, R. Chen, B. Li, "Multi-Task Learning Enhanced Single Image De-Raining" (MENET),
eq. 2 and algorithms 1 (GB) and 2 (LB): total = sum_i w_i L_i with weights renewed at every batch,
through which no gradient flows. The weights of n tasks add up to n - 1; the largest task gets the
smallest weight.

Under DDP the losses (LB) and the gradients (GB) are averaged over the processes before they are
compared, so that N processes weigh as one process with the whole batch does.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from derain_cli.errors import ConfigError, did_you_mean

WEIGHTINGS = ("fixed", "gb", "lb")


def weigh_losses(
    losses: Mapping[str, Tensor],
    weighting: str,
    *,
    shared_weight: Tensor | None = None,
    fixed: Mapping[str, float] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss to call `backward()` on (MENET eq. 2), and the weight of each task.

    Args:
        losses: Task to its scalar loss.
        weighting: `gb`, `lb` or `fixed`.
        shared_weight: For `gb`: weight of the last convolution that all tasks share.
        fixed: For `fixed`: task to its weight.

    Raises:
        ConfigError: Unknown weighting; a balanced one with fewer than two tasks; one that lacks
            `shared_weight` or a task of `fixed`.

    Example:
        >>> losses = {"pixel": torch.tensor(1.0), "edge": torch.tensor(3.0)}
        >>> total, weights = weigh_losses(losses, "lb")  # 3/4 x 1 + 1/4 x 3
        >>> total, weights["pixel"]
        (tensor(1.5000), tensor(0.7500))
    """
    if weighting == "lb":
        weights = loss_balanced(list(losses.values()))
    elif weighting == "gb":
        if shared_weight is None:
            raise ConfigError("loss weighting 'gb' needs the weight of the last shared convolution")
        weights = gradient_balanced(list(losses.values()), shared_weight)
    elif weighting == "fixed":
        weights = _fixed(losses, fixed or {})
    else:
        hint = did_you_mean(weighting, WEIGHTINGS)
        raise ConfigError(f"unknown loss weighting {weighting!r}. {hint}")
    total = torch.stack([w * x for w, x in zip(weights, losses.values(), strict=True)]).sum()
    return total, dict(zip(losses, weights.unbind(), strict=True))


def loss_balanced(losses: Sequence[Tensor]) -> Tensor:
    """LB (MENET algorithm 2): `w_i = 1 - L_i / sum_j L_j`, shape `(tasks,)`, without gradient.

    Args:
        losses: Scalar loss of each task, none negative.

    Raises:
        ConfigError: Fewer than two tasks.

    Example:
        >>> loss_balanced([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(5.0)])
        tensor([0.8750, 0.7500, 0.3750])
    """
    return _balanced(_mean_over_processes(torch.stack([x.detach().float() for x in losses])))


def gradient_balanced(losses: Sequence[Tensor], shared_weight: Tensor) -> Tensor:
    """GB (MENET algorithm 1): `w_i = 1 - G_i / sum_j G_j`, `G_i = || dL_i / d shared_weight ||_2`.

    Autograd walks from each loss to `shared_weight` and no further: with the last convolution that
    costs one convolution per task, not a backward pass. The graph is kept for the real one, and
    nothing is added to any `grad`. (A network under `torch.compile` is one node to autograd: there
    each task costs a whole pass, and donated buffers must be off. Compile without GB.)

    Paper: "the shared convolution layer". Released code: the last one, before the pixel shuffle.

    Args:
        losses: Scalar loss of each task; every one depends on `shared_weight`.
        shared_weight: Weight of the last convolution, in the graph of the losses.

    Raises:
        ConfigError: Fewer than two tasks.

    Example:
        >>> weight = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> gradient_balanced([weight.sum(), (weight**2).sum() / 2], weight)  # norms sqrt(2) and 5
        tensor([0.7795, 0.2205])
    """
    gradients = [
        torch.autograd.grad(loss, shared_weight, retain_graph=True)[0].float().flatten()
        for loss in losses
    ]
    return _balanced(_mean_over_processes(torch.stack(gradients)).norm(dim=1))


def _balanced(sizes: Tensor) -> Tensor:
    """`1 - size / sum`, as the share of the others: 1 minus a share near 1 would lose its digits.

    Tasks that are all perfect (0 / 0) weigh the same.
    """
    tasks = len(sizes)
    if tasks < 2:
        raise ConfigError(
            f"balanced loss weighting needs two tasks or more, not {tasks}: a lone task would get "
            "weight 0 and teach nothing. Use the weighting 'fixed'"
        )
    others = ((1 - torch.eye(tasks, device=sizes.device)) * sizes).sum(dim=1)
    total = sizes.sum()
    even = torch.full_like(sizes, 1 - 1 / tasks)
    return torch.where(total == 0, even, others / total)


def _fixed(losses: Mapping[str, Tensor], fixed: Mapping[str, float]) -> Tensor:
    if fixed.keys() != losses.keys():
        raise ConfigError(
            f"fixed loss weights are given for {sorted(fixed)}, but the tasks are {sorted(losses)}"
        )
    device = next(iter(losses.values())).device
    return torch.tensor([fixed[task] for task in losses], device=device)


def _mean_over_processes(sizes: Tensor) -> Tensor:
    if not (dist.is_available() and dist.is_initialized()):
        return sizes
    dist.all_reduce(sizes)
    return sizes / dist.get_world_size()
