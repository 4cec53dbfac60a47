from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

import pytest

from helpers.clock import FakeClock
from helpers.edge_rig import EdgeRig, edge_rig, get
from helpers.upstream import ScriptedUpstream, answer
from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.access.bounds import Bounds
from moleport_server.domain.token import Limits
from moleport_server.domain.tunnel import OPEN, TunnelProtocol, VisitorRules
from moleport_server.edge.live_rules import LiveRules
from moleport_server.edge.throttle import ThrottledStream
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Tunnel

DENIED = VisitorRules(denied_cidrs=(ip_network("127.0.0.0/8"),))


class NoTcp:
    """A TCP edge without connections."""

    def connections_of(self, tunnel: Tunnel) -> list[Any]:
        return []


@dataclass
class Watched:
    rig: EdgeRig
    rules: LiveRules
    visitors: AsyncExitStack

    @property
    def clock(self) -> FakeClock:
        return self.rig.clock

    def limit(self, **limits: Any) -> None:
        self.rig.tunnel.bounds = Bounds(Limits(**limits), self.clock.monotonic())

    async def waiting_visitor(self) -> Visitor:
        """Return a visitor whose request the service has and does not answer."""
        visitor = await self.visitors.enter_async_context(self.rig.visitor())
        visitor.send(get("/slow"))
        await until(lambda: any(stream.requests for stream in self.rig.upstream.streams))
        return visitor


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    async with edge_rig(ScriptedUpstream(respond=lambda _: None)) as rig:
        rules = LiveRules(rig.edge, NoTcp(), rig.registry.tunnels, rig.clock)  # type: ignore[arg-type]  # the part it asks
        async with AsyncExitStack() as visitors:
            yield Watched(rig, rules, visitors)


async def test_a_visitor_that_the_new_rules_leave_out_is_cut_off(watched: Watched) -> None:
    visitor = await watched.waiting_visitor()
    watched.rig.tunnel.rules = DENIED

    watched.rules.rules_changed(watched.rig.tunnel)

    assert watched.rig.upstream.open_streams == 0
    with pytest.raises((ConnectionError, EOFError)):
        await visitor.head()


@pytest.mark.parametrize(
    "rules",
    [VisitorRules(requires_tls=True), VisitorRules(http_denied="closed"), DENIED],
    ids=["no TLS", "closed", "denied"],
)
async def test_each_rule_that_a_running_request_breaks_ends_it(
    watched: Watched, rules: VisitorRules
) -> None:
    await watched.waiting_visitor()
    watched.rig.tunnel.rules = rules

    watched.rules.rules_changed(watched.rig.tunnel)

    assert watched.rig.upstream.open_streams == 0


async def test_visitors_that_the_new_rules_let_in_go_on(watched: Watched) -> None:
    visitor = await watched.waiting_visitor()
    watched.rig.tunnel.rules = VisitorRules(allowed_cidrs=(ip_network("127.0.0.0/8"),))

    watched.rules.rules_changed(watched.rig.tunnel)
    watched.rig.upstream.streams[0].send(answer(b"late"))

    assert (await visitor.answer()).body == b"late"


async def test_requests_of_other_tunnels_are_left_alone(watched: Watched) -> None:
    await watched.waiting_visitor()
    other = await watched.rig.registry.claim(
        watched.rig.session, 2, Claim(protocol=TunnelProtocol.HTTP, subdomain="till")
    )
    other.rules = DENIED

    watched.rules.rules_changed(other)

    assert watched.rig.upstream.open_streams == 1


async def test_a_running_request_gets_its_throttle(watched: Watched) -> None:
    visitor = await watched.waiting_visitor()
    watched.limit(bandwidth=1)

    watched.rules.rules_changed(watched.rig.tunnel)

    stream = watched.rig.upstream.streams[0]
    assert isinstance(stream.receiver, ThrottledStream)
    stream.send(answer(b"x" * 100_000))
    assert stream.is_reading_paused
    assert (await visitor.answer()).body == b"x" * 100_000


async def test_a_request_on_which_nothing_moves_is_answered_for_the_service(
    watched: Watched,
) -> None:
    visitor = await watched.waiting_visitor()
    watched.limit(idle_seconds=5)

    await watched.rules.end_silent()
    watched.clock.advance(4)
    await watched.rules.end_silent()
    assert watched.rig.upstream.open_streams == 1
    watched.clock.advance(1)
    await watched.rules.end_silent()

    assert (await visitor.answer()).status == 504


async def test_bytes_start_the_time_anew_and_an_answer_that_stops_is_broken_off(
    watched: Watched,
) -> None:
    visitor = await watched.waiting_visitor()
    watched.limit(idle_seconds=5)
    stream = watched.rig.upstream.streams[0]

    await watched.rules.end_silent()
    watched.clock.advance(4)
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    await watched.rules.end_silent()
    watched.clock.advance(4)
    await watched.rules.end_silent()
    assert not stream.is_over
    watched.clock.advance(1)
    await watched.rules.end_silent()

    assert stream.is_over
    with pytest.raises((ConnectionError, EOFError)):
        await visitor.answer()


async def test_without_a_limit_silence_is_fine(watched: Watched) -> None:
    await watched.waiting_visitor()
    watched.rig.tunnel.rules = OPEN

    await watched.rules.end_silent()
    watched.clock.advance(1_000_000)
    await watched.rules.end_silent()

    assert watched.rig.upstream.open_streams == 1
