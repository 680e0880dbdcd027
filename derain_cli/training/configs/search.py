"""SearchConfig: a training run that searches RDMC's connections; its fields are the CLI options."""

from dataclasses import dataclass
from typing import Any

from derain_cli.training.configs.train import TrainConfig, option


@dataclass(frozen=True)
class SearchConfig(TrainConfig):
    """One search. What it shares with a training run means the same there."""

    model: str = option("rdmc-supernet", "Network whose connections are searched.")
    recipe: str = option("connection_search", "What happens to one batch.")
    steps: int = option(5000, "Pairs of steps: one of the alphas, one of the weights.")
    batch_size: int = option(8, "Crops per step and half of the training set.")
    freeze_norm_from: float = option(
        1.0,
        "Share of the steps after which batch-norm statistics are gathered on whole images and "
        "frozen; 1 = never.",
    )

    keep: int = option(2, "Edges to keep of each kind, skip-up and skip-down.")
    budget: float = option(
        0.0, "Most multiply-adds of the found network at 256x256, in 10^9 (GMAC); 0 = no limit."
    )
    alpha_lr: float = option(1e-3, "Learning rate of the alphas, constant.")
    second_order: bool = option(
        False,
        "Look through one step of the weights when the alphas move (exact, three times slower).",
    )

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: A value of another type or out of its range, quoted with the range.
        """
        super().__post_init__()
        self._require("keep", 1 <= self.keep <= 10, "from 1 to 10")
        self._require("budget", self.budget >= 0, "0 or above")
        self._require("alpha_lr", self.alpha_lr > 0, "above 0")
        self._require_one_of("precision", ("fp32", "bf16"))

    def model_options(self) -> dict[str, Any]:
        """Fields of the supernet's config that differ from the published ones.

        Example:
            >>> SearchConfig(model_option=("stages=1",), keep=3).model_options()
            {'stages': 1, 'keep': 3}

        Raises:
            ConfigError: No `NAME=VALUE`.
        """
        return super().model_options() | {"keep": self.keep}
