"""The loss of a run as a weighted sum of named terms (`--loss NAME:WEIGHT`)."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from derain_cli.errors import ConfigError, did_you_mean
from derain_cli.losses import formulas as losses
from derain_cli.losses.vgg import PERCEPTUAL_LAYER, load_vgg19_features
from derain_cli.losses.weighting import weigh_losses
from derain_cli.models import HasSharedWeight
from derain_cli.training.configs.train import TrainConfig

Term = Callable[[Tensor, Tensor], Tensor]

# What is compared in units of 0..255 keeps the published balance of MENET's losses. (`mse` and
# `l1` are written out: the gradients of their fused forms differ in the last bit, and with them
# the weights that published command lines lead to.)
TERMS: Mapping[str, Term] = {
    "ssim": lambda derained, clean: 1 - losses.ssim(derained, clean),
    "neg-ssim": lambda derained, clean: -losses.ssim(derained, clean),
    "mse": lambda derained, clean: torch.mean((derained - clean) ** 2),
    "l1": lambda derained, clean: torch.mean(torch.abs(derained - clean)),
    "charbonnier": losses.charbonnier,
    "fft": losses.fourier_l1,
    "pixel": lambda derained, clean: losses.menet_losses(derained, clean)["pixel"],
    "edge": losses.edge_aware,
    "texture": losses.texture,
    # Released code of fan-menet: one number for each image in place of its Gram matrix.
    "texture-mean": lambda derained, clean: losses.texture(derained, clean, average_gram=True),
    "tv": lambda derained, clean: losses.total_variation(derained),
}
CONTRASTIVE, PERCEPTUAL = "contrastive", "perceptual"
# These two compare images in the space of VGG-19.
VGG_LOSSES = (CONTRASTIVE, PERCEPTUAL)
LOSSES = (*TERMS, *VGG_LOSSES)
# Shortest side of an image that a term can compare; "pixel" is computed beside "edge".
SHORTEST: Mapping[str, int] = {
    **dict.fromkeys(("ssim", "neg-ssim"), losses.WINDOW),
    **dict.fromkeys(("texture", "texture-mean", PERCEPTUAL), losses.PATCH),
    **dict.fromkeys(("pixel", "edge", "tv"), 2),
    CONTRASTIVE: 16,
}


def parse_loss(terms: tuple[str, ...]) -> dict[str, float]:
    """Weights of the loss terms.

    Example:
        >>> parse_loss(("ssim:1", "mse:0.1"))
        {'ssim': 1.0, 'mse': 0.1}

    Raises:
        ConfigError: An unknown loss or a weight that is no number.
    """
    weights = {}
    for term in terms:
        name, _, weight = term.partition(":")
        if name not in LOSSES:
            raise ConfigError(f"unknown loss {name!r}. {did_you_mean(name, LOSSES)}")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = math.nan
        if not math.isfinite(weights[name]):
            raise ConfigError(f"weight of loss {term!r} is no number; write {name}:1, for example")
    return weights


def require_crops(config: TrainConfig, loss: str, shortest: int) -> None:
    """Refuse crops that are too small for a loss.

    Raises:
        ConfigError: One is; the shortest possible is named.
    """
    for name in ("crop", "final_crop"):
        side = getattr(config, name)
        if 0 < side < shortest:
            raise ConfigError(
                f"`{name}` is {side}; the {loss} loss needs {shortest} pixels or more: take larger "
                "crops or another loss"
            )


class Objective:
    """Loss of a derained image: the terms that have a weight, and their sum."""

    def __init__(self, config: TrainConfig, model: nn.Module) -> None:
        """Read what the terms need.

        Raises:
            ConfigError: An unknown term, crops too small for one, a balanced weighting that cannot
                be, or the contrastive prior without its feature network.
            CheckpointError: A file that does not hold VGG-19.
        """
        override = {} if config.contrastive is None else {CONTRASTIVE: config.contrastive}
        weights = parse_loss(config.loss) | override
        self._weights = {name: weight for name, weight in weights.items() if weight != 0}
        if not self._weights:
            raise ConfigError("no loss has a weight; give `loss`, for instance `loss` l1:1")
        for name in self._weights:
            require_crops(config, name, SHORTEST.get(name, 1))
        self._weighting = config.loss_weighting
        self._shared_weight = _shared_weight(config, model, len(self._weights))
        asked = [name for name in VGG_LOSSES if name in self._weights]
        self._features = _features(config, model, asked[0]) if asked else None

    def __call__(
        self, derained: Tensor, clean: Tensor, rainy: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss, and its parts before weighting (for the log).

        Args:
            derained: `(batch, 3, height, width)`, float32, the network's result.
            clean: The same without rain, in 0..1.
            rainy: What the network was given.
        """
        parts = {name: self._term(name, derained, clean, rainy) for name in self._weights}
        if self._weighting == "fixed":
            total = torch.stack([self._weights[name] * part for name, part in parts.items()]).sum()
            return total, parts
        tasks = {name: self._weights[name] * part for name, part in parts.items()}
        total, shares = weigh_losses(tasks, self._weighting, shared_weight=self._shared_weight)
        return total, parts | {f"weight_{name}": share for name, share in shares.items()}

    def _term(self, name: str, derained: Tensor, clean: Tensor, rainy: Tensor) -> Tensor:
        if name not in VGG_LOSSES:
            return TERMS[name](derained, clean)
        assert self._features is not None
        if name == PERCEPTUAL:
            maps = partial(self._features, layers=(PERCEPTUAL_LAYER,))
            return losses.perceptual(derained, clean, maps)
        return losses.contrastive_prior(derained, clean, rainy, self._features)


def _shared_weight(config: TrainConfig, model: nn.Module, terms: int) -> Tensor | None:
    """The last convolution's weight, for balance by gradients."""
    weighting = config.loss_weighting
    if weighting != "fixed" and terms < 2:
        raise ConfigError(f"`loss_weighting` {weighting} needs two losses or more, not {terms}")
    if weighting != "fixed" and config.accumulate > 1:
        raise ConfigError(
            f"`loss_weighting` {weighting} compares the losses of a whole batch, and `accumulate` "
            "computes it in parts; leave one of the two out"
        )
    if weighting != "gb":
        return None
    if config.compile:
        raise ConfigError("`loss_weighting` gb cannot be compiled; leave `compile` out")
    if not isinstance(model, HasSharedWeight):
        raise ConfigError(
            f"`loss_weighting` gb needs the last convolution of a network, which {config.model!r} "
            "does not name (menet does); use lb or fixed"
        )
    return model.last_shared_weight


def _features(config: TrainConfig, model: nn.Module, asked: str) -> nn.Module:
    if not config.vgg:
        without = "`contrastive` 0" if asked == CONTRASTIVE else f"`loss` {asked}:0"
        raise ConfigError(
            f"the {asked} loss needs VGG-19's weights: give `vgg` FILE (model.safetensors of "
            f"timm/vgg19.tv_in1k), or train without it ({without})"
        )
    return load_vgg19_features(config.vgg).to(next(model.parameters()).device)
