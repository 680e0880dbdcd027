"""Every table of the five papers: those that can be run, and those that cannot, with the reason."""

from collections.abc import Mapping

from derain_cli.errors import UsageError, did_you_mean
from derain_cli.reproduce import fan_menet, gu2023, huang2021, jiang2023, wang2022
from derain_cli.reproduce.tables import OutOfReach, Table

PAPERS = (wang2022, huang2021, jiang2023, fan_menet, gu2023)
TABLES: Mapping[str, Table] = {table.name: table for paper in PAPERS for table in paper.TABLES}

OUT_OF_REACH = (
    OutOfReach(
        "hcn-7", "Fig. 7: feature maps before and after the mining", "images to look at, no scores"
    ),
    OutOfReach(
        "moss-6", "Fig. 6: user study", "needs people; NIQE is no substitute for their choice"
    ),
    OutOfReach(
        "moss-8",
        "Fig. 8: running times on a TITAN RTX",
        "needs that GPU; `derain eval` prints the seconds of this machine",
    ),
    OutOfReach(
        "rdmc-6",
        "Table VI: detection and segmentation after deraining",
        "needs SSD and SUST networks and rainy VOC2007 and ADE20K, none of them published",
    ),
    OutOfReach(
        "rdmc-8",
        "Fig. 8: running times on an RTX 2080 Ti",
        "needs that GPU; `derain eval` prints the seconds of this machine",
    ),
    OutOfReach(
        "menet-3",
        "Table III: running times on a Pentium G645 and a TITAN X",
        "needs those machines; `derain eval` prints the seconds of this one",
    ),
    OutOfReach(
        "pi",
        "the PI columns of RDMC's Tables II, IV and V",
        "PI needs the model of Ma et al. 2017, which has no licence to use it",
    ),
)


def find_table(name: str) -> Table:
    """A table by name.

    Raises:
        UsageError: No such table, or one that cannot be run: the reason is said.

    Example:
        >>> find_table("menet-1").source
        'fan-menet (MENET), Table I'
    """
    if name in TABLES:
        return TABLES[name]
    for table in OUT_OF_REACH:
        if table.name == name:
            raise UsageError(f"{name!r} ({table.title}) cannot be run: {table.reason}")
    raise UsageError(f"unknown table {name!r}. {did_you_mean(name, TABLES)}")
