"""A tunnel server without its outer shell: registry, HTTP edge and a real listener on loopback."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry

from helpers.clock import FakeClock
from helpers.upstream import ScriptedUpstream
from helpers.visitor import Visitor
from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.access.visitors import VisitorGate
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.ring import CaptureLog
from moleport_server.config.values import Endpoint
from moleport_server.domain.token import ADMIN, Principal
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.edge.access_log import AccessLog
from moleport_server.edge.http import EdgeSettings, HttpEdge
from moleport_server.edge.plain_listener import ProxyPreamble, listen
from moleport_server.listening import bind_listener
from moleport_server.metrics.instruments import EdgeMetrics
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.claim import Claim
from moleport_server.registry.journal import Journal
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.registry import Registry, RegistrySettings
from moleport_server.store.base import StateStore
from moleport_server.store.memory import MemoryStateStore
from moleport_wire.aio.tasks import TaskOwner

DOMAIN = "tunnels.test"
HOST = f"shop.{DOMAIN}"


class OpenListeners:
    """A `PortListeners` that opens nothing, and refuses the ports of `taken`."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.closed: list[tuple[int, str]] = []
        self.taken: dict[int, Exception] = {}
        self.gate: asyncio.Event | None = None
        """Set by a test: opening waits for it."""

    async def open(self, tunnel: Tunnel) -> None:
        port = listening_port(tunnel)
        if self.gate is not None:
            await self.gate.wait()
        if port in self.taken:
            raise self.taken[port]
        self.opened.append(port)

    def close(self, tunnel: Tunnel, *, reason: str) -> None:
        self.closed.append((listening_port(tunnel), reason))


def listening_port(tunnel: Tunnel) -> int:
    """Return the port of a tunnel that has a listener."""
    port = tunnel.port if tunnel.container is None else tunnel.container.port
    assert port is not None
    return port


@dataclass(slots=True)
class RegistryRig:
    """A registry over a memory store."""

    registry: Registry
    store: StateStore
    clock: FakeClock
    listeners: Any
    journal: Journal
    tasks: TaskOwner
    _count: int = 0

    def session(
        self,
        principal: Principal = ADMIN,
        *,
        upstream: ScriptedUpstream | None = None,
        peer: str = "192.0.2.7:5000",
        session_id: str | None = None,
        is_open: bool = True,
    ) -> Session:
        """Make a session, and register it."""
        self._count += 1
        session = Session(
            id=session_id or f"S-{self._count}",
            protocol="moleport",
            principal=principal,
            upstream=upstream or ScriptedUpstream(),
            peer=peer,
            connected_at=self.clock.now(),
        )
        if is_open:
            self.registry.open_session(session)
        return session

    async def written(self) -> None:
        """Wait until the store has everything."""
        assert await self.journal.flush(5.0)


@asynccontextmanager
async def registry_rig(
    store: StateStore | None = None,
    *,
    clock: FakeClock | None = None,
    listeners: Any = None,
    **settings: Any,
) -> AsyncIterator[RegistryRig]:
    """Build a registry; settings are those of `RegistrySettings`."""
    clock = clock or FakeClock()
    listeners = listeners or OpenListeners()
    store = store or MemoryStateStore()
    journal = Journal()
    async with TaskOwner() as background, TaskOwner() as tasks:
        background.start(journal.run(), "journal")
        values: dict[str, Any] = {
            "domains": (DOMAIN,),
            "reserved_names": frozenset({"www", f"control.{DOMAIN}"}),
            "addresses": PublicAddresses(scheme="https", port=8443, tcp_host=DOMAIN),
            "tcp_ports": (20_000, 20_003),
        }
        bits = iter(range(1, 1_000_000))
        registry = Registry(
            RegistrySettings(**(values | settings)),
            store,
            clock=clock,
            random_bits=lambda count: next(bits) % (1 << count),
            journal=journal,
            listeners=listeners,
            tasks=tasks,
        )
        try:
            yield RegistryRig(registry, store, clock, listeners, journal, tasks)
        finally:
            registry.close("the test is over")


