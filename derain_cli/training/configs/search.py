"""SearchConfig: a training run that searches RDMC's connections; its fields are the CLI options."""

from dataclasses import dataclass
from typing import Any, ClassVar

from derain_cli.training.configs.fields import changed, option
from derain_cli.training.configs.train import TrainConfig


@dataclass(frozen=True)
class SearchConfig(TrainConfig):
    """One search. What it shares with a training run means the same there."""

    command: ClassVar[str] = "search"
    recipes: ClassVar[tuple[str, ...]] = ("connection_search",)

    model: str = changed(
        TrainConfig,
        "model",
        default="rdmc-supernet",
        help="Network whose connections are searched.",
    )
    recipe: str = changed(TrainConfig, "recipe", default="connection_search")
    steps: int = changed(
        TrainConfig,
        "steps",
        default=5000,
        help="Pairs of steps: one of the alphas, one of the weights.",
    )
    batch_size: int = changed(
        TrainConfig,
        "batch_size",
        default=8,
        help="Crops per step of each half of the data.",
    )
    precision: str = changed(
        TrainConfig,
        "precision",
        one_of=("fp32", "bf16"),
        help="fp32 or bf16 (up to three times faster).",
    )
    freeze_norm_from: float = changed(
        TrainConfig,
        "freeze_norm_from",
        default=1.0,
        help="Share of the steps after which batch norm is measured on whole images and frozen; "
        "1 for never.",
        inherited=False,
    )

    keep: int = option(
        2,
        "Number of edges to keep of each kind, skip-up and skip-down.",
        group="Search",
        least=1,
        most=10,
    )
    budget: float = option(
        0.0,
        "Largest number of GMACs of the result at 256x256; 0 for no limit.",
        group="Search",
        least=0,
    )
    alpha_lr: float = option(
        1e-3, "Learning rate of the alphas; it is constant.", group="Search", above=0
    )
    second_order: bool = option(
        False,
        "Move the alphas through one step of the weights: exact, three times slower.",
        group="Search",
    )

    def model_options(self) -> dict[str, Any]:
        """Fields of the supernet's config that differ from the published ones.

        Example:
            >>> SearchConfig(model_option=("stages=1",), keep=3).model_options()
            {'stages': 1, 'keep': 3}

        Raises:
            ConfigError: No `NAME=VALUE`.
        """
        return super().model_options() | {"keep": self.keep}
