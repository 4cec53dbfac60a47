"""Median and range of a cell's rounds, and how numbers are written."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from moleport_bench.record import Record, Sample


class Middle(NamedTuple):
    """A cell of a table."""

    median: float
    lowest: float
    highest: float
    rounds: int


def middle(samples: Sequence[Sample], key: str) -> Middle | None:
    """Return median and range of one column; None when no round has it."""
    values = [sample.values[key] for sample in samples if key in sample.values]
    if not values:
        return None
    return Middle(statistics.median(values), min(values), max(values), len(values))


def median(record: Record, figure: str, peer: str, key: str) -> float | None:
    """Return the median of one column of one peer."""
    found = middle(record.of(figure, peer), key)
    return None if found is None else found.median


def ratio(record: Record, figure: str, peers: tuple[str, str], key: str) -> float | None:
    """Return the median over the rounds of one peer's value divided by another's.

    Rounds are compared one by one, because a slow moment of the machine hits both; when the peers were
    measured in different runs, their medians are compared.
    """
    first, second = (record.of(figure, peer) for peer in peers)
    pairs = [
        one.values[key] / other.values[key]
        for one in first
        for other in second
        if (one.run, one.round) == (other.run, other.round)
        and key in one.values
        and other.values.get(key)
    ]
    if pairs:
        return statistics.median(pairs)
    one, other = middle(first, key), middle(second, key)
    return one.median / other.median if one and other and other.median else None


def write_number(value: float) -> str:
    """Write a number with about three digits that count."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    if size >= 100:
        return f"{value:.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"


def write_middle(cell: Middle | None) -> str:
    """Write a cell: the median, and the range when there was more than one round."""
    if cell is None:
        return "–"
    text = write_number(cell.median)
    if cell.rounds < 2 or cell.lowest == cell.highest:
        return text
    return f"{text} ({write_number(cell.lowest)}–{write_number(cell.highest)})"
