"""Search of RDMC's connections by gradients: weights and alphas take turns on two halves.

Paper (jiang2023): Z. Jiang et al., IEEE TCSVT 2023, section III-B, with the algorithm of H. Liu,
K. Simonyan, Y. Yang, "DARTS: Differentiable Architecture Search", ICLR 2019. One update moves the
alphas on one half of the training images (DARTS eq. 3), then the weights on the other half (eq. 4).

Paper: names no learning rate of the alphas apart from the weights'. We give both 1e-3. They
have no weight decay: DARTS' 1e-3 times alpha would outweigh the gradients of this loss.

Measured by `tests/benchmarks/search_comparison.py` with 3 seeds, 400 steps of search and 800 of
training, held-out PSNR, dB: found 30.68 (spread 0.42), the paper's four 30.58 (0.14), random 30.33
(0.55). Found minus paper by seed: -0.10, -0.02, +0.43; found minus random: +0.50, -0.27, +0.82. At
this length the alphas are still near even (entropy 2.28 to 2.30 of at most 2.303), and the found
edges cost 18 % more multiply-adds: an honest figure, not a proof.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.func import functional_call

from derain_cli.connections.space import GIGA, SearchSpace
from derain_cli.errors import ConfigError, TrainingError
from derain_cli.models.rdmc import CANDIDATES, RdmcSupernet
from derain_cli.training import processes
from derain_cli.training.configs.search import SearchConfig
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.data.samples import draw_batch
from derain_cli.training.objectives import Objective
from derain_cli.training.optimization import Optimization, autocast
from derain_cli.training.recipes.paired import PairedRecipe

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]  # (weights, alphas) -> scalar

ALPHA_BETAS = (0.5, 0.999)  # DARTS, section A.1.1
HISTORY_ROWS = 200


def alpha_gradient(
    validation_loss: Loss,
    weights: Sequence[Tensor],
    alphas: Tensor,
    training_loss: Loss | None = None,
    rate: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Gradient of the validation loss in the alphas, and that loss.

    Without `training_loss` it is first order: the weights count as constant. With it, the exact
    gradient of DARTS eq. 7: the weights take one plain step of length `rate` down the training
    loss, and the gradient goes through that step. Losses are means over this process's samples; the
    results are means over all processes.

    Example:
        >>> weight, alpha = (torch.tensor(value, requires_grad=True) for value in (3.0, 2.0))
        >>> validation = lambda weights, alpha: alpha * weights[0]
        >>> training = lambda weights, alpha: (weights[0] - alpha) ** 2
        >>> alpha_gradient(validation, [weight], alpha)[0].item()
        3.0
        >>> round(alpha_gradient(validation, [weight], alpha, training, 0.1)[0].item(), 4)
        3.2
    """
    if training_loss is not None:
        slopes = torch.autograd.grad(
            training_loss(weights, alphas),
            weights,
            create_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        slopes = _mean_over_processes(slopes)
        weights = [weight - rate * slope for weight, slope in zip(weights, slopes, strict=True)]
    loss = validation_loss(weights, alphas)
    (gradient,) = torch.autograd.grad(loss, alphas)
    return processes.mean_of(gradient), processes.mean_of(loss.detach())


def _mean_over_processes(slopes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The step that all processes take together; gradients flow back to each of them."""
    count = processes.world_size()
    if count == 1:
        return slopes
    return tuple(all_reduce(slope) / count for slope in slopes)  # type: ignore[no-untyped-call]


class ConnectionSearch(PairedRecipe):
    """Alternating steps of alphas and weights of an `RdmcSupernet`.

    Attributes:
        model: The supernet.
        space: What may be chosen, and what it costs.
        history: Number of the step and alphas after it, about `HISTORY_ROWS` of them.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path) -> None:
        """Split the training images in two halves.

        Raises:
            ConfigError: A network that has no alphas, or a budget that cannot be met.
            DatasetError: Too few images for two halves.
        """
        if not isinstance(model, RdmcSupernet) or not isinstance(config, SearchConfig):
            raise ConfigError(
                f"recipe 'connection_search' belongs to `derain search`, not to {config.model!r}"
            )
        self.space = SearchSpace(model.config.derived(()), config.keep, config.budget)
        super().__init__(model, config)
        self._halves = [[source.half(half) for source in self.sources] for half in (0, 1)]
        self._objective = Objective(config, model)
        self._forward = processes.wrap(model, config)
        named = {name: value for name, value in model.named_parameters() if name != "alphas"}
        self._weights = named
        self._optimization = Optimization(named.values(), config)
        self._alphas = model.alphas
        self._alpha_optimizer = torch.optim.Adam(
            [model.alphas], lr=config.alpha_lr, betas=ALPHA_BETAS
        )
        self._search = config
        self.history: list[tuple[int, Tensor]] = [(0, model.alphas.detach().clone())]

    def draw(self, step: int, part: range) -> dict[str, NDArray[np.float32]]:
        """Samples `part` of a step's batch of each half: the weights', and `other_` the alphas'."""
        crop, count = self.config.crop_at(step)
        batch: dict[str, NDArray[np.float32]] = {}
        for half, prefix in enumerate(("", "other_")):
            # Other sample numbers than the first half's, so that nothing is drawn alike.
            numbers = range(part.start + half * count, part.stop + half * count)
            rainy, clean = draw_batch(
                self._halves[half],
                self.config.seed,
                step,
                numbers,
                crop,
                flip=self.config.flip,
                rotate=self.config.rotate,
            )
            batch |= {f"{prefix}rainy": rainy, f"{prefix}clean": clean}
        return batch

    def update(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """One step of the alphas, one of the weights; losses, entropies and cost for the log.

        Args:
            batch: What `draw` drew, on the model's device.
            step: Number of this step, from 0.

        Raises:
            TrainingError: A loss is not finite; what it would have changed is left as it was.
        """
        validation = self._move_alphas(batch, step)
        logged = super().update(batch, step)
        every = math.ceil(self.config.steps / HISTORY_ROWS)
        if (step + 1) % every == 0 or step + 1 == self.config.steps:
            self.history.append((step + 1, self._alphas.detach().clone()))
        return logged | validation | self._facts()

    def losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of the weights' half and its terms."""
        clean = batch["clean"]
        derained = self._forward(batch["rainy"]).to(clean.dtype)
        with torch.autocast(clean.device.type, enabled=False):
            return self._objective(derained, clean, batch["rainy"])

    def _move_alphas(self, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        other = {name: batch[f"other_{name}"] for name in ("rainy", "clean")}
        share = len(other["rainy"]) * processes.world_size() / self.config.crop_at(step)[1]
        gradient, loss = alpha_gradient(
            lambda weights, alphas: (
                share * self.loss_of(weights, alphas, other) + self._excess(alphas)
            ),
            list(self._weights.values()),
            self._alphas,
            (lambda weights, alphas: share * self.loss_of(weights, alphas, batch))
            if self._search.second_order
            else None,
            self.config.lr_at(step),
        )
        value = loss.item()
        if not (math.isfinite(value) and gradient.isfinite().all()):
            raise TrainingError(
                f"the alphas' loss of step {step} is {value}; lower `lr` or `alpha_lr`"
            )
        self._alphas.grad = gradient
        self._alpha_optimizer.step()
        return {"alpha_loss": value}

    def loss_of(
        self, weights: Sequence[Tensor], alphas: Tensor, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """Loss of a batch with given weights and alphas; statistics of batch norm stay.

        Args:
            weights: In place of the network's parameters but the alphas, in their order.
            alphas: In place of the network's.
            batch: "rainy" and "clean".
        """
        state = dict(zip(self._weights, weights, strict=True)) | {"alphas": alphas}
        state |= {name: buffer.clone() for name, buffer in self.model.named_buffers()}
        with autocast(self.config, alphas.device):
            derained = functional_call(self.model, state, (batch["rainy"],))
        with torch.autocast(alphas.device.type, enabled=False):
            clean = batch["clean"]
            total, _ = self._objective(derained.to(clean.dtype), clean, batch["rainy"])
        return total

    def _excess(self, alphas: Tensor) -> Tensor:
        """By what share the expected cost exceeds the budget; 0 within it or without one."""
        if not self.space.budget:
            return alphas.new_zeros(())
        return torch.relu(self._expected_cost(alphas) / self.space.budget - 1)

    def _expected_cost(self, alphas: Tensor) -> Tensor:
        """10^9 multiply-adds of the derived network, edges counted with their weights."""
        costs = [[self.space.costs[edge] / GIGA for edge in row] for row in CANDIDATES]
        edges = self.space.keep * alphas.softmax(dim=1) * alphas.new_tensor(costs)
        return self.space.fixed_cost / GIGA + edges.sum()

    @torch.no_grad()
    def _facts(self) -> dict[str, float]:
        shares = self._alphas.softmax(dim=1)
        up, down = (-torch.xlogy(shares, shares).sum(dim=1)).tolist()
        gmac = self._expected_cost(self._alphas).item()
        return {"entropy_up": up, "entropy_down": down, "gmac": gmac}

    def state_dict(self) -> dict[str, Any]:
        """Weights, alphas, both optimizers and the history: all that resuming needs."""
        own = {"alpha_optimizer": self._alpha_optimizer.state_dict(), "history": self.history}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        super().load_state_dict(state)
        self._alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.history = [(step, alphas) for step, alphas in state["history"]]