@dataclass(slots=True)
class EdgeRig:
    """A registry with an HTTP edge in front and one agent behind it."""

    base: RegistryRig
    edge: HttpEdge
    port: int
    metrics: EdgeMetrics
    captures: CaptureLog
    collector: CollectorRegistry
    session: Session
    upstream: ScriptedUpstream
    tunnel: Tunnel
    logged: list[logging.LogRecord] = field(default_factory=list)

    @property
    def clock(self) -> FakeClock:
        return self.base.clock

    @property
    def registry(self) -> Registry:
        return self.base.registry

    def visitor(self, **options: Any) -> Visitor:
        return Visitor(self.port, **options)

    def sweep(self) -> None:
        """Look at deadlines now, as the edge does once a second."""
        timer = self.edge._timer
        if timer is not None:
            timer.cancel()
        self.edge._sweep()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sweep()

    def lose_agent(self, code: int = 4, *, is_clean: bool = False) -> None:
        """Let the agent vanish: its session is parked, then its streams end."""
        self.upstream.is_ended = True
        for tunnel in self.session.tunnels.values():
            tunnel.session = None
        for stream in self.upstream.streams:
            stream.lose(code, "the agent was lost")
        self.registry.lose_session(self.session, "gone", is_clean=is_clean)

    def return_agent(self, upstream: ScriptedUpstream | None = None) -> ScriptedUpstream:
        """Let the agent come back and resume."""
        self.upstream = upstream or ScriptedUpstream()
        self.session = self.base.session(
            upstream=self.upstream, session_id=self.session.id, is_open=False
        )
        tunnels = self.registry.resume_session(self.session)
        self.registry.attach(self.session, tunnels)
        return self.upstream

    def count(self, name: str, **labels: str) -> float:
        """Return a counter's value."""
        return self.collector.get_sample_value(name, labels) or 0.0


class _Collecting(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


@asynccontextmanager
async def edge_rig(
    upstream: ScriptedUpstream | None = None,
    *,
    claim: Claim | None = None,
    is_tls: bool = False,
    preamble: ProxyPreamble | None = None,
    registry: dict[str, Any] | None = None,
    captures: bool = True,
    **settings: Any,
) -> AsyncIterator[EdgeRig]:
    """Build everything; settings are those of `EdgeSettings`."""
    upstream = upstream or ScriptedUpstream()
    collector = CollectorRegistry()
    metrics = EdgeMetrics.create(collector)
    logged: list[logging.LogRecord] = []
    logger = logging.getLogger("moleport_server.access of a test")
    logger.setLevel(logging.INFO)
    logger.handlers = [_Collecting(logged)]
    async with registry_rig(**(registry or {})) as base:
        clock = base.clock
        limits = EdgeSettings(**settings)
        log = CaptureLog(CaptureIds.random())
        async with VisitorGate(clock, KeyedLimiter(1.0, 10, clock), key=b"k" * 32) as gate:
            edge = HttpEdge(
                limits,
                base.registry,
                gate,
                metrics=metrics,
                captures=log if captures else None,
                access_log=AccessLog(logger),
                tunnel_limiter=_limiter(limits.requests_per_second, clock),
                address_limiter=_limiter(limits.address_requests_per_second, clock),
                tasks=base.tasks,
                clock=clock,
                request_id_prefix="r-",
                descriptors=DescriptorBudget(1 << 20),
            )
            server = listen(
                bind_listener(Endpoint("127.0.0.1", 0)),
                lambda address: edge.protocol(address=address, is_tls=is_tls),
                preamble=preamble,
            )
            port = server.port
            session = base.session(upstream=upstream)
            wish = claim or Claim(protocol=TunnelProtocol.HTTP, subdomain="shop")
            tunnel = await base.registry.claim(session, 1, wish)
            base.registry.welcome(session, tunnel)
            try:
                yield EdgeRig(
                    base, edge, port, metrics, log, collector, session, upstream, tunnel, logged
                )
            finally:
                edge.close()
                server.close()


def _limiter(rate: float, clock: FakeClock) -> KeyedLimiter | None:
    return KeyedLimiter(rate, max(1.0, rate), clock) if rate else None


def get(path: str = "/", *fields: str, host: str = HOST, method: str = "GET") -> bytes:
    """Return a request without a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def post(body: bytes, *fields: str, path: str = "/", method: str = "POST") -> bytes:
    """Return a request with a body of known length."""
    return get(path, f"Content-Length: {len(body)}", *fields, method=method) + body


def chunked(*pieces: bytes) -> bytes:
    """Return a body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
