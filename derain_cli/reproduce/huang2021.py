"""MOSS: H. Huang, A. Yu, R. He, CVPR 2021. Tables 1 to 4."""

from collections.abc import Mapping
from typing import Any

from derain_cli.reproduce.tables import Column, Row, Run, Table, quoted

SOURCE = "huang2021 (MOSS, CVPR 2021)"
SHORT: Mapping[str, Any] = {"crop": 64, "batch_size": 4, "warmup_epochs": 1, "epochs": 2}
SHARES = (10, 20, 40, 60, 100)

TABLE_1 = """
row            method                       ddn_sirr_test:dense  ddn_sirr_test:sparse
input          Input                        17.95                24.14
jorder         JORDER (CVPR'17)             18.75                24.22
ddn            DDN (CVPR'17)                19.90                26.88
did-mdn        DID-MDN (CVPR'18)            18.60                25.66
umrl           UMRL (CVPR'19)               20.11                26.94
prenet         PReNet (CVPR'19)             20.65                26.40
mspfn          MSPFN (CVPR'20)              19.54                26.47
drd            DRD (CVPR'20)                20.34                26.04
sirr           SIRR (CVPR'19), D_C          20.01                26.90
sirr-real      SIRR, D_C + D_U              21.60                26.98
syn2real       Syn2Real (CVPR'20), D_C      20.24                26.15
syn2real-real  Syn2Real, D_C + D_U          22.36                27.26
moss-labelled  Ours, D_C                    20.29                25.90
moss           Ours, D_C + D_U              22.91                27.78
"""

TABLE_2 = """
row           method                  rain200h
syn2real-10   Syn2Real, 10 %          22.92/0.742
syn2real-10u  Syn2Real, 10 % + D_U    23.64/0.767
labelled-10   Ours, 10 %              25.76/0.835
moss-10       Ours, 10 % + D_U        26.06/0.841
syn2real-20   Syn2Real, 20 %          23.22/0.755
syn2real-20u  Syn2Real, 20 % + D_U    24.00/0.776
labelled-20   Ours, 20 %              26.40/0.848
moss-20       Ours, 20 % + D_U        26.87/0.858
syn2real-40   Syn2Real, 40 %          23.84/0.772
syn2real-40u  Syn2Real, 40 % + D_U    24.75/0.794
labelled-40   Ours, 40 %              26.76/0.854
moss-40       Ours, 40 % + D_U        26.97/0.859
syn2real-60   Syn2Real, 60 %          24.32/0.782
syn2real-60u  Syn2Real, 60 % + D_U    25.26/0.808
labelled-60   Ours, 60 %              26.91/0.859
moss-60       Ours, 60 % + D_U        26.99/0.861
syn2real-100  Syn2Real, 100 %         25.27/0.810
labelled-100  Ours, 100 %             26.99/0.860
"""

TABLE_3 = """
row           method                  rain800
syn2real-10   Syn2Real, 10 %          21.31/0.729
syn2real-10u  Syn2Real, 10 % + D_U    22.02/0.750
labelled-10   Ours, 10 %              23.28/0.785
moss-10       Ours, 10 % + D_U        23.79/0.820
syn2real-20   Syn2Real, 20 %          22.28/0.752
syn2real-20u  Syn2Real, 20 % + D_U    22.95/0.768
labelled-20   Ours, 20 %              23.96/0.810
moss-20       Ours, 20 % + D_U        24.68/0.840
syn2real-40   Syn2Real, 40 %          22.61/0.761
syn2real-40u  Syn2Real, 40 % + D_U    23.60/0.788
labelled-40   Ours, 40 %              24.50/0.814
moss-40       Ours, 40 % + D_U        25.53/0.852
syn2real-60   Syn2Real, 60 %          22.96/0.775
syn2real-60u  Syn2Real, 60 % + D_U    23.70/0.795
labelled-60   Ours, 60 %              25.39/0.844
moss-60       Ours, 60 % + D_U        25.66/0.855
syn2real-100  Syn2Real, 100 %         23.74/0.799
labelled-100  Ours, 100 %             26.36/0.848
"""

TABLE_4 = """
row               method                ddn_sirr_test:dense  ddn_sirr_test:sparse
basic             Basic                 19.99/0.835          25.74/0.881
no-memory         w/o Memory            22.21/0.870          26.82/0.906
no-self-training  w/o Self-Training     20.99/0.860          25.83/0.890
no-tv             w/o TV                22.68/0.876          27.58/0.908
no-skip           w/o Skip-Connect      22.00/0.858          26.80/0.900
moss              Ours                  22.91/0.883          27.78/0.912
"""


def _sirr_columns(*metrics: str) -> tuple[Column, ...]:
    return tuple(
        Column("ddn_sirr_test", metrics, ("ddn_sirr_train",), group, "rgb")
        for group in ("dense", "sparse")
    )


def _self_training(name: str, **options: object) -> Row:
    fields = {"model": "moss", "recipe": "self_training", "real": "ddn_sirr_real"} | options
    return Row(name, "", (Run(name, "finetune", fields),))


def _basic(name: str) -> Row:
    """Neither memory nor unlabelled images: plain training on pairs."""
    options = {"model": "moss", "model_option": ("use_memory=false",)}
    return Row(name, "", (Run(name, "train", options),))


def _labelled(name: str) -> Row:
    return Row(name, "", (Run(name, "train", {"model": "moss"}),))


ROWS_4 = {
    "basic": _basic("basic"),
    "no-memory": _self_training("no-memory", without=("memory",)),
    "no-self-training": _self_training("no-self-training", without=("self-training",)),
    "no-tv": _self_training("no-tv", without=("tv",)),
    "no-skip": _self_training("no-skip", without=("skip-connection",)),
    "moss": _self_training("moss"),
}


def _limited(number: int, dataset: str, text: str) -> Table:
    """Tables 2 and 3: few labelled pairs, the rest of the rainy images without their labels."""
    columns = (Column(dataset, trained_on=(f"{dataset}_train",), protocol="rgb"),)
    rows = {}
    for share in SHARES:
        part: dict[str, object] = {"labelled": share / 100, "real": "rest"}
        # D_L alone: the same pairs and steps, nothing learnt from the rest.
        alone = {"without": ("self-training", "photos")} | part
        if share < 100:
            name = f"moss-{share}"
            rows[name] = _self_training(name, **part)
            rows[f"labelled-{share}"] = _self_training(f"labelled-{share}", **alone)
    rows["labelled-100"] = _labelled("labelled-100")
    return Table(
        f"moss-{number}",
        f"Limited labelled data of {dataset}",
        f"{SOURCE}, Table {number}",
        columns,
        quoted(text, columns, rows),
        against="labelled-100",
        short=SHORT,
        images=10,
    )


TABLES = (
    Table(
        "moss-1",
        "Synthetic test set of DDN-SIRR, with and without real photos",
        f"{SOURCE}, Table 1",
        _sirr_columns("psnr"),
        quoted(
            TABLE_1,
            _sirr_columns("psnr"),
            {"moss-labelled": _labelled("moss-labelled"), "moss": ROWS_4["moss"]},
        ),
        against="moss-labelled",
        short=SHORT,
        photos=4,
    ),
    _limited(2, "rain200h", TABLE_2),
    _limited(3, "rain800", TABLE_3),
    Table(
        "moss-4",
        "What memory, self-training, TV and the skip contribute",
        f"{SOURCE}, Table 4",
        _sirr_columns("psnr", "ssim"),
        quoted(TABLE_4, _sirr_columns("psnr", "ssim"), ROWS_4),
        against="moss",
        short=SHORT,
        photos=4,
    ),
)
