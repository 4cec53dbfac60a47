"""No tunnel at all: the limit that origin, load generator and machine set."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan


@dataclass(frozen=True, slots=True)
class Direct:
    """The origin itself."""

    name: str = "direct"
    mode: Mode = Mode.BASELINE
    leg: str = "–"
    how: str = "load straight on the origin"
    needs: Sequence[str] = ()

    def plan(self, lab: Lab) -> Plan:
        """Start nothing."""
        return Plan(address=Address(lab.origin_port))


PEERS = (Direct(),)
