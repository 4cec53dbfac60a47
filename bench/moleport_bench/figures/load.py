"""Requests per second with their CPU time, over many connections, over one, and over new ones."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench import wrk
from moleport_bench.deployment import Bench, Deployment
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.peers.base import Peer

WARM_UP_SECONDS = 1
REQUESTS = 100_000
"""CPU time is given for so many."""


def columns(rate: str) -> Sequence[Column]:
    """Return the columns of a load figure."""
    return (
        Column("per_second", rate, "1/s", Better.HIGHER, plotted=True),
        Column("p50_ms", "p50", "ms", Better.LOWER),
        Column("p99_ms", "p99", "ms", Better.LOWER),
        Column("cpu", "CPU per 100k", "s", Better.LOWER, plotted=True),
        Column("server_cpu", "server", "s", Better.LOWER),
        Column("agent_cpu", "agent", "s", Better.LOWER),
        Column("errors", "errors", "", Better.LOWER),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFigure:
    """wrk at full speed."""

    name: str
    title: str
    method: str
    columns: Sequence[Column]
    share: float
    """Of the seconds of a run."""
    connections: int | None = None
    """None: as many as the run says."""
    fields: Sequence[str] = ()
    most_rounds: int = 100

    def takes(self, peer: Peer) -> bool:
        """Everybody answers requests."""
        return True

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Run wrk, with the CPU time of the peer's processes around it."""
        connections = self.connections or effort.connections
        seconds = max(1, round(effort.seconds * self.share))
        with Deployment(bench, peer) as running:
            wrk.load(
                running.address,
                connections=connections,
                seconds=WARM_UP_SECONDS,
                fields=self.fields,
            )
            before = running.cpu()
            load = wrk.load(
                running.address, connections=connections, seconds=seconds, fields=self.fields
            )
            spent = running.cpu().since(before)
        each = REQUESTS / load.requests
        values = {
            "per_second": load.per_second,
            "p50_ms": load.p50_ms,
            "p99_ms": load.p99_ms,
            "max_ms": load.max_ms,
            "errors": float(load.errors),
        }
        if running.plan.server is not None:
            values |= {
                "cpu": spent.both * each,
                "server_cpu": spent.server * each,
            }
        if running.plan.agent is not None:
            values["agent_cpu"] = spent.agent * each
        return values


REQUESTS_FIGURE = LoadFigure(
    name="requests",
    title="Requests per second over 64 connections, and their CPU time",
    method="wrk, one thread, 64 keep-alive connections, an answer of 100 bytes, after 1 s of warm-up. "
    "CPU: user and system seconds of the server's and the agent's processes per 100,000 requests.",
    columns=columns("requests/s"),
    share=1.0,
)
SINGLE_FIGURE = LoadFigure(
    name="single",
    title="One connection: latency",
    method="The same over one connection: how long one request takes when nothing else is under way. "
    "p99 holds the scheduler's noise of some milliseconds; compare p50.",
    columns=(
        Column("p50_ms", "p50", "ms", Better.LOWER, plotted=True),
        *(column for column in columns("requests/s") if column.key in {"p99_ms"}),
        Column("max_ms", "longest", "ms", Better.LOWER),
        *(Column("per_second", "requests/s", "1/s", Better.HIGHER),),
        *(column for column in columns("") if column.key in {"errors"}),
    ),
    share=0.4,
    connections=1,
)
NEW_CONNECTIONS_FIGURE = LoadFigure(
    name="new-connections",
    title="New connections per second",
    method="wrk with `Connection: close`, 64 at a time, one request on each: what opening costs.",
    columns=columns("connections/s"),
    share=0.4,
    fields=("Connection: close",),
)
