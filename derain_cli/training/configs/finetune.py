"""FinetuneConfig: a run that adapts a network to real photos; its fields are the CLI options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from derain_cli.errors import ConfigError
from derain_cli.training.configs.fields import changed, option, require
from derain_cli.training.configs.train import LOSSES, TrainConfig

# Table 4 of huang2021: what each of its ablations leaves out; `mixing` and `photos` are ours.
WITHOUT = ("memory", "self-training", "tv", "skip-connection", "mixing", "photos")
# What `--real` says for the pairs that `--labelled` leaves out.
REST = "rest"

# Published where a paper says it. HCN names no rate: its release steps through these between
# epochs 6 and 16 of 20, here as shares of 30 epochs; patches of 224, one at a time.
METHODS: Mapping[str, Mapping[str, Any]] = {
    "online_update": {
        "epochs": 30,
        "crop": 224,
        "batch_size": 1,
        "flip": False,
        "lr": 1e-6,
        "lr_schedule": "milestones",
        "lr_milestones": tuple(epoch / 30 for epoch in (8, 10, 12, 14, 16)),
        "lr_rates": (5e-7, 1e-7, 5e-8, 1e-8, 5e-9),
    },
    "self_training": {
        "steps": 100_000,
        "crop": 256,
        "batch_size": 16,
        "flip": True,
        "lr": 1e-4,
        "lr_schedule": "constant",
        "ema": 0.999,
    },
}


# The recipes are this command's methods.
ONLINE, SELF = ("online_update",), ("self_training",)


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """One adaptation. What it shares with a training run means the same there."""

    command: ClassVar[str] = "finetune-real"
    recipes: ClassVar[tuple[str, ...]] = tuple(METHODS)

    recipe: str = changed(TrainConfig, "recipe", default="online_update", one_of=tuple(METHODS))
    ema: float = changed(
        TrainConfig,
        "ema",
        default=0.999,
        help="v of MOSS's eq. 7: how slowly the target network follows.",
        recipes=SELF,
    )

    real: str = option(
        "",
        "Folder of rainy photos without clean images, here or in --data-root; rest takes the "
        "rainy images of the pairs that --labelled leaves out (self-training).",
        group="Photos",
        word="folder",
    )
    epochs: int = changed(
        TrainConfig,
        "epochs",
        help="Epochs, in place of --steps; 0 to go by --steps.",
        group="Photos",
    )
    epoch_steps: int = changed(
        TrainConfig,
        "epoch_steps",
        help="Steps of an epoch; 0 for one pass over the photos (self-training: over the pairs).",
        group="Photos",
    )
    save_images: str = option(
        "", "Save the derained photos of each epoch in this folder.", group="Photos", word="folder"
    )
    tile: int = option(
        0,
        "Largest tile for whole photos; 0 fits the memory.",
        group="Photos",
        least=0,
    )
    pseudo_passes: int = option(
        1,
        "Passes over a photo for its pseudo ground truth.",
        group="Photos",
        least=1,
    )
    without: tuple[str, ...] = option(
        (),
        "Ablation of MOSS: memory, self-training (photos still reach the memory), tv, "
        "skip-connection, mixing (pseudo-labels for the photos as they are) or photos (pairs "
        "alone); repeatable.",
        group="Photos",
        word="name",
        one_of=WITHOUT,
        recipes=SELF,
    )

    pseudo_truth: str = option(
        "online",
        "online (renew the pseudo ground truth after each epoch) or frozen (keep the first).",
        group=LOSSES,
        word="name",
        one_of=("online", "frozen"),
        recipes=ONLINE,
    )
    # Measured: softmaxed residuals are so even that at 1e-4 the term's gradient is 1e-5 of the
    # content term's; the released code's form has the strength that 8 gives here.
    kl_weight: float = option(
        1e-4,
        "lambda of HCN's eq. 6 (1e-4 as published; 8 gives it an effect).",
        group=LOSSES,
        least=0,
        recipes=ONLINE,
    )

    labelled: float = option(
        1.0,
        "Share of the labelled pairs to learn from.",
        group=LOSSES,
        above=0,
        most=1,
        recipes=SELF,
    )
    warmup_epochs: int = option(
        10,
        "Number of first epochs that use labelled pairs alone.",
        group=LOSSES,
        least=0,
        recipes=SELF,
    )
    labelled_weight: float = option(
        10.0,
        "lambda_1 of MOSS's eq. 12, for labelled pairs.",
        group=LOSSES,
        least=0,
        recipes=SELF,
    )
    noisy_weight: float = option(
        1.0,
        "lambda_2 of MOSS's eq. 12, for pseudo-labels.",
        group=LOSSES,
        least=0,
        recipes=SELF,
    )
    alpha: tuple[float, ...] = option(
        (0.5, 1.1),
        "Range of alpha of MOSS's eq. 9: how strong the added rain is.",
        group=LOSSES,
        pair=True,
        least=0,
        recipes=SELF,
    )
    tv_weight: float = option(
        0.001,
        "lambda_3 of MOSS's eq. 12, for total variation.",
        group=LOSSES,
        least=0,
        recipes=SELF,
    )
    sampling: str = option(
        "even",
        "Backgrounds and rain: even (each kind equally often) or union (in proportion to the "
        "numbers of images, as eq. 8-9 print it).",
        group=LOSSES,
        word="name",
        one_of=("even", "union"),
        recipes=SELF,
    )
    memory_update: str = option(
        "all",
        "What the memory learns from: all images, or unlabelled ones.",
        group=LOSSES,
        word="name",
        one_of=("all", "unlabelled"),
        recipes=SELF,
    )
    save: str = option(
        "average",
        "Network to judge and save: average or student.",
        group=LOSSES,
        word="name",
        one_of=("average", "student"),
        recipes=SELF,
    )

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: A value of another type or out of its range, quoted with the range.
        """
        super().__post_init__()
        rising = self.alpha[0] <= self.alpha[1]
        require(self, "alpha", rising, "two numbers from 0 up, the smaller one first")

    def model_options(self) -> dict[str, Any]:
        """Fields of the network's config that differ from the published ones.

        Example:
            >>> without = ("memory", "tv")
            >>> FinetuneConfig(recipe="self_training", without=without).model_options()
            {'use_memory': False}

        Raises:
            ConfigError: No `NAME=VALUE`.
        """
        fields = {"memory": "use_memory", "skip-connection": "skip_connection"}
        absent = {fields[name]: False for name in self.without if name in fields}
        return super().model_options() | absent


