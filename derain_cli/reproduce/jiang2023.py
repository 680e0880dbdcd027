"""RDMC: Z. Jiang et al., IEEE TCSVT 2023. Tables I to V, and its search against random choices."""

from collections.abc import Mapping
from typing import Any

from derain_cli.reproduce.tables import Column, Row, Run, Table, quoted

SOURCE = "jiang2023 (RDMC, TCSVT 2023)"
SHORT: Mapping[str, Any] = {"crop": 64, "batch_size": 8}
# Paper: "the synthetic Rain200", 6000 patches of 128x128. We take the 200 pairs of Rain100L's
# training set, which make as many with 30 patches each.
RAIN200 = ("rain100l_train",)
WITHOUT_PRIOR = {"contrastive": 0.0}

TABLE_1 = """
row       method          rain12          rain100l        rain100h        rain1200        rain1400
dsc       DSC             29.1389/0.8207  27.4178/0.8086  15.6636/0.4225  31.4905/0.9146  31.3033/0.9207
lp        LP              32.3302/0.9054  26.5103/0.8517  14.2671/0.5444  27.5523/0.8479  25.8068/0.8344
jorder    JORDER          32.4107/0.8279  36.1142/0.9733  25.3598/0.8804  32.0062/0.9321  33.9800/0.9502
ddn       DDN             33.4106/0.9475  28.4199/0.9154  16.6076/0.6240  30.0023/0.9041  30.9721/0.9116
dualres   DualRes         30.9270/0.9482  27.3160/0.9111  13.6072/0.4695  29.7376/0.9132  30.6061/0.9420
sirr      SIRR            24.2892/0.8662  23.5825/0.8749  15.1231/0.5637  24.6693/0.8621  25.9621/0.8956
syn2real  Syn2Real        28.4570/0.9413  24.2665/0.9145  15.2492/0.4905  23.6463/0.8564  24.8149/0.8943
mspfn     MSPFN           34.2599/0.9703  30.8781/0.9469  26.8753/0.8963  30.6765/0.9333  31.4019/0.9529
dualgcn   DualGCN         35.7646/0.9715  41.1077/0.9940  18.2625/0.6812  24.7635/0.8404  27.5807/0.9077
mprnet    MPRNet          35.5590/0.9809  35.0235/0.9735  29.0971/0.9259  31.6222/0.9414  32.5380/0.9619
rdmc      Ours            35.9006/0.9813  36.5683/0.9760  27.5944/0.9211  34.3410/0.9336  36.4820/0.9873
"""  # noqa: E501 (a table's lines stay whole)

TABLE_2 = """
row       method    ddn_sirr_real
dsc       DSC       3.9211
lp        LP        3.6523
jorder    JORDER    3.0269
ddn       DDN       3.6158
dualres   DualRes   3.2889
sirr      SIRR      2.9551
syn2real  Syn2Real  3.2997
mspfn     MSPFN     3.1349
dualgcn   DualGCN   2.9981
mprnet    MPRNet    3.2740
rdmc      Ours      2.9063
"""

TABLE_3 = """
row       method    network
jorder    JORDER    4169/273221
ddn       DDN       60/0.28
dualres   DualRes   3729/242821
sirr      SIRR      57/0.23
syn2real  Syn2Real  2605/20924
mspfn     MSPFN     15823/3174564
dualgcn   DualGCN   2731/5
mprnet    MPRNet    3637/141453
rdmc      Ours      249/3021
"""

TABLE_4 = """
row      method    rain100l        ddn_sirr_real
stage-1  RDMC_1    32.4553/0.9710  3.6328
stage-2  RDMC_2    32.8868/0.9746  3.5061
stage-3  RDMC_3    36.5899/0.9893  3.2414
stage-4  RDMC_4    34.1713/0.9818  3.2740
"""

TABLE_5 = """
row       method                          rain100l  ddn_sirr_real
unet      UNet (baseline)                 -         3.9142
mfe       UNet + MFE                      -         3.8378
no-prior  RDMC w/o CP (UNet, MFE, DCR)    -         3.3423
rdmc      RDMC (Ours)                     -         3.1713
"""

SEARCHED = """
row       method                                   rain100l
paper     the paper's edges 3-9, 4-8, 2-8, 3-7     36.5683/0.9760
searched  edges searched here                      -
random-1  random edges, first draw                 -
random-2  random edges, second draw                -
random-3  random edges, third draw                 -
"""

