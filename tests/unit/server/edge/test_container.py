"""Container ports open listeners of the right kind; the visitors' side is in the process tests."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from prometheus_client import CollectorRegistry

from helpers.edge_rig import EdgeRig, edge_rig
from helpers.processes import free_port
from helpers.upstream import ScriptedUpstream
from helpers.visitor import Visitor
from helpers.waiting import DEADLINE_SECONDS, until
from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.config.values import Endpoint
from moleport_server.domain.tunnel import ContainerMode, TunnelProtocol
from moleport_server.edge.container import TunnelListeners
from moleport_server.edge.tcp import TcpEdge
from moleport_server.errors import PortTaken
from moleport_server.listening import bind_listener
from moleport_server.metrics.instruments import EdgeMetrics
from moleport_server.registry.claim import Claim
from moleport_server.registry.container_ports import ContainerClaim, ContainerPortSettings
from moleport_server.registry.live import Session, Tunnel

PORTS = ContainerPortSettings(expose=True, expose_host="127.0.0.1", pull=True)
GET = b"GET /%b HTTP/1.1\r\nHost: any.name\r\n\r\n"


@asynccontextmanager
async def container_rig() -> AsyncIterator[tuple[EdgeRig, TunnelListeners, Session]]:
    async with edge_rig(registry={"container_ports": PORTS}) as rig:
        tcp = TcpEdge(
            partial(Endpoint, "127.0.0.1"),
            metrics=EdgeMetrics.create(CollectorRegistry()),
            clock=rig.clock,
            max_connections=10,
            connections_per_tunnel=10,
            preamble=None,
            descriptors=DescriptorBudget(1 << 20),
            bind=bind_listener,
        )
        tcp.registry = rig.registry
        listeners = TunnelListeners(tcp)
        listeners.edge = rig.edge
        rig.registry._tunnels._listeners = listeners
        yield rig, listeners, rig.base.session(upstream=ScriptedUpstream())
        tcp.close_all()
        listeners.drain()


async def bind(
    rig: EdgeRig, session: Session, mode: ContainerMode, port: int, bind_id: int = 1
) -> Tunnel:
    protocol = TunnelProtocol.HTTP if mode is ContainerMode.EXPOSE else TunnelProtocol.TCP
    container = ContainerClaim(mode=mode, port=port)
    tunnel = await rig.registry.claim(
        session, bind_id, Claim(protocol=protocol, container=container)
    )
    rig.registry.welcome(session, tunnel)
    return tunnel


async def test_an_exposed_port_leads_to_its_tunnel_whatever_host_is_named() -> None:
    async with container_rig() as (rig, _, session):
        port = free_port()
        tunnel = await bind(rig, session, ContainerMode.EXPOSE, port)

        async with Visitor(port) as visitor:
            visitor.send(GET % b"a")
            assert (await visitor.answer()).status == 200

        assert tunnel.request_count == 1


async def test_a_closed_port_ends_idle_visitors_and_refuses_new_ones() -> None:
    async with container_rig() as (rig, _, session):
        port = free_port()
        tunnel = await bind(rig, session, ContainerMode.EXPOSE, port)
        async with Visitor(port) as visitor:
            visitor.send(GET % b"a")
            await visitor.answer()

            await rig.registry.close_tunnel(tunnel, "closed")

            await until(lambda: not [c for c in rig.edge.connections if c.tunnel is tunnel])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_pulled_port_is_a_tcp_listener_on_loopback() -> None:
    async with container_rig() as (rig, _, session):
        port = free_port()
        tunnel = await bind(rig, session, ContainerMode.PULL, port)

        async with asyncio.timeout(DEADLINE_SECONDS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await until(lambda: tunnel.request_count == 1)
            writer.transport.abort()


@pytest.mark.parametrize("mode", ContainerMode)
async def test_a_port_of_another_program_is_refused(mode: ContainerMode) -> None:
    async with container_rig() as (rig, _, session):
        server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
        taken = server.sockets[0].getsockname()[1]

        with pytest.raises(PortTaken):
            await bind(rig, session, mode, taken)

        assert rig.registry.container_ports.holder(taken) is None
        server.close()
        await server.wait_closed()


async def test_a_drain_accepts_nobody_new() -> None:
    async with container_rig() as (rig, listeners, session):
        port = free_port()
        await bind(rig, session, ContainerMode.EXPOSE, port)

        listeners.drain()

        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
