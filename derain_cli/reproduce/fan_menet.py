"""MENET: Y. Fan, R. Chen, B. Li. Tables I, II and IV."""

from collections.abc import Mapping
from typing import Any

from derain_cli.reproduce.tables import Column, Table, quoted, variants

SOURCE = "fan-menet (MENET)"
SHORT: Mapping[str, Any] = {"crop": 96, "batch_size": 8}

TABLE_1 = """
row             method                      rain100l        rain100h
lp              Lp                          33.5484/0.9506  27.5016/0.8146
lp-le-fixed     Lp + Le, fixed              33.5116/0.9508  27.6132/0.8200
lp-le-gb        Lp + Le, GB                 33.7361/0.9527  27.8344/0.8457
lp-le-lb        Lp + Le, LB                 33.6634/0.9524  27.9586/0.8393
lp-le-lt-gb     Lp + Le + Lt, GB            33.6836/0.9526  27.7668/0.8472
lp-le-lt-lb     Lp + Le + Lt, LB            33.5885/0.9512  27.7977/0.8465
lp-le-lt-gb-ca  Lp + Le + Lt, GB, CA        34.1852/0.9554  28.1457/0.8524
lp-le-lt-lb-ca  Lp + Le + Lt, LB, CA        34.0846/0.9548  28.1572/0.8534
"""

TABLE_2 = """
row             method         rain100l        rain100h
lp-le-lt-gb-ca  MENET-GB       34.1852/0.9554  28.1457/0.8524
lp-le-lt-lb-ca  MENET-LB       34.0846/0.9548  28.1572/0.8534
gb-deep         MENET-GB-deep  34.2239/0.9559  28.7399/0.8610
lb-deep         MENET-LB-deep  34.1839/0.9556  28.7167/0.8591
dsc             DSC            25.4473/0.8275  20.2846/0.5530
ddn             DDN            30.1555/0.9082  24.2562/0.7400
jorder-e        JORDER-E       37.3676/0.9792  27.7527/0.8555
rescan          RESCAN         35.5393/0.9672  28.2138/0.8572
"""

TABLE_4 = """
row   method                              rain100l        rain100h
lp    MSE (baseline)                      33.5484/0.9506  27.5016/0.8146
vgg   fixed, MSE + VGG (1e-3)             33.8075/0.9550  27.6265/0.8210
edge  fixed, MSE + edge (1e-2)            33.5116/0.9508  27.6132/0.8200
"""

COLUMNS = (
    Column("rain100l", trained_on=("rain100l_train",)),
    Column("rain100h", trained_on=("rain100h_train",)),
)
PIXEL, EDGE, ALL = ("pixel:1",), ("pixel:1", "edge:0.01"), ("pixel:1", "edge:1", "texture:1")
NO_ATTENTION = {"model_option": ("channel_attention=false",)}


def _losses(loss: tuple[str, ...], weighting: str, **more: object) -> dict[str, Any]:
    return {"loss": loss, "loss_weighting": weighting} | more


ABLATIONS = {
    "lp": _losses(PIXEL, "fixed", **NO_ATTENTION),
    "lp-le-fixed": _losses(EDGE, "fixed", **NO_ATTENTION),
    "lp-le-gb": _losses(("pixel:1", "edge:1"), "gb", **NO_ATTENTION),
    "lp-le-lb": _losses(("pixel:1", "edge:1"), "lb", **NO_ATTENTION),
    "lp-le-lt-gb": _losses(ALL, "gb", **NO_ATTENTION),
    "lp-le-lt-lb": _losses(ALL, "lb", **NO_ATTENTION),
    "lp-le-lt-gb-ca": _losses(ALL, "gb"),
    "lp-le-lt-lb-ca": _losses(ALL, "lb"),
}
ROWS_1 = variants("menet", "menet", ABLATIONS)
ROWS_2 = ROWS_1 | variants(
    "menet-deep", "menet", {"gb-deep": _losses(ALL, "gb"), "lb-deep": _losses(ALL, "lb")}
)
ROWS_4 = variants(
    "menet",
    "menet",
    {
        "lp": ABLATIONS["lp"],
        "vgg": _losses(("pixel:1", "perceptual:0.001"), "fixed", **NO_ATTENTION),
        "edge": ABLATIONS["lp-le-fixed"],
    },
)


def _table(number: int, title: str, text: str, rows: Mapping[str, Any], against: str) -> Table:
    return Table(
        f"menet-{number}",
        title,
        f"{SOURCE}, Table {'I' * number if number < 3 else 'IV'}",
        COLUMNS,
        quoted(text, COLUMNS, rows),
        against=against,
        short=SHORT,
    )


TABLES = (
    _table(1, "Losses, weighting and channel attention", TABLE_1, ROWS_1, "lp"),
    _table(2, "MENET against four methods", TABLE_2, ROWS_2, "lp-le-lt-gb-ca"),
    _table(4, "VGG-19 or Sobel as the loss network", TABLE_4, ROWS_4, "lp"),
)
