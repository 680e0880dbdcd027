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
            change_of = self._orthogonal if group["matrices"] else self._adams
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(parameter))
                state["step"] += 1
                parameter.add_(change_of(parameter.grad, state, group), alpha=-group["lr"])

    @staticmethod
    def _orthogonal(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        mean = state["mean"].lerp_(gradient, 1 - MOMENTUM)
        # Nesterov's momentum: the mean as it would be if the next gradient were this one.
        return orthogonal(gradient.lerp(mean, MOMENTUM))

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


def orthogonal(change: Tensor) -> Tensor:
    """Nearest orthogonal matrix, roughly, at the size of Adam's steps; the shape stays.

    Args:
        change: `(outputs, inputs, ...)`. Its size has no effect, but for 0, which stays 0.
    """
    matrix = change.reshape(len(change), -1)
    tall = matrix.shape[0] > matrix.shape[1]
    # bf16 is exact enough: the iteration only has to come near 1.
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    step: Tensor = ADAMS_SIZE * max(x.shape) ** 0.5 * (x.T if tall else x).float()
    return step.reshape(change.shape)
