"""Muon: steps whose singular values are all alike, for the weights that are matrices.

Jordan et al. (2024, kellerjordan.github.io/posts/muon) replace the averaged gradient of a matrix by
the nearest orthogonal one, so that rare directions are learnt as fast as common ones. A kernel
counts as a matrix of outputs x (inputs x places). Liu et al. (2025, arXiv 2502.16982) scale such
steps to the size of Adam's, so that rates found for Adam fit both.

Measured with nimbus in bf16 on one core each, 8 crops of 128, equal data in equal order: from step
1,000 to 3,750 the loss was 2.8 % below Adam's, for 15 % more time a step.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

NARROWEST = 16
"""Matrices with fewer inputs or outputs, such as first and last layers, are left to Adam."""
MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b and c of x <- a x + b (x x^T) x + c (x x^T)^2 x, which takes singular values of 0..1 to
about 1 (0.7 to 1.2) in few iterations (Jordan et al.)."""
ADAMS_SIZE = 0.2
"""Root mean square of a step, as Adam's steps have it (Liu et al., section 2.2)."""


class Muon(torch.optim.Optimizer):
    """Muon for matrices, Adam for everything else (biases, norms, narrow layers).

    Groups have Adam's keys, so that schedules and collapses treat both optimisers alike.

    Args:
        parameters: All parameters of a network.
        lr: Step size, in the units of Adam's.
        betas: Decay rates of Adam, for what is left to it.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, betas: Sequence[float]
    ) -> None:
        parameters = list(parameters)
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if is_matrix(p) == matrices], "matrices": matrices}
            for matrices in (True, False)
        ]
        super().__init__(groups, {"lr": lr, "betas": tuple(betas)})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step down the gradients that are there."""
        for group in self.param_groups:
            moving = [weight for weight in group["params"] if weight.grad is not None]
            for weight in moving:
                if not self.state[weight]:
                    self.state[weight].update(step=0, mean=torch.zeros_like(weight))
                self.state[weight]["step"] += 1
            if group["matrices"]:
                self._step_matrices(moving, group["lr"])
                continue
            for weight in moving:
                weight.add_(self._adams(weight.grad, self.state[weight], group), alpha=-group["lr"])

    def _step_matrices(self, weights: Sequence[nn.Parameter], lr: float) -> None:
        # Weights of one shape at once: one by one, the many small products of a network of naf
        # blocks took a third of a training step.
        alike: dict[torch.Size, list[nn.Parameter]] = {}
        for weight in weights:
            alike.setdefault(weight.shape, []).append(weight)
        for same in alike.values():
            changes = orthogonal(torch.stack([self._nesterovs(weight) for weight in same]))
            for weight, change in zip(same, changes, strict=True):
                weight.add_(change, alpha=-lr)

    def _nesterovs(self, weight: nn.Parameter) -> Tensor:
        """The mean gradient as it would be if the next gradient were this one."""
        assert weight.grad is not None
        mean: Tensor = self.state[weight]["mean"].lerp_(weight.grad, 1 - MOMENTUM)
        return weight.grad.lerp(mean, MOMENTUM)

    @staticmethod
    def _adams(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        decay, squares_decay = group["betas"]
        if "squares" not in state:
            state["squares"] = torch.zeros_like(gradient)
        mean = state["mean"].lerp_(gradient, 1 - decay)
        squares = state["squares"].mul_(squares_decay)
        squares.addcmul_(gradient, gradient, value=1 - squares_decay)
        size = (squares / (1 - squares_decay ** state["step"])).sqrt_().add_(1e-8)
        change: Tensor = mean / (1 - decay ** state["step"]) / size
        return change


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon steps a parameter: outputs x inputs, enough of both.

    Example:
        >>> is_matrix(torch.zeros(32, 32, 3, 3)), is_matrix(torch.zeros(32, 1, 3, 3))
        (True, False)
    """
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= NARROWEST


def orthogonal(changes: Tensor) -> Tensor:
    """Nearest orthogonal matrices, roughly, at the size of Adam's steps; the shape stays.

    Args:
        changes: `(matrices, outputs, inputs, ...)`. The size of a matrix has no effect, but for 0,
            which stays 0.
    """
    matrices = changes.flatten(2)
    tall = matrices.shape[1] > matrices.shape[2]
    # bf16 is exact enough: the iteration only has to come near 1.
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    steps: Tensor = ADAMS_SIZE * max(x.shape[1:]) ** 0.5 * (x.mT if tall else x).float()
    return steps.reshape(changes.shape)
