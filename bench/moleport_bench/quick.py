"""The quick look: moleport beside nginx now, and beside what the last recorded run had.

Absolute numbers move with the machine, so the ratio to nginx of the same minute is what to look at: a
change that makes it worse by more than a tenth is worth a full run.
"""

from collections.abc import Iterable

from rich.table import Table

from moleport_bench.figures.base import Better, Column, Figure
from moleport_bench.page.numbers import median, ratio, write_number
from moleport_bench.record import Record

YARDSTICK, OURS = "nginx-1hop", "moleport-http"
SHOWN_BESIDES = {"p50_ms", "p99_ms", "cpu_down", "cpu_up"}
NOTABLE = 0.1
"""Differences below this are the machine's."""


def compare(now: Record, recorded: Record, figures: Iterable[Figure]) -> Table:
    """Make the table."""
    table = Table(title="medians; `ratio` is moleport divided by nginx in the same round")
    for heading in ("figure", "nginx", "moleport", "ratio", "ratio recorded", ""):
        table.add_column(heading, justify="left" if heading in {"figure", ""} else "right")
    for figure in figures:
        for column in figure.columns:
            if column.plotted or column.key in SHOWN_BESIDES:
                cells = row(now, recorded, figure, column)
                if cells:
                    table.add_row(*cells)
    return table


def row(now: Record, recorded: Record, figure: Figure, column: Column) -> tuple[str, ...]:
    """Make one row; empty when nothing was measured."""
    values = [median(now, figure.name, peer, column.key) for peer in (YARDSTICK, OURS)]
    current = ratio(now, figure.name, (OURS, YARDSTICK), column.key)
    before = ratio(recorded, figure.name, (OURS, YARDSTICK), column.key)
    if None in values or current is None:
        return ()
    name = f"{figure.name}: {column.heading}{f' ({column.unit})' if column.unit else ''}"
    numbers = (write_number(value) for value in values if value is not None)
    return (
        name,
        *numbers,
        f"{current:.2f}",
        "–" if before is None else f"{before:.2f}",
        verdict(current, before, column.better),
    )


def verdict(current: float, before: float | None, better: Better) -> str:
    """Say whether a ratio is better or worse than the recorded one."""
    if before is None:
        return "not recorded"
    change = current / before - 1 if better is Better.HIGHER else before / current - 1
    if abs(change) < NOTABLE:
        return "the same"
    return "better" if change > 0 else "worse"
