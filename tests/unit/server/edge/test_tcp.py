"""TCP tunnels: real visitors, a real listener, and a driver by another WebSocket library."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from helpers.agent_rig import AgentRig, Driver, agent_rig, goaway
from helpers.clock import FakeClock
from helpers.garbage import alive, without_collector
from helpers.processes import free_port
from helpers.visitor import Visitor
from helpers.waiting import until
from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.config import values
from moleport_server.edge.plain_listener import ProxyPreamble
from moleport_server.edge.tcp import TcpConnection, TcpEdge
from moleport_server.errors import PortTaken
from moleport_server.listening import bind_listener
from moleport_server.metrics.instruments import EdgeMetrics
from moleport_server.registry.live import Tunnel
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.proxy_protocol import Endpoint, serialize

UPLOAD_BYTES = 1024 * 1024
"""More than an agent takes without granting credit, and less than the kernel keeps besides."""


def _is_reading(connection: TcpConnection) -> bool:
    transport = connection.transport
    return transport is not None and transport.is_reading()


@dataclass(slots=True)
class TcpRig:
    """A TCP edge with one tunnel and the agent behind it."""

    agents: AgentRig
    edge: TcpEdge
    driver: Driver
    tunnel: Tunnel
    collector: CollectorRegistry

    def visitor(self) -> Visitor:
        assert self.tunnel.port is not None
        return Visitor(self.tunnel.port)

    async def stream(self) -> int:
        """Return the id of the next stream."""
        return (await self.driver.frame(frames.STREAM_OPEN))[1]

    def count(self, name: str, **labels: str) -> float:
        return self.collector.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def tcp_rig(
    *,
    max_connections: int = 100,
    connections_per_tunnel: int = 100,
    preamble: ProxyPreamble | None = None,
    registry: dict[str, Any] | None = None,
    budget: ReceiveBudget | None = None,
    **bind: Any,
) -> AsyncIterator[TcpRig]:
    collector = CollectorRegistry()
    clock = FakeClock()
    edge = TcpEdge(
        partial(values.Endpoint, "127.0.0.1"),
        metrics=EdgeMetrics.create(collector),
        clock=clock,
        max_connections=max_connections,
        connections_per_tunnel=connections_per_tunnel,
        preamble=preamble,
        descriptors=DescriptorBudget(1 << 20),
        bind=bind_listener,
    )
    port = free_port()
    settings = {"listeners": edge, "clock": clock, "tcp_ports": (port, port)} | (registry or {})
    async with agent_rig(registry=settings, budget=budget) as agents, agents.driver() as driver:
        edge.registry = agents.base.registry
        hello = await driver.greet(wants_reports=True)
        await driver.bind(1, "tcp", **bind)
        (tunnel,) = agents.base.registry.tunnels.values()
        assert tunnel.session_id == hello.session_id
        try:
            yield TcpRig(agents, edge, driver, tunnel, collector)
        finally:
            edge.close_all()


async def test_bytes_pass_both_ways_with_half_close() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        visitor.send(b"question")
        visitor.send_eof()

        _, stream, payload = await rig.driver.frame(frames.STREAM_OPEN)
        assert messages.StreamOpen.decode(payload).peer == visitor.address
        assert await rig.driver.payload(frames.DATA) == b"question"
        await rig.driver.frame(frames.EOF)
        await rig.driver.send(frames.DATA, b"answer", stream)
        await rig.driver.send(frames.EOF, b"", stream)

        assert await visitor.rest() == b"answer"
        await until(lambda: rig.edge.connection_count == 0)
        assert (rig.tunnel.bytes_in, rig.tunnel.bytes_out) == (8, 6)
        assert (rig.tunnel.active, rig.tunnel.request_count) == (0, 1)
        report = messages.Report.decode(await rig.driver.payload(frames.REPORT))
        assert report.requests[0].method == "TCP"


@pytest.mark.parametrize("is_orderly", [True, False])
async def test_a_connection_that_ended_is_freed_without_the_garbage_collector(
    is_orderly: bool,
) -> None:
    with without_collector():
        async with tcp_rig() as rig:
            async with rig.visitor() as visitor:
                visitor.send(b"question")
                stream = await rig.stream()
                if is_orderly:
                    await rig.driver.send(frames.EOF, b"", stream)
                    visitor.send_eof()
                else:
                    await rig.driver.send(frames.RESET, b"\0\1", stream)
                await until(lambda: rig.edge.connection_count == 0)

            await until(lambda: alive(TcpConnection) == 0)


async def test_a_service_may_speak_and_end_first() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()
        await rig.driver.send(frames.DATA, b"220 ready\r\n", stream)
        await rig.driver.send(frames.EOF, b"", stream)

        assert await visitor.rest() == b"220 ready\r\n"
        visitor.send(b"late")
        assert await rig.driver.payload(frames.DATA) == b"late"


async def test_a_visitor_that_breaks_off_resets_the_stream() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()

        visitor.break_off()

        assert (await rig.driver.frame(frames.RESET))[1] == stream


async def test_a_visitor_that_breaks_off_while_its_bytes_wait_for_credit_resets_the_stream() -> (
    None
):
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()
        (connection,) = rig.edge.connections_of(rig.tunnel)
        visitor.send(b"x" * UPLOAD_BYTES)
        await until(lambda: not _is_reading(connection))

        visitor.break_off()

        assert (await rig.driver.frame(frames.RESET))[1] == stream


async def test_a_half_close_behind_bytes_that_wait_for_credit_waits_with_them() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()
        (connection,) = rig.edge.connections_of(rig.tunnel)
        visitor.send(b"x" * UPLOAD_BYTES)
        await until(lambda: not _is_reading(connection))
        visitor.send_eof()

        received = 0
        while (frame := await rig.driver.frame(frames.DATA, frames.EOF))[0] == frames.DATA:
            received += len(frame[2])
            for scope in (0, stream):
                await rig.driver.send(frames.WINDOW, len(frame[2]).to_bytes(4, "big"), scope)
        assert (frame[0], received) == (frames.EOF, UPLOAD_BYTES)
        await rig.driver.send(frames.DATA, b"thanks", stream)
        await rig.driver.send(frames.EOF, b"", stream)
        assert await visitor.rest() == b"thanks"


async def test_a_reset_stream_resets_the_visitor() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()

        await rig.driver.send(frames.RESET, int(Code.REFUSED).to_bytes(2, "big"), stream)

        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        assert rig.count("moleport_server_stream_errors_total", reason="refused") == 1


async def test_a_finished_connection_is_published_to_who_watches() -> None:
    async with tcp_rig() as rig:
        watcher = rig.agents.base.registry.events.watch()
        async with rig.visitor() as visitor:
            await rig.stream()
            visitor.break_off()

        async with asyncio.timeout(20):
            event = await anext(aiter(watcher))
        assert (event.kind, event.fields["method"]) == ("request.finished", "TCP")


# Hold


async def test_a_visitor_that_meets_an_absent_agent_waits_unread() -> None:
    async with tcp_rig() as rig, rig.agents.driver() as again, rig.visitor() as visitor:
        rig.driver.break_off()
        await until(lambda: rig.tunnel.session is None)
        async with rig.visitor() as held:
            held.send(b"question")
            await until(lambda: rig.agents.base.registry.holds.count == 1)

            hello = await again.greet(resume_session_id=rig.tunnel.session_id)

            assert hello.resumed
            assert await again.payload(frames.DATA) == b"question"
            assert rig.count("moleport_server_held_total", protocol="tcp", result="served")
        with pytest.raises(ConnectionResetError):
            await visitor.rest()


async def test_a_held_visitor_is_reset_when_nobody_comes() -> None:
    async with tcp_rig() as rig:
        rig.driver.break_off()
        await until(lambda: rig.tunnel.session is None)
        async with rig.visitor() as visitor:
            await until(lambda: rig.agents.base.registry.holds.count == 1)

            rig.agents.base.clock.advance(61)
            rig.agents.base.registry._leases.end_due()

            with pytest.raises(ConnectionError):
                await visitor.rest()
        assert rig.edge.connection_count == 0


async def test_a_held_visitor_that_leaves_is_forgotten_with_the_tunnel() -> None:
    async with tcp_rig() as rig:
        rig.driver.break_off()
        await until(lambda: rig.tunnel.session is None)
        async with rig.visitor():
            await until(lambda: rig.agents.base.registry.holds.count == 1)

            rig.edge.close_all()

            await until(lambda: rig.agents.base.registry.holds.count == 0)


@pytest.mark.parametrize("case", ["goodbye", "full hold"])
async def test_a_visitor_that_cannot_wait_is_reset_at_once(case: str) -> None:
    settings = {"hold_per_tunnel": 0} if case == "full hold" else {}
    async with tcp_rig(registry=settings) as rig:
        if case == "goodbye":
            await rig.driver.send(frames.GOAWAY, goaway())
        else:
            rig.driver.break_off()
        await until(lambda: rig.tunnel.session is None)

        async with rig.visitor() as visitor:
            with pytest.raises(ConnectionError):
                await visitor.rest()


# Limits and rules


@pytest.mark.parametrize(
    "limits", [{"max_connections": 1}, {"connections_per_tunnel": 1}], ids=["in all", "per tunnel"]
)
async def test_connections_above_a_limit_are_reset(limits: dict[str, Any]) -> None:
    async with tcp_rig(**limits) as rig, rig.visitor():
        await rig.stream()

        async with rig.visitor() as second:
            with pytest.raises(ConnectionError):
                await second.rest()

        assert rig.edge.connection_count == 1
        assert rig.count("moleport_server_connections_total", listener="tcp", result="refused") == 1


async def test_a_session_without_memory_resets_visitors() -> None:
    budget = ReceiveBudget(1 << 20, 1 << 16)
    async with tcp_rig(budget=budget) as rig:
        budget.held_bytes = budget.limit_bytes

        async with rig.visitor() as visitor:
            with pytest.raises(ConnectionError):
                await visitor.rest()
        budget.held_bytes = 0


async def test_an_address_outside_of_the_allowed_networks_is_reset() -> None:
    async with tcp_rig(allowed_cidrs=("192.0.2.0/24",)) as rig, rig.visitor() as visitor:
        with pytest.raises(ConnectionError):
            await visitor.rest()
        assert rig.tunnel.request_count == 0
        assert rig.count("moleport_server_policy_denied_total", rule="address") == 1


async def test_rules_meet_the_address_that_a_trusted_proxy_tells() -> None:
    header = serialize(1, Endpoint("192.0.2.9", 4000), Endpoint("192.0.2.1", 80))
    trusted = ProxyPreamble((ip_network("127.0.0.0/8"),))
    async with (
        tcp_rig(allowed_cidrs=("192.0.2.0/24",), preamble=trusted) as rig,
        rig.visitor() as visitor,
    ):
        visitor.send(header + b"question")

        opened = messages.StreamOpen.decode(await rig.driver.payload(frames.STREAM_OPEN))
        assert opened.peer == "192.0.2.9:4000"
        assert await rig.driver.payload(frames.DATA) == b"question"


# Life of listeners


async def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        async with tcp_rig() as rig:
            rig.tunnel.port = taken.getsockname()[1]

            with pytest.raises(PortTaken, match="in use by another program"):
                await rig.edge.open(rig.tunnel)


async def test_a_closed_tunnel_resets_its_visitors_and_frees_the_port() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        await rig.stream()

        await rig.agents.base.registry.close_tunnel(rig.tunnel, "deleted")
        rig.edge.close(rig.tunnel, reason="again")

        with pytest.raises(ConnectionResetError):
            await visitor.rest()
        with pytest.raises(ConnectionRefusedError):
            await rig.visitor().__aenter__()


async def test_a_drain_accepts_nobody_new_and_lets_the_others_finish() -> None:
    async with tcp_rig() as rig, rig.visitor() as visitor:
        stream = await rig.stream()

        rig.edge.drain()

        with pytest.raises(ConnectionRefusedError):
            await rig.visitor().__aenter__()
        await rig.driver.send(frames.DATA, b"still here", stream)
        assert await visitor.read(10) == b"still here"
        rig.edge.close_all()
        with pytest.raises(ConnectionResetError):
            await visitor.rest()
