"""Growth: whether throughput stays as it is with many tunnels, and with several connections per agent.

Only moleport takes part: the question is whether it gets slower, not how it compares.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench import wrk
from moleport_bench.address import Address
from moleport_bench.deployment import Bench, Deployment
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.figures.load import WARM_UP_SECONDS
from moleport_bench.peers.base import Peer
from moleport_bench.peers.moleport import Moleport, tunnel_host
from moleport_bench.waiting import get, wait_until

CONNECTIONS = (1, 2, 4)
SHARE = 0.4
EVERY_TUNNEL_SECONDS = 3
"""So long the load runs before it counts: the first request of a tunnel opens its connections."""
_SCRIPT = """
local requests = {{}}
local next = 0
function init(args)
  for number = 0, {count} - 1 do
    requests[number] = wrk.format("GET", "/", {{ ["Host"] = "bench" .. number .. ".localhost" }})
  end
end
function request()
  next = (next + 1) % {count}
  return requests[next]
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelsFigure:
    """The same load, spread over more and more tunnels."""

    name: str = "tunnels"
    title: str = "Growth: throughput with 1, 100 and 1,000 tunnels"
    method: str = (
        "wrk with 64 connections; each request goes to the next tunnel in turn, after 3 s in which "
        "every tunnel had its first. All tunnels belong to one agent."
    )
    columns: Sequence[Column] = (
        Column("tunnels_1", "1 tunnel", "1/s", Better.HIGHER, plotted=True),
        Column("tunnels_100", "100 tunnels", "1/s", Better.HIGHER, plotted=True),
        Column("tunnels_1000", "1,000 tunnels", "1/s", Better.HIGHER, plotted=True),
        Column("spread", "lowest / highest", "", Better.HIGHER),
    )
    most_rounds: int = 3

    def takes(self, peer: Peer) -> bool:
        """Tell about moleport alone."""
        return peer.name == "moleport-http"

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Measure each number of tunnels with fresh processes."""
        rates: dict[str, float] = {}
        if not isinstance(peer, Moleport):
            return rates
        for count in effort.tunnels:
            with Deployment(bench, dataclasses.replace(peer, tunnels=count)) as running:
                last = running.address._replace(host=tunnel_host(count - 1))
                _wait_for(last)
                script = running.directory / "hosts.lua"
                script.write_text(_SCRIPT.format(count=count), encoding="ascii")
                for seconds in (EVERY_TUNNEL_SECONDS, max(1, round(effort.seconds * SHARE))):
                    load = wrk.load(
                        running.address,
                        connections=effort.connections,
                        seconds=seconds,
                        script=script,
                    )
            rates[f"tunnels_{count}"] = load.per_second
        return rates | _spread(rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionsFigure:
    """The same load over more connections between agent and server."""

    name: str = "connections"
    title: str = "Growth: throughput with 1, 2 and 4 connections per agent"
    method: str = "wrk with 64 connections; the agent runs with `--connections`."
    columns: Sequence[Column] = (
        *(
            Column(
                f"connections_{count}",
                f"{count} connection{'s' * (count > 1)}",
                "1/s",
                Better.HIGHER,
                plotted=True,
            )
            for count in CONNECTIONS
        ),
        Column("spread", "lowest / highest", "", Better.HIGHER),
    )
    most_rounds: int = 3

    def takes(self, peer: Peer) -> bool:
        """Tell about moleport alone."""
        return peer.name == "moleport-http"

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Measure each number of connections with fresh processes."""
        rates: dict[str, float] = {}
        if not isinstance(peer, Moleport):
            return rates
        for count in CONNECTIONS:
            with Deployment(bench, dataclasses.replace(peer, connections=count)) as running:
                for seconds in (WARM_UP_SECONDS, max(1, round(effort.seconds * SHARE))):
                    load = wrk.load(
                        running.address, connections=effort.connections, seconds=seconds
                    )
            rates[f"connections_{count}"] = load.per_second
        return rates | _spread(rates)


def _wait_for(address: Address) -> None:
    wait_until(lambda: get(address) == 200, "the last tunnel")


def _spread(rates: dict[str, float]) -> dict[str, float]:
    return {"spread": min(rates.values()) / max(rates.values())}
