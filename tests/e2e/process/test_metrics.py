"""Every metric moves when its thing happens: one eventful life of a server, scraped all along."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from helpers.origins import RawOrigin, WebOrigin, echo
from helpers.processes import PATIENCE_SECONDS, Agent
from helpers.site import Site
from moleport_server.metrics import catalogue

HOST, GUARDED = "shop.localhost", "guarded.localhost"
POLL_SECONDS = 0.05
FLAGS = (
    "hold.lease_seconds=30",
    "auth.failures_per_minute=2",
    "limits.connections_per_address_before_auth=3",
    "capture.queue_bytes=4096",
    "server.drain_delay_seconds=5",
)
TOO_SHORT_TO_SEE = {
    catalogue.SEND_BUFFER.name,  # above zero only between two turns of the event loop
    catalogue.CAPTURE_QUEUE.name,  # emptied several times a second
}


@dataclass
class Observed:
    """What scrapes have shown so far."""

    site: Site
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    moved: set[str] = field(default_factory=set)
    """Rows of the catalogue of which a series was above zero."""

    async def scrape(self) -> None:
        for family in text_string_to_metric_families(await self.site.metrics()):
            name = family.name + ("_total" if family.type == "counter" else "")
            for sample in family.samples:
                self.values[sample.name, frozenset(sample.labels.items())] = sample.value
                if sample.value > 0:
                    self.moved.add(name)

    def value(self, row: catalogue.Row, suffix: str = "", **labels: str) -> float:
        return self.values.get((row.name + suffix, frozenset(labels.items())), 0.0)

    async def wait(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self.scrape()
                while not condition():
                    await asyncio.sleep(POLL_SECONDS)
                    await self.scrape()
        except TimeoutError:
            raise AssertionError(f"{what} was not counted") from None

    async def wait_for(self, row: catalogue.Row, suffix: str = "", **labels: str) -> None:
        await self.wait(
            lambda: self.value(row, suffix, **labels) > 0, f"{row.name}{suffix} {labels}"
        )


@asynccontextmanager
async def connected(port: int, text: bytes = b"") -> AsyncIterator[asyncio.StreamReader]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        yield reader
    finally:
        writer.transport.abort()


async def start_agent(site: Site, origin: WebOrigin, echoing: RawOrigin) -> Agent:
    file = site.directory / "moleport.yaml"
    file.write_text(
        "tunnels:\n"
        f"  shop: {{ protocol: http, target: {origin.port}, name: shop }}\n"
        f"  guarded: {{ protocol: http, target: {origin.port}, name: guarded,"
        " basic_auth: ['mole:tunnel'] }\n"
        f"  echo: {{ protocol: tcp, target: {echoing.port} }}\n"
    )
    return await site.start_agent("start", "--file", file, tunnels=3)


@pytest.mark.timeout(120)
async def test_every_row_of_the_catalogue_moves(site: Site, origin: WebOrigin) -> None:
    await site.start_server(*FLAGS)
    seen = Observed(site)
    async with RawOrigin(echo) as echoing:
        agent = await start_agent(site, origin, echoing)
        await seen.wait_for(catalogue.SESSIONS_OPENED, result="new")
        assert seen.value(catalogue.AUTH_ATTEMPTS, kind="agent", result="accepted") == 1
        assert seen.value(catalogue.TUNNEL_OPENS, protocol="http", result="opened") == 2
        assert seen.value(catalogue.RUSTUNNEL_HTTP) == 2
        assert seen.value(catalogue.RUSTUNNEL_TCP) == 1

        await visit_everything(site, seen)
        await knock_too_often(site, seen)
        await stop_reading(site, seen)
        await seen.wait_for(catalogue.AGENT_RTT, "_count")
        assert 0 < seen.value(catalogue.AGENT_RTT, "_sum") < 10  # seconds, not milliseconds
        agent = await lose_the_agent(site, seen, origin, echoing, agent)

        tunnels = {
            tunnel["label"]: tunnel["tunnel_id"] for tunnel in await site.api("GET", "/api/tunnels")
        }
        await site.api("DELETE", f"/api/tunnels/{tunnels[HOST]}")
        await seen.wait_for(catalogue.TUNNEL_CLOSES, protocol="http", reason="deleted")
        assert seen.value(catalogue.TUNNEL_DURATION, "_count", protocol="http") == 1
        agent.send_signal(signal.SIGINT)
        await seen.wait_for(catalogue.SESSIONS_CLOSED, reason="goodbye")

        site.server.send_signal(signal.SIGTERM)
        await seen.wait_for(catalogue.DRAINING)

    assert {row.name for row in catalogue.CATALOGUE} - seen.moved <= TOO_SHORT_TO_SEE


async def visit_everything(site: Site, seen: Observed) -> None:
    assert (await site.curl(HOST, "/headers")).exit_code == 0
    assert (await site.curl(HOST, "/headers", tls=True)).exit_code == 0
    assert (await site.curl(GUARDED, "/", "--user", "mole:tunnel")).exit_code == 0
    await site.curl(GUARDED, "/")
    # More at once than the queue of captures was given room for.
    await site.curl(HOST, "/size/1?[1-30]")
    async with connected(site.tcp_port, b"hello") as visitor, asyncio.timeout(PATIENCE_SECONDS):
        assert await visitor.readexactly(5) == b"hello"
        await seen.wait(
            lambda: seen.value(catalogue.CONNECTIONS_ACTIVE, protocol="tcp") == 1, "a connection"
        )
    async with connected(site.https_port, b"this is no TLS\r\n\r\n"):
        await seen.wait_for(catalogue.TLS_FAILURES, listener="edge-https")

    await seen.wait_for(catalogue.CONNECTION_DURATION, "_count", protocol="tcp")
    await seen.wait_for(catalogue.CAPTURES_WRITTEN)
    await seen.wait_for(catalogue.CAPTURES_DROPPED, reason="queue_full")
    assert seen.value(catalogue.CONNECTIONS, listener="edge-http", result="accepted") == 4
    assert seen.value(catalogue.CONNECTIONS, listener="edge-https", result="accepted") == 1
    assert seen.value(catalogue.CONNECTIONS, listener="tcp", result="accepted") == 1
    assert seen.value(catalogue.CONNECTION_DURATION, "_count", protocol="http") == 5
    assert seen.value(catalogue.REQUESTS, protocol="http", code="2xx") == 33
    assert seen.value(catalogue.REQUESTS, protocol="http", code="4xx") == 1
    assert seen.value(catalogue.CAPTURES) == 33
    assert seen.value(catalogue.BYTES, protocol="tcp", direction="to_visitor") == 5
    assert seen.value(catalogue.AUTH_ATTEMPTS, kind="visitor", result="accepted") == 1
    assert seen.value(catalogue.POLICY_DENIED, rule="basic_auth") == 1


async def knock_too_often(site: Site, seen: Observed) -> None:
    for number in range(3):
        await site.curl_api("GET", "/api/tunnels", token=f"wrong-{number}")
    await seen.wait_for(catalogue.RATE_LIMITED, limit="login_failures")
    assert seen.value(catalogue.AUTH_ATTEMPTS, kind="api", result="rejected") == 2
    assert seen.value(catalogue.AUTH_ATTEMPTS, kind="api", result="limited") == 1
    labels = {"route": "/api/tunnels", "method": "GET", "code": "401"}
    assert seen.value(catalogue.API_REQUESTS, **labels) == 2
    async with (
        connected(site.api_port),
        connected(site.api_port),
        connected(site.api_port),
        connected(site.api_port) as fourth,
    ):
        assert await fourth.read() == b""
        await seen.wait_for(catalogue.RATE_LIMITED, limit="before_auth")
        assert seen.value(catalogue.UNAUTHENTICATED) == 3


async def stop_reading(site: Site, seen: Observed) -> None:
    request = f"GET /endless HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
    async with asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.http_port, limit=4096)
    writer.write(request)
    try:
        await reader.readline()
        await seen.wait_for(catalogue.CREDIT_STALL, direction="to_visitor")
        await seen.wait_for(catalogue.STREAMS_STALLED)
        await seen.wait_for(catalogue.RECEIVE_BUFFER)
    finally:
        writer.transport.abort()


async def lose_the_agent(
    site: Site, seen: Observed, origin: WebOrigin, echoing: RawOrigin, agent: Agent
) -> Agent:
    async with asyncio.TaskGroup() as visitors:
        waiting = visitors.create_task(site.curl(HOST, "/gated"))
        await origin.arrived.acquire()
        await agent.kill()
        await seen.wait_for(catalogue.HELD_NOW)
        assert seen.value(catalogue.LEASES, protocol="http") == 2
        origin.gate.set()
        agent = await start_agent(site, origin, echoing)
        assert (await waiting).text == "through the gate"

    await seen.wait_for(catalogue.HELD, protocol="http", result="served")
    assert seen.value(catalogue.RETRIES) == 1
    assert seen.value(catalogue.STREAM_ERRORS, reason="session_lost") == 1
    assert seen.value(catalogue.SESSIONS_CLOSED, reason="lost") == 1
    assert seen.value(catalogue.LEASES_ENDED, result="resumed") == 3
    assert seen.value(catalogue.TUNNEL_OPENS, protocol="tcp", result="resumed") == 1
    return agent
