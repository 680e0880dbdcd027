"""One optimisation step: schedule, mixed precision, clipping, a guard against NaN, averaging.

Every recipe has one `Optimization` per set of parameters it trains.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from derain_cli.errors import ConfigError, TrainingError
from derain_cli.training import processes
from derain_cli.training.configs.train import TrainConfig
from derain_cli.training.muon import Muon

HALF_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which the network computes in the run's precision.

    Raises:
        ConfigError: fp16 without a CUDA device.
    """
    if config.precision == "fp16" and device.type != "cuda":
        raise ConfigError(f"`precision` fp16 needs a CUDA device, not {device.type}; use bf16")
    half = HALF_TYPES.get(config.precision)
    return torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None)


def to_device(images: NDArray[np.float32] | Tensor, device: torch.device) -> Tensor:
    """`(batch, 3, height, width)` on a device, in the memory format that its kernels like best."""
    tensor = torch.as_tensor(images).to(device)
    return tensor.contiguous(memory_format=torch.channels_last)


class Optimization:
    """Adam or Muon on parameters, with the schedule, precision and clipping of the config."""

    def __init__(self, parameters: Iterable[nn.Parameter], config: TrainConfig) -> None:
        self._parameters = list(parameters)
        self._config = config
        self._optimizer = _optimizer(self._parameters, config)
        self._scaler = torch.amp.GradScaler("cuda", enabled=config.precision == "fp16")
        self._added: list[Tensor] = []

    def add(self, total: Tensor, parts: Mapping[str, Tensor], step: int, samples: int) -> None:
        """Add the gradient of a part of a batch; `step` takes the step, with the last part.

        Args:
            total: The loss, a mean over the part's samples.
            parts: More values for the log.
            step: Number of this step, from 0.
            samples: Number of samples of the part. Gradients are averaged over the processes
                as if all had the same number, so a share of another size is scaled.
        """
        if not self._added:
            self._optimizer.zero_grad(set_to_none=True)
        # 1 unless the processes, or the parts of an accumulated batch, share the batch.
        share = samples * processes.world_size() / self._config.crop_at(step)[1]
        scaled = self._scaler.scale(total if share == 1 else share * total)
        scaled.backward()  # type: ignore[no-untyped-call]
        values = [total.detach(), *(part.detach() for part in parts.values())]
        self._added.append(share * torch.stack(values))

    def step(
        self, total: Tensor, parts: Mapping[str, Tensor], step: int, samples: int
    ) -> dict[str, float]:
        """Take one step down the gradient; returns the loss and its parts, for the log.

        Args:
            total: The loss, a mean over the samples of the batch, or of its last part.
            parts: More values for the log.
            step: Number of this step, from 0; it decides the learning rate.
            samples: Number of samples, as for `add`.

        Raises:
            TrainingError: Loss or gradient is not finite; the parameters are left as they were.
        """
        for group in self._optimizer.param_groups:
            # Less than 1 after a collapse; it lies in the group because it must outlive a resume.
            group["lr"] = self._config.lr_at(step) * group.get("rate_share", 1.0)
        self.add(total, parts, step, samples)
        logged, self._added = torch.stack(self._added).sum(dim=0), []
        # One message to the other processes, and one wait for the device, for all values.
        loss, *values = processes.mean_of(logged).tolist()
        # Before `unscale_`: the scaler takes it once a step, and the trainer goes on after a raise.
        self._check_finite("loss", loss, step)
        # Clipping compares true gradients, not those that fp16's scaler enlarged.
        self._scaler.unscale_(self._optimizer)
        norm = self._gradient_norm()
        if self._config.precision != "fp16":  # the scaler of fp16 skips such a step by itself
            self._check_finite("gradient norm", float(norm), step)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return {"loss": loss} | dict(zip(parts, values, strict=True))

    def _gradient_norm(self) -> Tensor:
        """Norm of the gradient before it is clipped."""
        limit = self._config.clip_gradient or math.inf
        if limit < math.inf:
            return nn.utils.clip_grad_norm_(self._parameters, limit)
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        return nn.utils.get_total_norm(gradients)

    @staticmethod
    def _check_finite(what: str, value: float, step: int) -> None:
        if not math.isfinite(value):
            raise TrainingError(f"the {what} of step {step} is {value}; lower `lr`")

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        state = self._optimizer.state_dict()
        return state | ({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        if "scaler" in state:
            self._scaler.load_state_dict(state["scaler"])
        self._optimizer.load_state_dict({k: v for k, v in state.items() if k != "scaler"})


def _optimizer(parameters: list[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "muon":
        return Muon(parameters, config.lr, config.betas)
    # Fused: a loop over the tensors in Python costs a small network 7 % of its CPU step.
    return torch.optim.Adam(
        parameters, lr=config.lr, betas=(config.betas[0], config.betas[1]), fused=True
    )


class MovingAverage:
    """A network whose weights follow another's: `average = decay x average + (1 - decay) x new`.

    Buffers (MOSS's memory, batch-norm statistics) follow too. At first the decay is
    `(1 + step) / (10 + step)`, so that the random weights of the start are soon forgotten.

    Attributes:
        network: The average, in eval mode.
    """

    def __init__(self, model: nn.Module, decay: float, *, young: bool = True) -> None:
        self.network = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay, self._young = decay, young

    @torch.no_grad()
    def follow(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after step number `step`."""
        ramp = (1 + step) / (10 + step) if self._young else 1.0
        share = 1 - min(self._decay, ramp)
        for old, new in zip(
            self.network.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if old.is_floating_point():
                old.lerp_(new, share)
            else:
                old.copy_(new)
