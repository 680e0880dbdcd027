"""J. Gu et al., "Networks are Slacking Off", NeurIPS 2023. Table 2, Figures 4 to 7 and 10."""

from collections.abc import Mapping, Sequence
from typing import Any

from derain_cli.reproduce.tables import Column, Row, Run, Table, quoted

SOURCE = "gu2023 (NeurIPS 2023)"
# Counted networks of a third of the width and half the depth: two cores then see all of a curve.
SHORT: Mapping[str, Any] = {"crop": 64, "batch_size": 8, "lr": 1e-3}
SMALL_NETWORKS = {
    "resnet": ("channels=24", "blocks=4"),
    "unet": ("widths=[16,32,64]",),
    "swinir": ("channels=24", "depths=[2,2]", "heads=4"),
}
COUNTS = (8, 16, 32, 64, 128, 256, 512, 1024, 30_000)
CATEGORIES = ("celeba", "div2k", "manga109", "urban100")
RANGES = ("small", "medium", "large")
NETWORKS = ("resnet", "unet", "swinir")
METRICS = ("e_r", "e_r_ceiling", "e_b", "psnr")
# The rain of Yang et al.: streaks that none of the three training ranges holds.
UNSEEN = (Column("rain100l", METRICS),)

TABLE_2 = """
row                 method                            rain100l
resnet-medium-30k   ResNet, 30k patches, medium       31.24/-/10.79/25.15
resnet-medium-64    ResNet, 64 patches, medium        53.33/-/25.02/20.87
resnet-large-512    ResNet, 512 patches, large        -/-/-/-
resnet-large-256    ResNet, 256 patches, large        45.64/-/16.51/24.30
resnet-large-128    ResNet, 128 patches, large        51.75/-/23.53/21.45
spdnet-medium-30k   SPDNet, 30k patches, medium       33.63/-/5.49/30.51
spdnet-large-512    SPDNet, 512 patches, large        39.88/-/8.91/28.57
spdnet-large-256    SPDNet, 256 patches, large        38.87/-/8.03/29.40
spdnet-large-128    SPDNet, 128 patches, large        43.20/-/14.59/25.67
rcdnet-medium-30k   RCDNet, 30k patches, medium       26.55/-/5.41/28.54
rcdnet-medium-64    RCDNet, 64 patches, medium        45.47/-/14.78/25.32
rcdnet-large-512    RCDNet, 512 patches, large        37.53/-/7.16/29.60
rcdnet-large-256    RCDNet, 256 patches, large        40.40/-/8.52/29.08
rcdnet-large-128    RCDNet, 128 patches, large        44.67/-/13.72/26.09
"""


def _trained(model: str, category: str, rain: str, count: int) -> Run:
    options = {"model": model, "clean": (category,), "rain": (rain,), "backgrounds": count}
    return Run(f"{model}-{category}-{rain}-{count}", "train", options)


def _grid(
    networks: Sequence[str],
    categories: Sequence[str],
    ranges: Sequence[str],
    counts: Sequence[int] = COUNTS,
) -> tuple[Row, ...]:
    """A row for each network, category, range and number of patches, as the figures draw them."""
    return tuple(
        Row(
            f"{network}-{category}-{rain}-{count}",
            f"{network}, {category}, {rain} rain, {count} patches",
            (_trained(network, category, rain, count),),
        )
        for network in networks
        for category in categories
        for rain in ranges
        for count in counts
    )


def _rows_2() -> dict[str, Row]:
    settings = {"medium-30k": 30_000, "medium-64": 64, "large-512": 512, "large-256": 256}
    settings |= {"large-128": 128}
    return {
        f"resnet-{name}": Row("", "", (_trained("resnet", "div2k", name.split("-")[0], count),))
        for name, count in settings.items()
    }


def _figure(name: str, number: str, title: str, rows: tuple[Row, ...], note: str) -> Table:
    return Table(
        name,
        title,
        f"{SOURCE}, {number}",
        UNSEEN,
        rows,
        short=SHORT,
        short_networks=SMALL_NETWORKS,
        images=10,
        figure="points",
        note=note,
    )


TABLES = (
    Table(
        "gu-2",
        "Backgrounds and rain range against training on much",
        f"{SOURCE}, Table 2",
        UNSEEN,
        quoted(TABLE_2, UNSEEN, _rows_2()),
        against="resnet-medium-30k",
        short=SHORT,
        short_networks=SMALL_NETWORKS,
        images=10,
        note="SPDNet and RCDNet are quoted: they are not in this program.",
    ),
    _figure(
        "gu-4",
        "Fig. 4 and 7",
        "Rain removal and background over the number of patches, three networks, four categories",
        _grid(NETWORKS, CATEGORIES, ("medium",)),
        "The paper prints curves without numbers: removal falls with the number of patches and is "
        "mostly lost at 256, the background error falls and is low from 256 on.",
    ),
    _figure(
        "gu-5",
        "Fig. 5",
        "Rain removal over the number of patches, three ranges of rain",
        _grid(("resnet",), ("div2k",), RANGES),
        "The paper prints curves without numbers: removal is kept up to about 64 patches with "
        "medium rain, 512 with large rain, and not even with 16 patches of small rain.",
    ),
    _figure(
        "gu-6",
        "Fig. 6",
        "Rain removal by category of the backgrounds",
        _grid(("resnet",), CATEGORIES, ("medium",)),
        "The paper's order, most complex first: CelebA, DIV2K, Manga109, Urban100. "
        "`derain datasets complexity FOLDER` measures that of a folder.",
    ),
    _figure(
        "gu-10",
        "Fig. 10",
        "Other backgrounds in training than in the test",
        _grid(NETWORKS, CATEGORIES, ("medium",)),
        "Scored on one test set for all categories; the paper's is DIV2K, ours that of the column.",
    ),
    _figure(
        "gu-claim",
        "section 3",
        "Few backgrounds and wide rain against many backgrounds, at a scale two cores can train",
        _grid(("unet",), ("div2k",), ("medium", "large"), (8, 64, 512, 30_000)),
        "Not a figure of the paper: its claim, that networks learn the rain where the backgrounds "
        "are too few or the rain too wide to learn the backgrounds, in eight runs.",
    ),
)
