"""HCN: C. Wang, J. Pan, X.-M. Wu, AAAI 2022. Tables 1 to 4, Figures 8, 9, 11 and 12."""

from collections.abc import Mapping
from typing import Any

from derain_cli.reproduce.tables import Column, Row, Run, Table, quoted, variants

SOURCE = "wang2022 (HCN, AAAI 2022)"
# What fits two CPU cores: a step of 12 crops of 128x128 takes half a minute there.
SHORT: Mapping[str, Any] = {"crop": 64, "batch_size": 2}
SMALL_NETWORKS = {"hcn": ("channels=8", "blocks=[3,1,1]", "match_channels=2")}

TABLE_1 = """
row       method                 rain200h       rain200l       rain1200       rain1400       rain12
rescan    RESCAN (ECCV'18)       26.661/0.8419  36.993/0.9788  32.127/0.9028  30.969/0.9117  32.965/0.9545
nledn     NLEDN (MM'18)          27.315/0.8904  36.487/0.9792  32.473/0.9198  31.014/0.9206  33.028/0.9615
ssir      SSIR (CVPR'19)         14.420/0.4501  23.476/0.8026  24.427/0.7713  25.772/0.8224  24.138/0.7768
prenet    PreNet (CVPR'19)       27.525/0.8663  34.266/0.9660  30.456/0.8702  30.984/0.9156  35.095/0.9400
spanet    SpaNet (CVPR'19)       25.484/0.8584  36.075/0.9774  27.099/0.8082  29.000/0.8891  33.217/0.9546
dcsfn     DCSFN (MM'20)          28.469/0.9016  37.847/0.9842  32.275/0.9228  31.493/0.9279  35.803/0.9683
mspfn     MSPFN (CVPR'20)        25.553/0.8039  30.367/0.9219  30.382/0.8860  31.514/0.9203  34.253/0.9469
drdnet    DRDNet (CVPR'20)       15.102/0.5028  37.465/0.9806  28.386/0.8574  28.359/0.8574  25.435/0.7550
rcdnet    RCDNet (CVPR'20)       28.698/0.8904  38.400/0.9841  32.273/0.9111  31.016/0.9164  31.038/0.9069
syn2real  Syn2Real (CVPR'20)     14.495/0.4021  31.035/0.9365  28.812/0.8400  28.582/0.8586  28.434/0.9038
mprnet    MPRNet (CVPR'21)       29.949/0.9151  36.610/0.9785  33.655/0.9310  32.257/0.9325  36.578/0.9696
hcn       Ours                   29.985/0.9218  39.284/0.9875  33.718/0.9327  32.617/0.9334  36.851/0.9714
"""  # noqa: E501 (a table's lines stay whole)

TABLE_2 = """
row       method                              rain200h
none      M1: no BiSCSM                       29.583/0.9168
sum       M2: sums in place of the mining     29.625/0.9177
conv1x1   M3: 1x1 convolutions in its place   29.541/0.9156
down2up   M4: Down2Up alone                   29.393/0.9172
up2down   M5: Up2Down alone                   29.828/0.9201
no-place  M6: without the position code       29.953/0.9218
hcn       M7: the whole BiSCSM                29.985/0.9218
"""

TABLE_3 = """
row      method                        rain200h
none     R1: no constraints            29.824/0.9195
half     R2: 1/2 scale                 29.879/0.9209
quarter  R3: 1/4 scale                 29.839/0.9204
full     R4: full scale in place       29.970/0.9211
hcn      R5: 1/2 and 1/4 scale         29.985/0.9218
"""

TABLE_4 = """
row       method                       rain200h
alone     without T and M              29.563/0.9158
two       without T                    29.355/0.9146
cascaded  Cascaded                     29.642/0.9188
hcn       with T and M                 29.985/0.9218
"""

FIGURE_8 = """
row      method                             rain200h
top      T alone                            -/-
middle   M alone                            -/-
bottom   B alone                            -/-
hcn      B with T and M (collaborative)     29.985/0.9218
"""

FIGURE_9 = """
row       method                              rain200h
no-cl     without collaborative learning      29.563/0.9158
no-mscc   without the constraints             29.824/0.9195
cascaded  Cascaded                            29.642/0.9188
hcn       with both                           29.985/0.9218
"""

FIGURE_11 = """
row      method                                         ddn_sirr_real
trained  (b) only trained on synthetic data             -
frozen   (c) fine-tuned, pseudo ground truth fixed      -
online   (d) online-update learning                     -
"""

