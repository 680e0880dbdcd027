"""Each paper's published settings, with where each number stands.

`paper` is what was published for a network; `quick` the same idea in minutes on two CPU cores;
`wide-rain` the fifth paper's use of its own finding, for any network: few backgrounds, rain of
many kinds.

Sources read "paper, place": HCN = Wang et al., AAAI 2022; MOSS = Huang et al., CVPR 2021; RDMC =
Jiang et al., TCSVT 2023; MENET = Fan et al.; study = Gu et al., NeurIPS 2023. "release" is a fact
read off that paper's released code, taken where the paper is silent. "ours" was published nowhere.
Epochs are turned into steps by the size of the paper's own training set.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derain_cli.errors import ConfigError, did_you_mean
from derain_cli.training.configs.fields import facts, names, unused
from derain_cli.training.configs.train import TrainConfig

# These fields say what to train on: whoever names data of their own wants none of a preset's.
DATA_FIELDS = names(TrainConfig, lambda option: option.yields_to)


@dataclass(frozen=True)
class Setting:
    """A field's value and where it stands."""

    value: Any
    source: str


Preset = Mapping[str, Setting]


def _settings(source: str, **values: Any) -> dict[str, Setting]:  # noqa: ANN401 (config fields)
    """Settings that have one source."""
    return {name: Setting(value, source) for name, value in values.items()}


HCN_PAPER = {
    **_settings("HCN, title", recipe="collaborative"),
    **_settings(
        "HCN, Datasets: Rain200H, the set of its ablations (also Rain200L, Rain1200, Rain1400)",
        dataset=("rain200h_train",),
    ),
    **_settings("HCN, Implementation Details", crop=128, batch_size=12, lr=5e-4),
    **_settings("HCN, Implementation Details: 500 epochs of 150 steps on 1800 pairs", steps=75_000),
    **_settings(
        "HCN, Implementation Details: x 0.1 at epochs 300 and 400",
        lr_schedule="milestones",
        lr_milestones=(0.6, 0.8),
        lr_factor=0.1,
    ),
    **_settings("HCN, eq. 2: alpha", output_weights=(1.0, 1.0, 1.0)),
    **_settings("HCN, eq. 3: beta", scale_weights=(0.05, 0.001)),
    **_settings("HCN release: no augmentation, for a fair comparison", flip=False),
    **_settings("HCN release: Adam's defaults", betas=(0.9, 0.999)),
    **_settings("HCN release", seed=66),
}

MOSS_PAPER = {
    **_settings("MOSS, section 3.2.1: eq. 6, the part that learns from pairs", loss=("l1:1",)),
    **_settings("MOSS, section 4.4: Rain200H", dataset=("rain200h_train",)),
    **_settings("MOSS, section 4.2", crop=256, batch_size=16, lr=1e-4, lr_schedule="constant"),
    **_settings("MOSS, section 4.2: about 100,000 iterations", steps=100_000),
    **_settings("MOSS release: horizontal flips, p = 0.5", flip=True),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
}

RDMC_PAPER = {
    **_settings("RDMC, title and eq. 10", recipe="supervised"),
    **_settings("RDMC, section IV-A", crop=128, batch_size=8, lr=1e-3),
    **_settings("RDMC, section IV-A: 150 + 100 epochs of 750 steps on 6000 patches", steps=187_500),
    **_settings(
        "RDMC, section IV-A: to 20 % after 30, 50, 80 of 150 epochs; again from 1e-4 in 100 more",
        lr_schedule="milestones",
        lr_milestones=(0.12, 0.2, 0.32, 0.6, 0.72, 0.8, 0.92),
        lr_rates=(2e-4, 4e-5, 8e-6, 1e-4, 2e-5, 4e-6, 8e-7),
    ),
    **_settings(
        "RDMC, section IV-A: gamma_1 = gamma_2 = 0.1 of eq. 10, on the last stage",
        loss=("ssim:1", "mse:0.1", "contrastive:0.1"),
    ),
    **_settings("RDMC says nothing of augmentation", flip=False),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
    **_settings(
        "ours: frozen where the paper's fine-tuning begins (crops' statistics fit no whole "
        "image: measured 30.8 against 34.4 dB)",
        freeze_norm_from=0.6,
    ),
}

