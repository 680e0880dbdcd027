"""What papers print: scores quoted from their tables, each with the protocol it was taken on.

Quoted, not measured: other training data, other copies of the data sets and often an unstated
colour space lie behind these numbers, so that a decibel between them and a score of ours may mean
nothing. The papers are those whose networks this program holds.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

UNSTATED = "protocol not stated; the set is mostly scored on y"
RGB = "protocol rgb, by scikit-image"

RDMC_TABLE_1 = """
method     rain12          rain100l        rain100h        rain1200        rain1400
DSC        29.1389/0.8207  27.4178/0.8086  15.6636/0.4225  31.4905/0.9146  31.3033/0.9207
LP         32.3302/0.9054  26.5103/0.8517  14.2671/0.5444  27.5523/0.8479  25.8068/0.8344
JORDER     32.4107/0.8279  36.1142/0.9733  25.3598/0.8804  32.0062/0.9321  33.9800/0.9502
DDN        33.4106/0.9475  28.4199/0.9154  16.6076/0.6240  30.0023/0.9041  30.9721/0.9116
DualRes    30.9270/0.9482  27.3160/0.9111  13.6072/0.4695  29.7376/0.9132  30.6061/0.9420
SIRR       24.2892/0.8662  23.5825/0.8749  15.1231/0.5637  24.6693/0.8621  25.9621/0.8956
Syn2Real   28.4570/0.9413  24.2665/0.9145  15.2492/0.4905  23.6463/0.8564  24.8149/0.8943
MSPFN      34.2599/0.9703  30.8781/0.9469  26.8753/0.8963  30.6765/0.9333  31.4019/0.9529
DualGCN    35.7646/0.9715  41.1077/0.9940  18.2625/0.6812  24.7635/0.8404  27.5807/0.9077
MPRNet     35.5590/0.9809  35.0235/0.9735  29.0971/0.9259  31.6222/0.9414  32.5380/0.9619
RDMC       35.9006/0.9813  36.5683/0.9760  27.5944/0.9211  34.3410/0.9336  36.4820/0.9873
"""

HCN_TABLE_1 = """
method     rain200h       rain200l       rain1200       rain1400       rain12
RESCAN     26.661/0.8419  36.993/0.9788  32.127/0.9028  30.969/0.9117  32.965/0.9545
NLEDN      27.315/0.8904  36.487/0.9792  32.473/0.9198  31.014/0.9206  33.028/0.9615
SSIR       14.420/0.4501  23.476/0.8026  24.427/0.7713  25.772/0.8224  24.138/0.7768
PreNet     27.525/0.8663  34.266/0.9660  30.456/0.8702  30.984/0.9156  35.095/0.9400
SpaNet     25.484/0.8584  36.075/0.9774  27.099/0.8082  29.000/0.8891  33.217/0.9546
DCSFN      28.469/0.9016  37.847/0.9842  32.275/0.9228  31.493/0.9279  35.803/0.9683
MSPFN      25.553/0.8039  30.367/0.9219  30.382/0.8860  31.514/0.9203  34.253/0.9469
DRDNet     15.102/0.5028  37.465/0.9806  28.386/0.8574  28.359/0.8574  25.435/0.7550
RCDNet     28.698/0.8904  38.400/0.9841  32.273/0.9111  31.016/0.9164  31.038/0.9069
Syn2Real   14.495/0.4021  31.035/0.9365  28.812/0.8400  28.582/0.8586  28.434/0.9038
MPRNet     29.949/0.9151  36.610/0.9785  33.655/0.9310  32.257/0.9325  36.578/0.9696
HCN        29.985/0.9218  39.284/0.9875  33.718/0.9327  32.617/0.9334  36.851/0.9714
"""

# "with real" networks also saw the 147 real photos of the training set. SSIM is from its Table 4.
MOSS_TABLE_1 = """
method                     ddn_sirr_test:dense  ddn_sirr_test:sparse
input                      17.95                24.14
JORDER                     18.75                24.22
DDN                        19.90                26.88
DID-MDN                    18.60                25.66
UMRL                       20.11                26.94
PReNet                     20.65                26.40
MSPFN                      19.54                26.47
DRD                        20.34                26.04
SIRR                       20.01                26.90
SIRR with real             21.60                26.98
Syn2Real                   20.24                26.15
Syn2Real with real         22.36                27.26
MOSS                       20.29                25.90
MOSS with real             22.91/0.883          27.78/0.912
"""

MOSS_TABLES_2_AND_3 = """
method    rain200h     rain800
Syn2Real  25.27/0.810  23.74/0.799
MOSS      26.99/0.860  26.36/0.848
"""

MENET_TABLE_2 = """
method         rain100l        rain100h
DSC            25.4473/0.8275  20.2846/0.5530
DDN            30.1555/0.9082  24.2562/0.7400
JORDER-E       37.3676/0.9792  27.7527/0.8555
RESCAN         35.5393/0.9672  28.2138/0.8572
MENET-GB       34.1852/0.9554  28.1457/0.8524
MENET-LB       34.0846/0.9548  28.1572/0.8534
MENET-GB-deep  34.2239/0.9559  28.7399/0.8610
MENET-LB-deep  34.1839/0.9556  28.7167/0.8591
"""


@dataclass(frozen=True)
class Quoted:
    """A row of a paper's table.

    Attributes:
        dataset: Key of `datasets.DATASETS`.
        group: Part of the data set, or "" for all of it.
        method: What was scored, as the paper calls it.
        psnr: In dB.
        ssim: None where the paper prints none.
        source: Paper and table.
        protocol: What the paper says of it.
    """

    dataset: str
    group: str
    method: str
    psnr: float
    ssim: float | None
    source: str
    protocol: str

    @property
    def scores(self) -> dict[str, float]:
        """What is printed, by column of `statistics.COLUMNS`."""
        return {"psnr": self.psnr} | ({} if self.ssim is None else {"ssim": self.ssim})


def published(datasets: Iterable[str]) -> list[Quoted]:
    """Quoted scores on the data sets of these keys, paper by paper.

    Example:
        >>> [(quoted.method, quoted.psnr) for quoted in published(["rain200h"])][-2:]
        [('Syn2Real', 25.27), ('MOSS', 26.99)]
    """
    wanted = set(datasets)
    return [quoted for quoted in _tables() if quoted.dataset in wanted]


def _tables() -> Iterator[Quoted]:
    yield from _quote("RDMC (TCSVT 2023), Table I", UNSTATED, RDMC_TABLE_1)
    yield from _quote("HCN (AAAI 2022), Table 1", UNSTATED, HCN_TABLE_1)
    yield from _quote("MENET, Table II", UNSTATED, MENET_TABLE_2)
    yield from _quote("MOSS (CVPR 2021), Table 1", RGB, MOSS_TABLE_1)
    yield from _quote("MOSS (CVPR 2021), Tables 2 and 3", RGB, MOSS_TABLES_2_AND_3)


def _quote(source: str, protocol: str, table: str) -> Iterator[Quoted]:
    """Rows of a text table: cells are `PSNR` or `PSNR/SSIM`, heads `DATASET` or `DATASET:GROUP`."""
    head, *rows = (re.split(r"\s{2,}", line) for line in table.strip().splitlines())
    for method, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            dataset, _, group = column.partition(":")
            psnr, _, ssim = cell.partition("/")
            score = float(psnr), float(ssim) if ssim else None
            yield Quoted(dataset, group, method, *score, source, protocol)
