"""Each paper's published settings, with where each number stands.

`paper` is what was published for a network; `quick` the same idea in minutes on two CPU cores;
`wide-rain` what gu2023 found, for any network: few backgrounds, rain of many kinds. `searched` of
rdmc is the second half of its training, which starts from the weights of a search.

Sources read "paper, place", with the papers' citation keys: wang2022 (HCN), huang2021 (MOSS),
jiang2023 (RDMC), fan-menet (MENET), ren2019 (PReNet), gu2023 ("Networks are Slacking Off").
"release" is a fact read off that paper's released code, taken where the paper is silent. "ours" was
published nowhere. Where a paper counts epochs, so does its preset: steps follow from the data that
is really used.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derain_cli.datasets.known import dataset_named
from derain_cli.errors import ConfigError, did_you_mean
from derain_cli.models import MODELS
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
    **_settings("wang2022, title", recipe="collaborative"),
    **_settings(
        "wang2022, Datasets: Rain200H, of its ablations (also Rain200L, Rain1200, Rain1400)",
        dataset=("rain200h_train",),
    ),
    **_settings("wang2022, Implementation Details", crop=128, batch_size=12, lr=5e-4),
    **_settings(
        "wang2022, Implementation Details: 500 epochs, 150 steps each on 1800 pairs", epochs=500
    ),
    **_settings(
        "wang2022, Implementation Details: x 0.1 at epochs 300 and 400",
        lr_schedule="milestones",
        lr_milestones=(0.6, 0.8),
        lr_factor=0.1,
    ),
    **_settings("wang2022, eq. 2: alpha", output_weights=(1.0, 1.0, 1.0)),
    **_settings("wang2022, eq. 3: beta", scale_weights=(0.05, 0.001)),
    **_settings("wang2022 release: no augmentation, for a fair comparison", flip=False),
    **_settings("wang2022 release: Adam's defaults", betas=(0.9, 0.999)),
    **_settings("wang2022 release", seed=66),
}

MOSS_PAPER = {
    **_settings("huang2021, section 3.2.1: eq. 6, the part that learns from pairs", loss=("l1:1",)),
    **_settings("huang2021, section 4.4: Rain200H", dataset=("rain200h_train",)),
    **_settings("huang2021, section 4.2", crop=256, batch_size=16, lr=1e-4, lr_schedule="constant"),
    **_settings("huang2021, section 4.2: about 100,000 iterations", steps=100_000),
    **_settings("huang2021 release: horizontal flips, p = 0.5", flip=True),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
}

RDMC_PAPER = {
    **_settings("jiang2023, title and eq. 10", recipe="supervised"),
    **_settings("jiang2023, section IV-A", crop=128, batch_size=8, lr=1e-3),
    **_settings(
        "jiang2023, section IV-A: 150 epochs of 375 steps (search on halves of 6000 patches), then "
        "100 of 750 on all",
        steps=131_250,
    ),
    **_settings(
        "jiang2023, section IV-A: to 20 % after 30, 50, 80 of 150 epochs; then from 1e-4 in 100",
        lr_schedule="milestones",
        lr_milestones=tuple(
            round(step / 131_250, 6)
            for step in (11_250, 18_750, 30_000, 56_250, 78_750, 93_750, 116_250)
        ),
        lr_rates=(2e-4, 4e-5, 8e-6, 1e-4, 2e-5, 4e-6, 8e-7),
    ),
    **_settings(
        "jiang2023, section IV-A: gamma_1 = gamma_2 = 0.1 of eq. 10, on the last stage",
        loss=("ssim:1", "mse:0.1", "contrastive:0.1"),
    ),
    **_settings("jiang2023 says nothing of augmentation", flip=False),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
    **_settings(
        "ours: frozen where the paper's fine-tuning begins (crops' statistics do not fit whole "
        "images: measured 30.8 against 34.4 dB)",
        freeze_norm_from=round(56_250 / 131_250, 6),
    ),
}

# The second half of the above, for the network that a search found (train --weights SEARCH_RUN).
RDMC_SEARCHED = {
    **RDMC_PAPER,
    **_settings("jiang2023, section IV-A: 100 epochs of 750 steps", epochs=100, epoch_steps=750),
    **_settings(
        "jiang2023, section IV-A: from 1e-4, to 20 % after 30, 50 and 80 epochs",
        lr=1e-4,
        lr_milestones=(0.3, 0.5, 0.8),
        lr_rates=(),
        lr_factor=0.2,
    ),
    **_settings("ours: keeps the statistics that the search ended with", freeze_norm_from=0.0),
}
RDMC_SEARCH = {
    **_settings("jiang2023, section IV-A", crop=128, batch_size=8, lr=1e-3),
    **_settings("jiang2023, section IV-A: 150 epochs of 375 steps", epochs=150, epoch_steps=375),
    **_settings(
        "jiang2023, section IV-A: to 20 % after 30, 50 and 80 epochs",
        lr_schedule="milestones",
        lr_milestones=(0.2, 0.333333, 0.533333),
        lr_factor=0.2,
    ),
    **_settings("jiang2023, section IV-A: eq. 10", loss=("ssim:1", "mse:0.1", "contrastive:0.1")),
    **_settings("jiang2023 says nothing of augmentation", flip=False),
}


MENET_PAPER = {
    **_settings(
        "fan-menet, section IV-A: Rain100L's 200 training pairs", dataset=("rain100l_train",)
    ),
    **_settings("fan-menet, section IV-A; size by the release", crop=224),
    **_settings("fan-menet, section IV-A: corners and middle, each also mirrored", crops="ten"),
    **_settings("fan-menet, section IV-A: no mirroring but that of the ten crops", flip=False),
    **_settings("fan-menet release", batch_size=20),
    **_settings("fan-menet, section IV-B", lr=1e-3),
    **_settings("fan-menet, section IV-B: 100 epochs, 100 steps each on 2000 crops", epochs=100),
    **_settings(
        "fan-menet, section IV-B: x 0.1 at epoch 40; the release again at 80",
        lr_schedule="milestones",
        lr_milestones=(0.4, 0.8),
        lr_factor=0.1,
    ),
    **_settings(
        "fan-menet, eq. 2: pixel (eq. 4), edge (eq. 6) and texture (eq. 8), in units of 0..255",
        loss=("pixel:1", "edge:1", "texture:1"),
    ),
    **_settings("fan-menet, Table I: GB is best on Rain100L (lb on Rain100H)", loss_weighting="gb"),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
    **_settings("ours: frozen after the last drop of the rate", freeze_norm_from=0.8),
}

PRENET_PAPER = {
    **_settings("ren2019, title: one network on pairs", recipe="supervised"),
    **_settings("ren2019, section 4: Rain100H's training pairs", dataset=("rain100h_train",)),
    **_settings("ren2019, section 4", crop=100, batch_size=18, lr=1e-3),
    **_settings(
        "ren2019, section 4: x 0.2 after 30, 50 and 80 of 100 epochs",
        lr_schedule="milestones",
        lr_milestones=(0.3, 0.5, 0.8),
        lr_factor=0.2,
    ),
    **_settings("ren2019, eq. 7: negative SSIM on the last stage", loss=("ssim:1",)),
    **_settings("ours: the paper does not say how many patches an epoch has", steps=100_000),
    **_settings("ren2019 says nothing of augmentation", flip=False),
    **_settings("not published: Adam's defaults", betas=(0.9, 0.999)),
}

STUDY = {
    **_settings("gu2023, sections 2.1 and E.2: patches of 128x128", crop=128),
    **_settings(
        "gu2023, section E.2",
        batch_size=16,
        lr=2e-4,
        betas=(0.9, 0.99),
        steps=250_000,
        lr_schedule="cosine",
    ),
    **_settings("gu2023, section E.2 names none; from BasicSR, its framework", lr_min=1e-7),
    **_settings("gu2023, section 2.1", loss=("l1:1",)),
    **_settings("gu2023 says nothing of augmentation", flip=False),
}

STUDY_PAPER = {
    **STUDY,
    **_settings("gu2023, section 2.1: the largest set", backgrounds=30_000),
    **_settings("gu2023, section 3.1: where no range is named", rain=("medium",)),
}

WIDE_RAIN = {
    **STUDY,
    **_settings("gu2023, section 2.1: O and B are all that is compared", recipe="supervised"),
    **_settings(
        "gu2023, section 3.1: rain removal holds up to 512 with large rain", backgrounds=512
    ),
    **_settings("gu2023, Table 1: large", rain=("large",)),
}

OURS = "ours: nimbus has no paper; measured in its file"
NIMBUS = {
    **_settings(
        "ours: pairs of every kind at hand",
        dataset=(
            "rain100l_train:3",
            "rain800_train:1.5",
            "rain200h_sample:1",
            "rain200h_more:1",
        ),
    ),
    **_settings(
        "ours: clean photos, small and large",
        clean=(
            "bsds_clean",
            "rain100l_train",
            "photos_cc0",
        ),
    ),
    **_settings(
        "ours: rain of every kind; what looks like rain, under rain and dry",
        rain=(
            "heavy:2",
            "pairs:rain100l_train:1",
            "pairs:rain200h_sample:3",
            "pairs:rain200h_more:2.2",
            "large:0.6",
            "streaks:streaks:0.5",
            "streaks:streaks_more:0.5",
            "mixed:streaks,streaks_more,pairs:rain200h_sample:0.7",
            "phone+wide:1",
            "wide:0.4",
            "veil+wide:0.5",
            "veil+dense:0.5",
            "phone+veil+dense:0.7",
            "phone+dense:0.3",
            "phone+veil+curtain:0.8",
            "veil+curtain:0.6",
            "zoom+veil+curtain:2",
            "zoom+veil+dense:1.5",
            "zoom+curtain:0.6",
            "zoom+dense:0.4",
            "zoom+wide:0.4",
            "zoom+veil+heavy:0.4",
            "zoom+structures+curtain:0.3",
            "zoom+structures:0.15",
            "zoom:0.1",
            "structures+curtain:0.2",
            "structures+wide:0.5",
            "structures+dense:0.4",
            "slanted:0.3",
            "veil+slanted:0.7",
            "phone+veil+slanted:0.8",
            "zoom+veil+slanted:1",
            "structures+slanted:0.4",
            "coarse:0.3",
            "veil+coarse:0.8",
            "phone+veil+coarse:1.2",
            "zoom+veil+coarse:1",
            "structures+coarse:0.4",
            "phone+drops:0.2",
            "phone+structures:0.25",
            "structures:0.3",
            "phone:0.2",
            "dry:0.3",
        ),
    ),
    **_settings("ours: some photos are in several sets", hold_out_by="photo", held_out=6),
    **_settings(
        "ours: norm-free networks collapsed at a rate of 1e-3, a clip of 1 and betas of 0.999",
        lr=8e-4,
        clip_gradient=0.5,
        betas=(0.9, 0.99),
        warmup=300,
    ),
    **_settings(OURS, loss=("ssim:1", "l1:1"), optimizer="muon", ema=0.999),
    **_settings(OURS, steps=300_000, batch_size=16, crop=64),
    **_settings("ours: structure shows in its surroundings", final_crop=128, final_from=0.4),
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
    left_out = (*DATA_FIELDS, "epochs", "epoch_steps")
    kept = {name: setting for name, setting in paper.items() if name not in left_out}
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
        "searched": RDMC_SEARCHED,
        "wide-rain": WIDE_RAIN,
    },
    "rdmc-supernet": {
        "paper": RDMC_SEARCH,
        "quick": {**_quick(RDMC_SEARCH, steps=1000), **NO_CONTRAST},
    },
    "menet": {"paper": MENET_PAPER, "quick": MENET_QUICK, "wide-rain": WIDE_RAIN},
    "menet-deep": {"paper": MENET_PAPER, "quick": MENET_QUICK, "wide-rain": WIDE_RAIN},
    "prenet": {
        "paper": PRENET_PAPER,
        "quick": _quick(PRENET_PAPER, steps=800, batch_size=4),
        "wide-rain": WIDE_RAIN,
    },
    "nimbus": {
        "paper": NIMBUS,
        "quick": {**_quick(NIMBUS, steps=800), **EASIER_START},
        "wide-rain": WIDE_RAIN,
    },
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


# What a network has whose paper's settings nobody has entered (yet): those of gu2023 need none.
FOR_ANY_NETWORK: Mapping[str, Preset] = {
    "quick": {**_quick(STUDY_PAPER, steps=1000), **EASIER_START},
    "wide-rain": WIDE_RAIN,
}


def find_preset(model: str, name: str) -> Preset:
    """Settings of a network's preset.

    Raises:
        ConfigError: Unknown network or preset; the nearest is suggested.
    """
    if model not in MODELS:
        raise ConfigError(f"no presets for model {model!r}. {did_you_mean(model, MODELS)}")
    known = PRESETS.get(model, FOR_ANY_NETWORK)
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"unknown preset {name!r} of model {model!r}. {hint}")
    return known[name]


def preset_values(model: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Config fields of a preset, without those that were given by hand or that no one would use.

    Data given by hand replace all of a preset's; a recipe given by hand uses what it uses.

    Example:
        >>> values = preset_values("unet", "paper", {"dataset": ("mine",), "crop": 64})
        >>> sorted(values)  # doctest: +ELLIPSIS
        ['batch_size', 'betas', 'flip', 'loss', 'lr', ...]
    """
    settings = dict(find_preset(model, name)) | _own_of_data(model, name, given)
    values = {field: setting.value for field, setting in settings.items()}
    recipe = {**values, **given}.get("recipe", TrainConfig.recipe)
    dropped = {*given, *unused(TrainConfig, recipe)}
    dropped |= {
        item.name
        for item in dataclasses.fields(TrainConfig)
        if set(facts(item).yields_to) & set(given)
    }
    return {field: value for field, value in values.items() if field not in dropped}


def _own_of_data(model: str, name: str, given: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings that a paper has for one of its data sets alone."""
    sets = {
        dataset_named(dataset.rpartition(":")[0] or dataset) for dataset in given.get("dataset", ())
    }
    if name == "paper" and model.startswith("menet") and sets == {"rain100h_train"}:
        return _settings("fan-menet, Table I: LB is best on Rain100H", loss_weighting="lb")
    return {}


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
    settings = {}
    if name:
        settings = dict(find_preset(config.model, name)) | _own_of_data(config.model, name, given)
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
