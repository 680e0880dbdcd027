"""Where data sets can be had, under which licence, and how those that were made here were made.

Most of these sets were published on a page or a shared drive without a licence, and many of those
addresses are gone. Addresses here are the authors' own where they have one, else copies on the Hub;
a copy is somebody else's work, so `derain datasets verify` belongs after its download.
"""

from collections.abc import Mapping
from dataclasses import dataclass

UNSTATED = "none stated"


@dataclass(frozen=True)
class Origin:
    """Where a data set comes from.

    Attributes:
        licence: As its authors state it.
        addresses: Pages of its authors, to read or download from.
        hub: Repository of the Hub with a copy, `org/repo`; "" where none is known.
        note: What to know of these addresses.
    """

    licence: str = UNSTATED
    addresses: tuple[str, ...] = ()
    hub: str = ""
    note: str = ""


YANG_PAGE = "https://www.icst.pku.edu.cn/struct/Projects/joint_rain_removal.html"
YANG_FILES = "http://www.icst.pku.edu.cn/struct/att/"
YANG = Origin(addresses=(YANG_PAGE,))
FU = Origin(
    addresses=("https://xueyangfu.github.io/projects/cvpr2017.html",),
    hub="dronefreak/DDN-Data",
    note="the copy is unofficial",
)
ZHANG_2020 = Origin(addresses=("https://github.com/hezhangsprinter/ID-CGAN",))
ZHANG_2018 = Origin(addresses=("https://github.com/hezhangsprinter/DID-MDN",))
WEI = Origin(addresses=("https://github.com/wwzjer/Semi-supervised-IRR",))
WANG = Origin(
    addresses=("https://github.com/stevewongv/SPANet",),
    note="hf:dronefreak/SPA-Data is a part of it only",
)
LI_2019 = Origin(
    addresses=("https://github.com/liruoteng/HeavyRainRemoval",),
    note="the test set Test1 circulates with repositories of restoration in all weathers",
)
BA = Origin(addresses=("https://visual.ee.ucla.edu/gt_rain.htm",))
QUAN = Origin(addresses=("https://github.com/Songforrr/RainDS_CCN",))
LI_2022 = Origin(addresses=("https://github.com/hiker-lw/RealRain-1k",))

ORIGINS: Mapping[str, Origin] = {
    "rain100l": Origin(addresses=(YANG_PAGE, f"{YANG_FILES}Rain100L.zip")),
    "rain100h": Origin(addresses=(YANG_PAGE, f"{YANG_FILES}Rain100H.zip")),
    "rain100l_train": Origin(addresses=(YANG_PAGE, f"{YANG_FILES}RainTrainL.zip")),
    "rain100h_train": Origin(addresses=(YANG_PAGE, f"{YANG_FILES}RainTrainH.zip")),
    **dict.fromkeys(("rain200l", "rain200h", "rain200l_train", "rain200h_train"), YANG),
    "rain200h_sample": YANG,
    "rain12": Origin(addresses=("https://yu-li.github.io/",)),
    **dict.fromkeys(("rain800", "rain800_train"), ZHANG_2020),
    **dict.fromkeys(("rain1200", "rain1200_train"), ZHANG_2018),
    **dict.fromkeys(("rain1400", "rain1400_train"), FU),
    **dict.fromkeys(("spa", "spa_train"), WANG),
    **dict.fromkeys(("ddn_sirr_test", "ddn_sirr_real", "ddn_sirr_train"), WEI),
    **dict.fromkeys(("outdoor_rain", "outdoor_rain_train"), LI_2019),
    **dict.fromkeys(("gt_rain", "gt_rain_train"), BA),
    **dict.fromkeys(("rainds_real", "rainds_real_train"), QUAN),
    **dict.fromkeys(
        ("realrain1k_l", "realrain1k_l_train", "realrain1k_h", "realrain1k_h_train"), LI_2022
    ),
    "lhp_rain_train": Origin(
        addresses=("https://yunguo224.github.io/LHP-Rain.github.io/",),
    ),
    "rain13k_train": Origin(
        addresses=("https://github.com/kuijiang94/MSPFN",),
        hub="dronefreak/Rain13K",
        note="the copy is unofficial",
    ),
}


@dataclass(frozen=True)
class Ingredient:
    """Images that weights here or a table's networks are trained on and that are no benchmark.

    Attributes:
        images: How many there are.
        kind: "clean" backgrounds or rain "layers".
        made: How to get or make them again.
        licence: As its authors state it.
        addresses: Where its authors offer it.
    """

    images: int
    kind: str
    made: str
    licence: str = UNSTATED
    addresses: tuple[str, ...] = ()


INGREDIENTS: Mapping[str, Ingredient] = {
    "bsds_clean": Ingredient(
        209,
        "clean",
        "the photos of BSDS500's train and val folders (Arbelaez et al., TPAMI 2011), less those "
        "that are backgrounds of a test set named here",
        "non-commercial research",
    ),
    "streaks": Ingredient(
        138,
        "layers",
        "138 of the 825 gray streak layers rendered from the appearance model of Garg & "
        "Nayar, SIGGRAPH 2006, that circulate with the rain streak database",
    ),
    "streaks_more": Ingredient(687, "layers", "the other gray streak layers of that database"),
    "rain200h_more": Ingredient(
        15,
        "pairs",
        "heavy rain of the Rain200H kind on backgrounds of rain100l_train: rainy/ + clean/",
    ),
    "photos_cc0": Ingredient(
        14, "clean", "large photos that their authors gave to the public domain", "CC0-1.0"
    ),
    "div2k": Ingredient(
        800,
        "clean",
        "the training photos: Agustsson & Timofte, CVPR workshops 2017",
        "academic research",
        ("https://data.vision.ee.ethz.ch/cvl/DIV2K/",),
    ),
    "celeba": Ingredient(
        202_599,
        "clean",
        "faces: Liu et al., ICCV 2015",
        "non-commercial research",
        ("https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",),
    ),
    "manga109": Ingredient(
        21_142,
        "clean",
        "pages of 109 comics: Matsui et al., Multimedia Tools and Applications 2017",
        "academic use, on request",
        ("http://www.manga109.org/en/",),
    ),
    "urban100": Ingredient(
        100,
        "clean",
        "photos of buildings: Huang, Singh & Ahuja, CVPR 2015",
        addresses=("https://github.com/jbhuang0604/SelfExSR",),
    ),
}