ON_RAIN200H = (Column("rain200h", trained_on=("rain200h_train",)),)
COLUMNS_1 = (
    *ON_RAIN200H,
    Column("rain200l", trained_on=("rain200l_train",)),
    Column("rain1200", trained_on=("rain1200_train",)),
    Column("rain1400", trained_on=("rain1400_train",)),
    # Rain12 has no training set: it is scored with the network of Rain200H.
    Column("rain12", trained_on=("rain200h_train",)),
)
REAL = (Column("ddn_sirr_real", ("niqe", "change"), ("rain200h_train",)),)


def _option(*settings: str) -> dict[str, Any]:
    return {"model_option": settings}


WHOLE: Mapping[str, Mapping[str, Any]] = {"hcn": {}}


def _hcn(changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Row]:
    return variants("hcn", "hcn", {**changes, **WHOLE})


def _adapted(model: str) -> dict[str, Row]:
    """A network as it was trained, and fine-tuned on real photos in the two ways of Fig. 11."""
    trained = Run(model, "train", {"model": model})
    rows = {"trained": Row("trained", "", (trained,))}
    for name in ("frozen", "online"):
        options = {"recipe": "online_update", "pseudo_truth": name, "real": "ddn_sirr_real"}
        adapting = Run(f"{model}-{name}", "finetune", options, after=model)
        rows[name] = Row(name, "", (trained, adapting))
    return rows


def _table(name: str, title: str, number: str, text: str, rows: Mapping[str, Row]) -> Table:
    return Table(
        name,
        title,
        f"{SOURCE}, {number}",
        ON_RAIN200H,
        quoted(text, ON_RAIN200H, rows),
        against="hcn",
        short=SHORT,
        images=4,
        figure="curves" if number.startswith("Fig") else "",
    )


def _real_table(name: str, title: str, number: str, model: str, note: str) -> Table:
    return Table(
        name,
        title,
        f"{SOURCE}, {number}",
        REAL,
        quoted(FIGURE_11, REAL, _adapted(model)),
        against="trained",
        short={**SHORT, "epochs": 2},
        short_networks=SMALL_NETWORKS,
        images=3,
        photos=3,
        note=note,
    )


TABLES = (
    Table(
        "hcn-1",
        "HCN against eleven methods on five synthetic sets",
        f"{SOURCE}, Table 1",
        COLUMNS_1,
        quoted(TABLE_1, COLUMNS_1, variants("hcn", "hcn", WHOLE)),
        against="hcn",
        short=SHORT,
        images=4,
    ),
    _table(
        "hcn-2",
        "Parts of the similarity mining",
        "Table 2",
        TABLE_2,
        _hcn(
            {
                name: _option(f"mining={name}")
                for name in ("none", "sum", "conv1x1", "down2up", "up2down")
            }
            | {"no-place": _option("position=false")}
        ),
    ),
    _table(
        "hcn-3",
        "Multi-scale compact constraints",
        "Table 3",
        TABLE_3,
        _hcn(
            {
                "none": _option("mscc=false"),
                "half": {"scale_weights": (0.05, 0.0)},
                "quarter": {"scale_weights": (0.0, 0.001)},
                "full": _option("pyramid=full"),
            }
        ),
    ),
    _table(
        "hcn-4",
        "Collaborative learning of the sub-networks",
        "Table 4",
        TABLE_4,
        _hcn(
            {
                "alone": _option("chain=3"),
                "two": _option("use_top=false"),
                "cascaded": _option("chain=6"),
            }
        ),
    ),
    _table(
        "hcn-8",
        "Single-stream and collaborative learning",
        "Fig. 8",
        FIGURE_8,
        _hcn(
            {
                "top": _option("chain=1"),
                "middle": _option("chain=2"),
                "bottom": _option("chain=3"),
            }
        ),
    ),
    _table(
        "hcn-9",
        "Learning curves without collaboration and without constraints",
        "Fig. 9",
        FIGURE_9,
        _hcn(
            {
                "no-cl": _option("chain=3"),
                "no-mscc": _option("mscc=false"),
                "cascaded": _option("chain=6"),
            }
        ),
    ),
    _real_table(
        "hcn-11",
        "Online-update learning on real photos",
        "Fig. 11",
        "hcn",
        "The paper compares by eye; NIQE and the mean change stand for that here.",
    ),
    _real_table(
        "hcn-12",
        "Online-update learning of another network",
        "Fig. 12",
        "menet",
        "The paper adapts DCSFN, which is not in this program: MENET stands for it.",
    ),
)
