"""The order of a run: figure by figure, and within a figure round after round over all peers.

So the peers of one table are measured within the same minutes, and a machine that gets slower for a
while is slow for all of them. A cell that fails is noted, and the next one follows.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from moleport_bench.deployment import Bench
from moleport_bench.errors import BenchError
from moleport_bench.figures.base import Effort, Figure, Values
from moleport_bench.peers.base import Peer
from moleport_bench.record import Sample


class Cell(NamedTuple):
    """One measurement to make."""

    figure: Figure
    peer: Peer
    round: int


def schedule(figures: Iterable[Figure], peers: Sequence[Peer], rounds: int) -> Iterator[Cell]:
    """Yield every cell in the order of a run."""
    for figure in figures:
        for number in range(1, min(rounds, figure.most_rounds) + 1):
            for peer in peers:
                if figure.takes(peer):
                    yield Cell(figure, peer, number)


def measure(cell: Cell, bench: Bench, effort: Effort, *, run: str) -> Sample:
    """Measure one cell; trouble of the peer becomes part of the result."""
    began = time.monotonic()
    values: Values = {}
    failed = None
    try:
        values = cell.figure.measure(bench, cell.peer, effort)
    except (BenchError, OSError) as error:
        failed = str(error) or type(error).__name__
    return Sample(
        run=run,
        figure=cell.figure.name,
        peer=cell.peer.name,
        round=cell.round,
        values={name: float(f"{value:.5g}") for name, value in values.items()},
        failed=failed,
        seconds=round(time.monotonic() - began, 1),
    )


def run_all(
    cells: Iterable[Cell],
    bench: Bench,
    effort: Effort,
    *,
    run: str,
    keep: Callable[[Cell, Sample], None],
) -> None:
    """Measure cell after cell, and hand over each as soon as it is known."""
    for cell in cells:
        keep(cell, measure(cell, bench, effort, run=run))
