"""Lists of things with a few short facts and some long ones, at any width."""

import sys
from collections.abc import Sequence

from derain_cli.cli.streams import printable


def print_listing(
    short: Sequence[str],
    long: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    right: Sequence[str] = (),
) -> None:
    """Print a table; on a terminal too narrow for it, its long columns are lines of their own.

    Args:
        short: Titles of the first columns; the first of all names a row.
        long: Titles of the others.
        rows: Cells, in that order.
        width: Off a terminal, characters.
        right: Titles of columns of figures.
    """
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    def table(titles: Sequence[str]) -> Table:
        columns = Table(box=None, header_style="bold", pad_edge=False)
        for title in titles:
            columns.add_column(
                title,
                justify="right" if title in right else "left",
                no_wrap=title in right or title == short[0],
            )
        for row in rows:
            columns.add_row(*map(printable, row[: len(titles)]))
        return columns

    on_terminal = sys.stdout.isatty()
    console = Console(markup=False, highlight=False, width=None if on_terminal else width)
    whole = table([*short, *long])
    unbounded = console.options.update(max_width=sys.maxsize)
    needed = Measurement.get(console, unbounded, whole).maximum
    if not on_terminal or needed <= console.width:
        console.print(whole)
        return
    console.print(table(short))
    console.print()
    for row in rows:
        told = "; ".join(filter(None, row[len(short) :]))
        console.print(printable(f"{row[0]}: {told}"), soft_wrap=True)
