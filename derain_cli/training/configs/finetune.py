"""FinetuneConfig: a run that adapts a network to real photos; its fields are the CLI options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derain_cli.training.configs.train import TrainConfig, option

# Table 4 of MOSS: what each of its ablations leaves out.
WITHOUT = ("memory", "self-training", "tv", "skip-connection")


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


@dataclass(frozen=True)
class FinetuneConfig(TrainConfig):
    """One adaptation. What it shares with a training run means the same there."""

    recipe: str = option("online_update", "What happens to one batch.")
    validate_every: int = option(0, "Real photos are scored after each epoch instead.")
    ema: float = option(0.999, "v of eq. 7 of self-training: how slowly the target follows.")

    real: str = option("", "Folder of rainy photos without a truth, here or in --data-root.")
    epochs: int = option(0, "Epochs, instead of --steps; 0 = as many as the steps make.")
    epoch_steps: int = option(
        0, "Steps of an epoch; 0 = one pass over the photos (self-training: the labelled pairs)."
    )
    save_images: str = option("", "Folder for the derained photos of each epoch.")
    tile: int = option(0, "Largest tile when whole photos are derained; 0 = what fits the memory.")

    pseudo_truth: str = option(
        "online", "online (renewed after each epoch) or frozen (the first network's)."
    )
    pseudo_passes: int = option(
        1, "Times the network goes over a photo for its pseudo-truth or -label (papers: 1)."
    )
    # Measured: softmaxed residuals are so even that at 1e-4 the term's gradient is 1e-5 of the
    # content term's; the released code's form has the strength that 8 gives here.
    kl_weight: float = option(
        1e-4, "lambda of eq. 6 of the online update (as published; 8 gives it an effect)."
    )

    labelled: float = option(1.0, "Share of the labelled pairs that self-training sees.")
    warmup_epochs: int = option(10, "Epochs of self-training on labelled pairs alone.")
    labelled_weight: float = option(10.0, "lambda_1 of eq. 12: labelled pairs.")
    noisy_weight: float = option(1.0, "lambda_2 of eq. 12: noisy images with pseudo-labels.")
    alpha: tuple[float, ...] = option(
        (0.5, 1.1), "Range of alpha of eq. 9: how strong the rain added is.", pair=True
    )
    tv_weight: float = option(0.001, "lambda_3 of eq. 12: total variation.")
    without: tuple[str, ...] = option(
        (), "memory, self-training, tv or skip-connection: ablations of Table 4; repeatable."
    )

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            ConfigError: A value of another type or out of its range, quoted with the range.
        """
        super().__post_init__()
        for name in (
            *("epochs", "epoch_steps", "tile", "kl_weight", "warmup_epochs"),
            *("labelled_weight", "noisy_weight", "tv_weight"),
        ):
            self._require(name, getattr(self, name) >= 0, "0 or above")
        self._require("pseudo_passes", self.pseudo_passes >= 1, "1 or above")
        rising = len(self.alpha) == 2 and 0 <= self.alpha[0] <= self.alpha[1]
        self._require("alpha", rising, "two numbers from 0 up, the smaller one first")
        self._require("labelled", 0 < self.labelled <= 1, "above 0, to 1")
        self._require_one_of("recipe", tuple(METHODS))
        self._require_one_of("pseudo_truth", ("online", "frozen"))
        known = all(name in WITHOUT for name in self.without)
        self._require("without", known, f"of {', '.join(WITHOUT)}")

    def model_options(self) -> dict[str, Any]:
        """Fields of the network's config that differ from the published ones.

        Example:
            >>> FinetuneConfig(without=("memory", "tv")).model_options()
            {'use_memory': False}

        Raises:
            ConfigError: No `NAME=VALUE`.
        """
        fields = {"memory": "use_memory", "skip-connection": "skip_connection"}
        absent = {fields[name]: False for name in self.without if name in fields}
        return super().model_options() | absent


def method_values(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields of a method, without those that were given by hand.

    A rate of one's own holds all the time, unless a schedule is given too.

    Example:
        >>> values = method_values("online_update", {"lr": 1e-5})
        >>> values["lr_schedule"], "lr_rates" in values
        ('constant', False)
    """
    values = dict(METHODS[method])
    if "lr" in given or "lr_schedule" in given:
        values = {name: value for name, value in values.items() if not name.startswith("lr")}
        values["lr_schedule"] = "constant"
    if "steps" in given:
        values.pop("epochs", None)
    return {name: value for name, value in values.items() if name not in given}