MENET_PAPER = {
    **_settings("MENET, section IV-A: Rain100L's 200 training pairs", dataset=("rain100l_train",)),
    **_settings("MENET, section IV-A; size by the release", crop=224),
    **_settings("MENET, section IV-A: corners and middle, each also mirrored", crops="ten"),
    **_settings("MENET, section IV-A: the mirrored crops are all", flip=False),
    **_settings("MENET release", batch_size=20),
    **_settings("MENET, section IV-B", lr=1e-3),
    **_settings("MENET, section IV-B: 100 epochs of 100 steps on 2000 crops", steps=10_000),
    **_settings(
        "MENET, section IV-B: x 0.1 at epoch 40; the release again at 80",
        lr_schedule="milestones",
        lr_milestones=(0.4, 0.8),
        lr_factor=0.1,
    ),
    **_settings(
        "MENET, eq. 2: pixel (eq. 4), edge (eq. 6) and texture (eq. 8), in units of 0..255",
        loss=("pixel:1", "edge:1", "texture:1"),
    ),
    **_settings("MENET, Table I: GB is best on Rain100L (lb on Rain100H)", loss_weighting="gb"),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
    **_settings("ours: frozen after the last drop of the rate", freeze_norm_from=0.8),
}

STUDY = {
    **_settings("study, sections 2.1 and E.2: patches of 128x128", crop=128),
    **_settings(
        "study, section E.2",
        batch_size=16,
        lr=2e-4,
        betas=(0.9, 0.99),
        steps=250_000,
        lr_schedule="cosine",
    ),
    **_settings("study, section E.2 names none; that of BasicSR, its framework", lr_min=1e-7),
    **_settings("study, section 2.1", loss=("l1:1",)),
    **_settings("study says nothing of augmentation", flip=False),
}

STUDY_PAPER = {
    **STUDY,
    **_settings("study, section 2.1: the largest set", backgrounds=30_000),
    **_settings("study, section 3.1: where no range is named", rain=("medium",)),
}

WIDE_RAIN = {
    **STUDY,
    **_settings("study, section 2.1: O and B are all that is compared", recipe="supervised"),
    **_settings(
        "study, section 3.1: rain removal holds up to 512 with large rain", backgrounds=512
    ),
    **_settings("study, Table 1: large", rain=("large",)),
}

QUICK = "ours: minutes on two CPU cores"

QUICK_COMMON = _settings(
    QUICK,
    crop=64,
    batch_size=8,
    lr_schedule="cosine",
    lr_milestones=(),
    lr_rates=(),
    warmup=20,
    validate_every=250,
    save_every=100,
    seed=0,
)

NO_CONTRAST = _settings("ours: no VGG-19 needed", loss=("ssim:1", "mse:0.1"))

FREEZE_EARLY = _settings(
    "ours: few steps; statistics of small crops do not fit whole images",
    freeze_norm_from=0.45,
)

EASIER_START = _settings("ours: faster in few steps", lr=1e-3)
MOSS_START = _settings("ours: faster in few steps; at 1e-3 its tanh was stuck at black", lr=3e-4)


def _quick(paper: Preset, **values: Any) -> dict[str, Setting]:  # noqa: ANN401 (config fields)
    """The paper's preset, cut down; data are the caller's own."""
    kept = {name: setting for name, setting in paper.items() if name not in DATA_FIELDS}
    return {**kept, **QUICK_COMMON, **_settings(QUICK, **values)}


MENET_QUICK = {**_quick(MENET_PAPER, steps=2000, crop=96, lr=1e-3), **FREEZE_EARLY}

PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "hcn": {
        "paper": HCN_PAPER,
        "quick": _quick(HCN_PAPER, steps=300, batch_size=4),
        "wide-rain": WIDE_RAIN,
    },
    "moss": {
        "paper": MOSS_PAPER,
        "quick": {**_quick(MOSS_PAPER, steps=1500), **MOSS_START},
        "wide-rain": WIDE_RAIN,
    },
    "rdmc": {
        "paper": RDMC_PAPER,
        "quick": {**_quick(RDMC_PAPER, steps=1500), **NO_CONTRAST, **FREEZE_EARLY},
        "wide-rain": WIDE_RAIN,
    },
    "menet": {"paper": MENET_PAPER, "quick": MENET_QUICK, "wide-rain": WIDE_RAIN},
    "menet-deep": {"paper": MENET_PAPER, "quick": MENET_QUICK, "wide-rain": WIDE_RAIN},
    "resnet": {
        "paper": STUDY_PAPER,
        "quick": {**_quick(STUDY_PAPER, steps=800, batch_size=4), **EASIER_START},
        "wide-rain": WIDE_RAIN,
    },
    "unet": {
        "paper": STUDY_PAPER,
        "quick": {**_quick(STUDY_PAPER, steps=1000), **EASIER_START},
        "wide-rain": WIDE_RAIN,
    },
    "swinir": {
        "paper": STUDY_PAPER,
        "quick": {**_quick(STUDY_PAPER, steps=300, batch_size=4), **EASIER_START},
        "wide-rain": WIDE_RAIN,
    },
}


def find_preset(model: str, name: str) -> Preset:
    """Settings of a network's preset.

    Raises:
        ConfigError: Unknown network or preset; the nearest is suggested.
    """
    if model not in PRESETS:
        raise ConfigError(f"no presets for model {model!r}. {did_you_mean(model, PRESETS)}")
    if name not in PRESETS[model]:
        hint = did_you_mean(name, PRESETS[model])
        raise ConfigError(f"unknown preset {name!r} of model {model!r}. {hint}")
    return PRESETS[model][name]


def preset_values(model: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields of a preset, without those that were given by hand or that no one would use.

    Data given by hand replace all of a preset's; a recipe given by hand uses what it uses.

    Example:
        >>> values = preset_values("unet", "paper", {"dataset": ("mine",), "crop": 64})
        >>> sorted(values)  # doctest: +ELLIPSIS
        ['batch_size', 'betas', 'flip', 'loss', 'lr', ...]
    """
    settings = find_preset(model, name)
    values = {field: setting.value for field, setting in settings.items()}
    recipe = {**values, **given}.get("recipe", TrainConfig.recipe)
    dropped = {*given, *unused(TrainConfig, recipe)}
    dropped |= {
        item.name
        for item in dataclasses.fields(TrainConfig)
        if set(facts(item).yields_to) & set(given)
    }
    return {field: value for field, value in values.items() if field not in dropped}


def explain(
    config: TrainConfig, name: str | None, given: Mapping[str, Any], file: str = "default"
) -> list[tuple[str, Any, str]]:
    """(field, value, source) of every field of a config, in the order of the fields.

    Args:
        config: What the run will use.
        name: Of the preset, if one was named.
        given: Fields that were given by hand.
        file: What the other fields were read from, if they were.
    """
    settings = find_preset(config.model, name) if name else {}
    used = preset_values(config.model, name, given) if name else {}
    plain = type(config)()
    idle = unused(type(config), config.recipe)
    rows = []
    for item in dataclasses.fields(config):
        if item.name in idle:
            source = f"not used by recipe {config.recipe!r}"
        elif item.name in given:
            source = "given"
        elif item.name in used:
            source = settings[item.name].source
        else:
            source = "default" if getattr(config, item.name) == getattr(plain, item.name) else file
        rows.append((item.name, getattr(config, item.name), source))
    return rows