# Ours: minutes on two CPU cores.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "online_update": {"crop": 96, "epochs": 2},
    "self_training": {"crop": 64, "batch_size": 4, "steps": 400, "lr": 3e-4, "warmup_epochs": 1},
}


def method_values(method: str, given: Mapping[str, Any], preset: str = "paper") -> dict[str, Any]:
    """Config fields of a method, without those that were given by hand.

    With `quick` in place of `paper`, crops are small and steps few.

    A rate of one's own holds all the time, unless a schedule is given too.

    Example:
        >>> values = method_values("online_update", {"lr": 1e-5})
        >>> values["lr_schedule"], "lr_rates" in values
        ('constant', False)
        >>> method_values("online_update", {"lr_schedule": "cosine"})["lr"]
        1e-06
    """
    if preset not in ("paper", "quick"):
        raise ConfigError(f"unknown preset {preset!r}. Known: paper, quick")
    values = dict(METHODS[method]) | (dict(QUICK[method]) if preset == "quick" else {})
    if {"lr", "lr_schedule", "lr_milestones"} & set(given):
        values = {name: value for name, value in values.items() if not name.startswith("lr_")}
        values["lr_schedule"] = "milestones" if "lr_milestones" in given else "constant"
    if "steps" in given:
        values.pop("epochs", None)
    return {name: value for name, value in values.items() if name not in given}
