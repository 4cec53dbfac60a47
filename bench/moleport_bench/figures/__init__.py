"""Every figure, in the order of the page."""

from moleport_bench.figures.base import Figure
from moleport_bench.figures.bulk import BulkFigure
from moleport_bench.figures.fairness import FairnessFigure
from moleport_bench.figures.growth import ConnectionsFigure, TunnelsFigure
from moleport_bench.figures.load import NEW_CONNECTIONS_FIGURE, REQUESTS_FIGURE, SINGLE_FIGURE
from moleport_bench.figures.memory import MemoryFigure
from moleport_bench.figures.recovery import RecoveryFigure

FIGURES: tuple[Figure, ...] = (
    REQUESTS_FIGURE,
    SINGLE_FIGURE,
    NEW_CONNECTIONS_FIGURE,
    BulkFigure(),
    MemoryFigure(),
    FairnessFigure(),
    RecoveryFigure(),
    TunnelsFigure(),
    ConnectionsFigure(),
)
