"""What a figure is: one way to measure a peer, and the columns that its table gets.

A figure starts the peer itself, with fresh processes for every cell, and returns plain numbers by the
names of its columns; what they mean, their unit and which direction is better is said once, here.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from moleport_bench.deployment import Bench
from moleport_bench.peers.base import Peer

Values = Mapping[str, float]


class Better(enum.Enum):
    """Which values of a column are good."""

    HIGHER = "higher is better"
    LOWER = "lower is better"
    NEITHER = ""


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a figure."""

    key: str
    """In the raw data."""
    heading: str
    unit: str
    """For the plot and the page; may be empty."""
    better: Better
    plotted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long and how large; smaller values are for a quick look."""

    seconds: int = 8
    """Of the main load; the others take a share of it."""
    connections: int = 64
    idle_connections: Sequence[int] = (1000, 10_000)
    agents: Sequence[int] = (100, 1000)
    tunnels: Sequence[int] = (1, 100, 1000)


class Figure(Protocol):
    """One table of the page."""

    @property
    def name(self) -> str:
        """For `--figures`, the raw data and the names of plots."""

    @property
    def title(self) -> str:
        """Heading of the table."""

    @property
    def method(self) -> str:
        """How it is measured, for the page."""

    @property
    def columns(self) -> Sequence[Column]:
        """What `measure` returns, in the order of the table."""

    @property
    def most_rounds(self) -> int:
        """More rounds than this tell nothing new, or take too long."""

    def takes(self, peer: Peer) -> bool:
        """Tell whether the figure makes sense for a peer."""

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Measure once.

        Raises:
            BenchError: it could not be measured; the row says so.
        """