COLUMNS_1 = tuple(
    Column(dataset, trained_on=RAIN200)
    for dataset in ("rain12", "rain100l", "rain100h", "rain1200", "rain1400")
)
ON_RAIN100L = (Column("rain100l", trained_on=RAIN200),)
REAL = (Column("ddn_sirr_real", ("niqe",), RAIN200),)
NETWORK = (Column("network", ("parameters_k", "macs_m")),)
# Draws of two skip-ups and two skip-downs each by `connections.space.SearchSpace.draw`, seed 0.
PAPERS_EDGES = "connections=[[3,9],[4,8],[2,8],[3,7]]"


def _trained(name: str, *settings: str, **options: object) -> Row:
    fields = {"model": "rdmc", "model_option": settings} | options
    return Row(name, "", (Run(f"rdmc-{name}", "train", fields),))


ROWS_5 = {
    "unet": _trained("unet", "dilations=[1,1,1]", "connections=[]", **WITHOUT_PRIOR),
    "mfe": _trained("mfe", "connections=[]", **WITHOUT_PRIOR),
    "no-prior": _trained("no-prior", **WITHOUT_PRIOR),
    # Named here, so that the row is not run without the prior that it is about.
    "rdmc": _trained("rdmc", contrastive=0.1),
}
WHOLE = {"rdmc": _trained("whole")}


def _searched() -> Row:
    """Section IV-A: search on two halves, then train the derived network on all pairs."""
    search = Run("search", "search", {})
    return Row(
        "searched", "", (search, Run("searched", "train", {"model": "rdmc"}, after="search"))
    )


def _random(number: int, edges: str) -> Row:
    return _trained(f"random-{number}", f"connections={edges}")


TABLES = (
    Table(
        "rdmc-1",
        "RDMC against ten methods on five synthetic sets",
        f"{SOURCE}, Table I",
        COLUMNS_1,
        quoted(TABLE_1, COLUMNS_1, WHOLE),
        against="rdmc",
        short=SHORT,
        note="One network for all five sets, as the paper's section IV-A reads.",
    ),
    Table(
        "rdmc-2",
        "RDMC against ten methods on real photos",
        f"{SOURCE}, Table II",
        REAL,
        quoted(TABLE_2, REAL, WHOLE),
        against="rdmc",
        short=SHORT,
        images=10,
        note="PI is left out: its model is not public under a usable licence. The paper's photos "
        "come from four sources, ours from DDN-SIRR.",
    ),
    Table(
        "rdmc-3",
        "Parameters (K) and multiply-adds at 256x256 (M)",
        f"{SOURCE}, Table III",
        NETWORK,
        quoted(TABLE_3, NETWORK, WHOLE),
        count_only=True,
        note="What the paper calls FLOPs are multiply-adds of all three stages.",
    ),
    Table(
        "rdmc-4",
        "Number of recursive stages T",
        f"{SOURCE}, Table IV",
        (*ON_RAIN100L, *REAL),
        quoted(
            TABLE_4,
            (*ON_RAIN100L, *REAL),
            {
                f"stage-{count}": _trained(f"stage-{count}", f"stages={count}")
                for count in range(1, 5)
            },
        ),
        against="stage-3",
        short=SHORT,
        note="PI is left out: its model is not public under a usable licence.",
    ),
    Table(
        "rdmc-5",
        "Multi-scale paths, cross-level recruitment and contrastive prior",
        f"{SOURCE}, Table V",
        (*ON_RAIN100L, *REAL),
        quoted(TABLE_5, (*ON_RAIN100L, *REAL), ROWS_5),
        against="no-prior",
        short=SHORT,
        note="The paper prints NIQE and PI on real photos alone; PI is left out. The baseline "
        "keeps three stages and as many parameters: its paths have one dilation.",
    ),
    Table(
        "rdmc-search",
        "Searched edges against random ones and against the paper's four",
        f"{SOURCE}, section III-B",
        ON_RAIN100L,
        quoted(
            SEARCHED,
            ON_RAIN100L,
            {
                "paper": _trained("paper", PAPERS_EDGES),
                "searched": _searched(),
                "random-1": _random(1, "[[2,10],[5,7],[1,6],[3,6]]"),
                "random-2": _random(2, "[[3,10],[5,9],[1,9],[2,7]]"),
                "random-3": _random(3, "[[4,9],[5,10],[1,7],[4,6]]"),
            },
        ),
        against="paper",
        short=SHORT,
    ),
)
