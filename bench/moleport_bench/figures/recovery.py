"""Recovery: what visitors notice when the link is cut, the agent dies, or the server dies.

Two hundred requests a second come all the time. After the event the figure waits until a second has
passed without a failure, or gives up; recovery is the time from the event to the first answer of those
that began after the last one that failed.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from moleport_bench import procfs
from moleport_bench.deployment import Bench, Deployment
from moleport_bench.errors import BenchError, LoadError
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.peers.base import VARIANTS, Mode, Peer
from moleport_bench.relay import Relay
from moleport_bench.steady import SteadyVisitors, Visit

STEADY_SECONDS = 0.7
"""Before the event; all of it has to work, or nothing is measured."""
DOWN_SECONDS = 0.2
"""From a kill to the start of the same program again, as a supervisor would."""
CALM_SECONDS = 1.0
"""So long without a failure, and the tunnel counts as back."""
LIMIT_SECONDS = 6.0
LISTEN_STEP_SECONDS = 0.005
LOOK_SECONDS = 0.05


class Outcome(NamedTuple):
    """What visitors noticed of one event."""

    failed: int
    recovery_seconds: float
    """Infinite when it never came back."""
    longest_wait: float
    """Of the requests that were answered."""


def judge(visits: Iterable[Visit], event: float) -> Outcome:
    """Say what visitors noticed.

    Args:
        visits: all of them, in any order.
        event: when it happened.
    """
    known = list(visits)
    failures = [visit for visit in known if not visit.succeeded]
    answers = [visit for visit in known if visit.succeeded]
    # By when requests began: one that fails after ten seconds of patience belongs to its beginning.
    last = max((visit.began for visit in failures), default=event)
    back = min((visit.ended for visit in answers if visit.began >= last), default=math.inf)
    longest = max((visit.waited for visit in answers), default=0.0)
    return Outcome(len(failures), back - event, longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryFigure:
    """A relay that cuts, and kill -9."""

    name: str = "recovery"
    title: str = "Recovery at 200 requests per second"
    method: str = (
        "One connection per request, 10 s of patience. Cut: a relay between agent and server resets all "
        "connections and stays up. Killed: kill -9, and the same program again 0.2 s later. Recovery: "
        "from the event (server: from when it listens again) to the first answer after the last failure; "
        "a dash: it did not come back within 6 s. Wait after back: how long after the agent reported its "
        "tunnel the last of the waiting requests had its answer."
    )
    columns: Sequence[Column] = (
        Column("cut_failed", "cut: failed", "", Better.LOWER, plotted=True),
        Column("cut_recovery", "recovery", "s", Better.LOWER),
        Column("cut_wait", "longest wait", "s", Better.LOWER),
        Column("agent_failed", "agent killed: failed", "", Better.LOWER, plotted=True),
        Column("agent_recovery", "recovery", "s", Better.LOWER),
        Column("agent_wait", "longest wait", "s", Better.LOWER),
        Column("agent_wait_after_back", "wait after back", "s", Better.LOWER),
        Column("server_failed", "server killed: failed", "", Better.LOWER, plotted=True),
        Column("server_down", "until it listens", "s", Better.LOWER),
        Column("server_recovery", "recovery after that", "s", Better.LOWER),
    )
    most_rounds: int = 3

    def takes(self, peer: Peer) -> bool:
        """Tell about tunnels that can reconnect."""
        return peer.mode is not Mode.BASELINE and peer.name not in VARIANTS

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Measure the three events, each with fresh processes."""
        values: dict[str, float] = {}
        failures: list[str] = []
        for part in (_cut, _agent_killed, _server_killed):
            try:
                values |= asyncio.run(part(bench, peer))
            except* BenchError as group:
                failures.extend(str(error) for error in group.exceptions)
        if not values:
            raise LoadError("; ".join(failures))
        return {name: value for name, value in values.items() if math.isfinite(value)}


async def _cut(bench: Bench, peer: Peer) -> dict[str, float]:
    port = bench.ports.one()
    running = Deployment(bench, peer, relay_port=port)
    link = running.plan.link_port
    if link is None:
        raise LoadError("there is no link to cut")

    async def cut() -> None:
        relay.cut()

    async with Relay(port, link) as relay, _opened(running):
        visits, event = await _watch(running, cut)
    outcome = judge(visits, event)
    return {
        "cut_failed": float(outcome.failed),
        "cut_recovery": outcome.recovery_seconds,
        "cut_wait": outcome.longest_wait,
    }


async def _agent_killed(bench: Bench, peer: Peer) -> dict[str, float]:
    running = Deployment(bench, peer)
    back = math.nan

    async def kill_and_restart() -> None:
        nonlocal back
        running.kill_agent()
        await asyncio.sleep(DOWN_SECONDS)
        running.start_agent()
        agent, sign = running.agent, running.plan.agent_is_back
        if agent is not None and sign is not None:
            await _until(lambda: sign in agent.output())
            back = time.monotonic()

    async with _opened(running):
        visits, event = await _watch(running, kill_and_restart)
    outcome = judge(visits, event)
    waiting = [visit.ended - back for visit in visits if visit.succeeded and visit.began < back]
    return {
        "agent_failed": float(outcome.failed),
        "agent_recovery": outcome.recovery_seconds,
        "agent_wait": outcome.longest_wait,
        "agent_wait_after_back": max(0.0, *waiting) if waiting else math.nan,
    }


async def _server_killed(bench: Bench, peer: Peer) -> dict[str, float]:
    running = Deployment(bench, peer)
    port = running.plan.link_port
    listens = math.nan

    async def kill_and_restart() -> None:
        nonlocal listens
        running.kill_server()
        await asyncio.sleep(DOWN_SECONDS)
        running.start_server()
        if port is not None:
            await _until(lambda: procfs.is_listening(port))
            listens = time.monotonic()

    async with _opened(running):
        visits, event = await _watch(running, kill_and_restart)
    outcome = judge(visits, event)
    return {
        "server_failed": float(outcome.failed),
        "server_down": listens - event,
        "server_recovery": max(0.0, outcome.recovery_seconds - (listens - event)),
    }


@asynccontextmanager
async def _opened(running: Deployment) -> AsyncIterator[None]:
    """Start and end a deployment outside of the loop, in which the relay has to go on."""
    await asyncio.to_thread(running.open)
    try:
        yield
    finally:
        await asyncio.to_thread(running.close)


async def _watch(
    running: Deployment, make_it_happen: Callable[[], Awaitable[None]]
) -> tuple[list[Visit], float]:
    """Let visitors come before, during and after an event, until all is calm again.

    Returns:
        All visits, and when the event was.

    Raises:
        LoadError: visitors failed before anything had happened.
    """
    visitors = SteadyVisitors(running.address)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(visitors.run())
        await asyncio.sleep(STEADY_SECONDS)
        failed_before = visitors.last_failure()
        event = time.monotonic()
        if not failed_before:
            await make_it_happen()
            await _until_calm(visitors, event)
        visitors.stop()
    if failed_before:
        raise LoadError("requests failed before anything had happened")
    return visitors.visits, event


async def _until_calm(visitors: SteadyVisitors, event: float) -> None:
    over = time.monotonic()
    while (now := time.monotonic()) < event + LIMIT_SECONDS:
        calm_since = max(over, visitors.last_failure())
        newest = max((visit.ended for visit in visitors.visits if visit.succeeded), default=0.0)
        if now - calm_since > CALM_SECONDS and now - newest < CALM_SECONDS / 4:
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LoadError(f"it did not come back within {LIMIT_SECONDS:g} s")
        await asyncio.sleep(LISTEN_STEP_SECONDS)
