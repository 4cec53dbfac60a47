"""Memory: idle, per connection that stays open, per request that waits, and per agent.

Every part has fresh processes: garbage that is not collected yet, and memory that is not given back,
would otherwise count for the next part.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench import procfs
from moleport_bench.deployment import Bench, Deployment, Sides
from moleport_bench.errors import LoadError
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.idle_visitors import IdleVisitors
from moleport_bench.peers.base import VARIANTS, Mode, Peer
from moleport_bench.peers.moleport import Moleport
from moleport_bench.waiting import get, wait_until

SETTLE_SECONDS = 1.0
PENDING = 1000
READY_SECONDS = 60.0
ENOUGH = 0.9
"""Of the connections: a limit of 20,000 open files ends a little below ten thousand in some peers."""
OPEN_SECONDS = 40.0
"""A peer that would need longer for the next step of connections is not asked for it."""
MEBIBYTE, KIBIBYTE = 1 << 20, 1 << 10
MOLEPORT_SETTINGS = ("limits.connections_per_tunnel=20000", "limits.edge_connections=40000")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigure:
    """RSS from procfs."""

    name: str = "memory"
    title: str = "Memory"
    method: str = (
        "Resident memory of the processes. Idle: after one request. Per connection: growth with 1,000 and "
        "with 10,000 visitors that got one answer and stay connected. Per waiting request: growth with "
        "1,000 requests that the origin never answers. Per agent: growth of the server; moleport's agents "
        "share one process there (a thousand of them as processes fit no machine), peers get 100 "
        "processes. One round; moleport's limit of connections per tunnel is raised for it."
    )
    columns: Sequence[Column] = (
        Column("idle_server", "idle server", "MiB", Better.LOWER),
        Column("idle_agent", "idle agent", "MiB", Better.LOWER),
        Column("connection_1000", "server, each of 1,000", "KiB", Better.LOWER),
        Column("connection_agent_1000", "agent, each of 1,000", "KiB", Better.LOWER),
        Column("connection_10000", "server, each of 10,000", "KiB", Better.LOWER, plotted=True),
        Column("connection_agent_10000", "agent, each of 10,000", "KiB", Better.LOWER),
        Column("pending_reached", "waiting requests that reached the origin", "", Better.HIGHER),
        Column("pending_server", "server, each waiting request", "KiB", Better.LOWER),
        Column("pending_agent", "agent, each waiting request", "KiB", Better.LOWER),
        Column("still_serves", "still serves then", "", Better.HIGHER),
        Column("agent_100", "server, each of 100 agents", "KiB", Better.LOWER, plotted=True),
        Column("agent_1000", "server, each of 1,000 agents", "KiB", Better.LOWER),
    )
    most_rounds: int = 1

    def takes(self, peer: Peer) -> bool:
        """Tell about tunnels; a proxy on one machine has no agent."""
        return peer.mode is not Mode.BASELINE and peer.name not in VARIANTS

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Measure the three parts."""
        return {
            **self._connections(bench, peer, effort),
            **self._pending(bench, peer),
            **self._agents(bench, peer, effort),
        }

    def _connections(self, bench: Bench, peer: Peer, effort: Effort) -> dict[str, float]:
        with Deployment(bench, peer, settings=_settings(peer)) as running:
            idle = _settled(running)
            values = {
                "idle_server": idle.server / MEBIBYTE,
                "idle_agent": idle.agent / MEBIBYTE,
            }
            with IdleVisitors(running.address) as visitors:
                for count in effort.idle_connections:
                    if visitors.seconds * (count / max(1, visitors.count)) > OPEN_SECONDS:
                        break
                    with contextlib.suppress(LoadError):
                        visitors.keep_alive(count - visitors.count)
                    if visitors.count < ENOUGH * count:
                        break
                    grown = _settled(running).since(idle)
                    if not running.is_alive:
                        break
                    values[f"connection_{count}"] = grown.server / visitors.count / KIBIBYTE
                    values[f"connection_agent_{count}"] = grown.agent / visitors.count / KIBIBYTE
        return values

    def _pending(self, bench: Bench, peer: Peer) -> dict[str, float]:
        with Deployment(bench, peer, settings=_settings(peer)) as running:
            idle = _settled(running)
            known = bench.origin.pending()
            with IdleVisitors(running.address) as visitors:
                visitors.wait_for("/never", PENDING)
                grown = _settled(running).since(idle)
                return {
                    "pending_reached": float(bench.origin.pending() - known),
                    "pending_server": grown.server / PENDING / KIBIBYTE,
                    "pending_agent": grown.agent / PENDING / KIBIBYTE,
                    "still_serves": float(get(running.address) == 200),
                }

    def _agents(self, bench: Bench, peer: Peer, effort: Effort) -> dict[str, float]:
        values: dict[str, float] = {}
        for count in effort.agents:
            with Deployment(bench, peer, more_agents=count, settings=_settings(peer)) as running:
                idle = _settled(running)
                if running.plan.fleet is not None:
                    fleet = running.start_another("fleet", running.plan.fleet(count))
                    wait_until(
                        lambda: fleet.has_ended or "ready" in fleet.output(),  # noqa: B023 - waited for here
                        "the fleet",
                        seconds=READY_SECONDS,
                        words=fleet.last_words,
                    )
                elif running.plan.another_agent is not None and count == min(effort.agents):
                    self._start_processes(running, count)
                else:
                    break
                grown = _settled(running).since(idle)
                values[f"agent_{count}"] = grown.server / count / KIBIBYTE
        return values

    @staticmethod
    def _start_processes(running: Deployment, count: int) -> None:
        another, port = running.plan.another_agent, running.plan.link_port
        if another is None or port is None:
            return
        known = procfs.established(port)
        for number in range(count):
            running.start_another(f"agent{number}", another(number))
        wait_until(
            lambda: procfs.established(port) >= known + count, "the agents", seconds=READY_SECONDS
        )


def _settings(peer: Peer) -> tuple[str, ...]:
    return MOLEPORT_SETTINGS if isinstance(peer, Moleport) else ()


def _settled(running: Deployment) -> Sides:
    """Return the memory after a moment, in which buffers of what has just happened are freed."""
    time.sleep(SETTLE_SECONDS)
    return running.resident()
