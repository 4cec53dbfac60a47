"""The composition root: builds everything from the settings, runs it, and takes it down in order.

The only module that knows concrete classes. Leaves are built first inside one `AsyncExitStack`; the
reverse order is the shutdown. SIGTERM and SIGINT: not ready any more, accept for a moment longer, tell
the agents, finish what is under way until the deadline, end with 0. A second signal ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import signal
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import uvloop
from aiohttp import web

from moleport_server.access.admin_token import AdminToken
from moleport_server.access.admission import PreAuthGate
from moleport_server.access.audit import AuditLog
from moleport_server.access.authentication import Authenticator
from moleport_server.access.descriptors import DescriptorBudget, raise_limit
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.access.visitors import VisitorGate
from moleport_server.agents.flow import SWEEP_SECONDS, FlowWatch
from moleport_server.agents.hoody.door import CONNECT_PATH, HoodyDoor
from moleport_server.agents.hoody.login import AgentSessions
from moleport_server.agents.hoody.session import SessionSettings, StockSettings
from moleport_server.agents.rustunnel.door import make_doors
from moleport_server.agents.rustunnel.sessions import RustunnelSessions, RustunnelSettings
from moleport_server.api.application import EVENT_STREAMS, make_app
from moleport_server.api.ports import HoodyFacts, Region, ServerFacts
from moleport_server.api.routing import EVENT_STREAM, Route
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.ring import CaptureLimits, CaptureLog
from moleport_server.capture.writer import CaptureWriter, WriterSettings
from moleport_server.clock import Clock, SystemClock
from moleport_server.config.checks import endpoints
from moleport_server.config.settings import ALL_INTERFACES, ServerSettings
from moleport_server.config.values import Endpoint
from moleport_server.edge.access_log import AccessLog
from moleport_server.edge.certificates import LocalAuthority
from moleport_server.edge.container import TunnelListeners
from moleport_server.edge.front import Door, Front
from moleport_server.edge.http import EdgeSettings, HttpEdge
from moleport_server.edge.live_rules import SILENCE_TICK_SECONDS, LiveRules
from moleport_server.edge.plain_listener import MakeProtocol, ProxyPreamble, listen
from moleport_server.edge.redirect import RedirectConnection
from moleport_server.edge.replay import Replayer
from moleport_server.edge.tcp import TcpEdge
from moleport_server.edge.tls import CertificateStore
from moleport_server.edge.tls_listener import Arrival, TlsListener
from moleport_server.errors import ServerError, StoreError
from moleport_server.health import make_health_app
from moleport_server.listening import BoundListeners
from moleport_server.logs import ACCESS_LOGGER
from moleport_server.metrics.exposition import new_registry
from moleport_server.metrics.instruments import (
    AgentMetrics,
    ApiMetrics,
    EdgeMetrics,
    ProcessMetrics,
    RegistryMetrics,
)
from moleport_server.metrics.lifecycle import LifecycleCounts
from moleport_server.metrics.live import LiveNumbers
from moleport_server.metrics.loop_lag import LoopLagProbe
from moleport_server.readings import make_readings
from moleport_server.registry import enforcement as enforcing
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.container_ports import ContainerPortSettings
from moleport_server.registry.enforcement import Enforcement
from moleport_server.registry.journal import Journal
from moleport_server.registry.registry import Registry, RegistrySettings
from moleport_server.store.captures import SqliteCaptureStore
from moleport_server.store.directory import DataDirectory
from moleport_server.store.sqlite import SqliteStateStore
from moleport_server.vitals import read_vitals
from moleport_wire.aio.collection import settle
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.hoody.window import ReceiveBudget

logger = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 10.0
EDGE_HANDSHAKES_PER_ADDRESS: Final = 1024
"""Handshakes under way: many visitors share one address behind carriers and offices."""


def run(
    settings: ServerSettings,
    bound: BoundListeners,
    *,
    banner: Callable[[], None] | None = None,
) -> int:
    """Run the server until it is told to stop; returns the exit code.

    Args:
        settings: all of them; logging is configured already.
        bound: sockets that listen already; what is missing is bound when its turn comes.
        banner: called once when every listener is ready.

    Raises:
        ConfigError, StoreError: it could not start, and why.
        OSError: an address could not be listened on.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, bound, banner))


async def _serve(
    settings: ServerSettings, bound: BoundListeners, banner: Callable[[], None] | None
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            logger.warning("second signal, ending at once")
            # Everything durable survives a crash by design, so there is nothing to wait for.
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with AsyncExitStack() as stack:
        stack.callback(bound.close)
        server = await _Server.start(settings, bound, stack)
        settle()
        logger.info("server ready", extra={"version": server.version})
        if banner is not None:
            banner()
        await stop.wait()
        await server.drain()
    logger.info("server ended")
    return 0


class _Server:
    """The running pieces that draining has to touch."""

    def __init__(self) -> None:
        self.settings: ServerSettings
        self.bound: BoundListeners
        self.version = version("moleport")
        self.registry: Registry
        self.agents: AgentSessions
        self.rustunnel: RustunnelSessions
        self.edge: HttpEdge
        self.tcp: TcpEdge
        self.tunnel_listeners: TunnelListeners
        self.rest: web.Application
        self.servers: list[asyncio.AbstractServer] = []
        self.tls_listeners: list[TlsListener] = []
        self.is_ready = False
        self.is_draining = False

    @classmethod
    async def start(
        cls, settings: ServerSettings, bound: BoundListeners, stack: AsyncExitStack
    ) -> _Server:
        """Build and start everything; `stack` takes it down."""
        self = cls()
        self.bound = bound
        self.settings = settings
        clock = SystemClock()
        limits, flow, hold = settings.limits, settings.flow, settings.hold

        descriptors = DescriptorBudget(raise_limit(), wished=limits.descriptors)
        directory = stack.enter_context(DataDirectory(settings.server.data_dir))
        store = await SqliteStateStore.open(directory.state_path)
        stack.push_async_callback(store.aclose)
        capture_store = await SqliteCaptureStore.open(
            directory.captures_path, max_bytes=settings.capture.database_bytes
        )
        stack.push_async_callback(capture_store.aclose)

        prometheus = new_registry()
        edge_metrics = EdgeMetrics.create(prometheus)
        agent_metrics = AgentMetrics.create(prometheus)
        api_metrics = ApiMetrics.create(prometheus)
        process_metrics = ProcessMetrics.create(
            prometheus, version=self.version, python=platform.python_version()
        )

        ids = CaptureIds.random()
        writer = CaptureWriter(
            capture_store,
            ids,
            WriterSettings(
                persist_bodies=settings.capture.persist_bodies,
                queue_bytes=settings.capture.queue_bytes,
            ),
        )
        sink = None
        if settings.capture.enabled and settings.capture.persist:
            await stack.enter_async_context(writer)
            sink = writer.offer
        captures = CaptureLog(
            ids,
            CaptureLimits(
                requests_per_tunnel=settings.capture.requests_per_tunnel,
                budget_bytes=settings.capture.budget_bytes,
                tunnel_bytes=settings.capture.tunnel_bytes,
            ),
            sink=sink,
        )

        tasks = await stack.enter_async_context(TaskOwner())
        journal = Journal()
        background = await stack.enter_async_context(TaskOwner())
        background.start(journal.run(), "journal")

        preamble = ProxyPreamble(settings.proxy.trusted)

        def preamble_of(listener: str) -> ProxyPreamble | None:
            return preamble if listener in settings.proxy.proxy_protocol else None

        tcp = self.tcp = TcpEdge(
            settings.listen.tcp_host or "127.0.0.1",
            metrics=edge_metrics,
            clock=clock,
            max_connections=limits.edge_connections,
            connections_per_tunnel=limits.connections_per_tunnel,
            preamble=preamble_of("tcp"),
            descriptors=descriptors,
        )
        tunnel_listeners = self.tunnel_listeners = TunnelListeners(tcp)
        ports = settings.listen.tcp_ports
        registry = self.registry = Registry(
            RegistrySettings(
                domains=settings.server.domains,
                reserved_names=frozenset({*settings.names.reserved, settings.control_host}),
                addresses=_addresses(settings),
                tcp_ports=(ports.first, ports.last),
                lease_seconds=hold.lease_seconds,
                hold_per_tunnel=hold.per_tunnel,
                hold_total=hold.total,
                max_sessions=limits.sessions,
                max_tunnels_per_session=limits.tunnels_per_session,
                container_ports=_container_ports(settings),
            ),
            store,
            clock=clock,
            random_bits=secrets.randbits,
            journal=journal,
            listeners=tunnel_listeners,
            tasks=tasks,
        )
        tcp.registry = registry
        registry.notices.on_tunnel_closed = lambda tunnel: captures.forget(tunnel.id)
        registry.notices.observer = LifecycleCounts(
            agent_metrics, RegistryMetrics.create(prometheus)
        )

        admin = AdminToken(
            None if settings.auth.admin_token is None else settings.auth.admin_token.reveal(),
            path=settings.auth.admin_token_file,
        )
        per_minute = settings.auth.failures_per_minute
        authenticator = Authenticator(
            store,
            clock,
            read_admin_token=admin.read,
            limiter=_failure_limiter(per_minute, clock),
        )
        authenticator.observe = partial(_count_login, agent_metrics, edge_metrics)
        gate = VisitorGate(clock, _failure_limiter(per_minute, clock), key=secrets.token_bytes(32))
        gate.observe = partial(_count_password, agent_metrics)
        await stack.enter_async_context(gate)

        watch = FlowWatch(
            ReceiveBudget(flow.receive_budget_bytes, flow.stream_window_bytes),
            monotonic=clock.monotonic,
            patience_seconds=flow.stalled_stream_seconds,
        )
        agents = self.agents = AgentSessions(
            SessionSettings(
                first_frame_seconds=limits.first_frame_seconds,
                stream_window_bytes=flow.stream_window_bytes,
                session_window_bytes=flow.session_window_bytes,
                write_buffer_bytes=flow.write_buffer_bytes,
                max_streams=limits.streams_per_session,
                server_name=f"moleport {self.version}",
                stock=StockSettings(
                    max_streams=settings.hoody.max_streams,
                    idle_seconds=settings.hoody.idle_seconds,
                ),
            ),
            registry,
            authenticator,
            flow=watch,
            tasks=tasks,
            clock=clock,
        )
        agents.rtt_seconds = agent_metrics.rtt.observe
        audit = AuditLog(settings.log.audit_file, clock)
        background.start(audit.run(), "audit log")
        stack.callback(audit.flush)
        rustunnel = self.rustunnel = RustunnelSessions(
            RustunnelSettings(
                first_frame_seconds=limits.first_frame_seconds,
                write_buffer_bytes=flow.write_buffer_bytes,
                server_name=f"moleport.{self.version}",
                addresses=_addresses(settings),
            ),
            registry,
            authenticator,
            flow=watch,
            tasks=tasks,
            clock=clock,
            audit=audit,
        )
        rustunnel.rtt_seconds = agent_metrics.rtt.observe

        edge = self.edge = HttpEdge(
            EdgeSettings(
                max_connections=limits.edge_connections,
                head_bytes=limits.head_bytes,
                head_fields=limits.header_fields,
                head_seconds=limits.header_read_seconds,
                idle_seconds=limits.idle_seconds,
                response_head_seconds=limits.response_head_seconds,
                body_bytes=limits.request_body_bytes,
                requests_per_tunnel=limits.connections_per_tunnel,
                requests_per_second=limits.requests_per_second,
                address_requests_per_second=limits.ip_requests_per_second,
                replay_bytes=hold.replay_bytes,
                capture_body_bytes=settings.capture.body_bytes,
                trusted_proxies=settings.proxy.trusted,
            ),
            registry,
            gate,
            metrics=edge_metrics,
            captures=captures if settings.capture.enabled else None,
            access_log=_access_log(),
            tunnel_limiter=_rate_limiter(limits.requests_per_second, clock),
            address_limiter=_rate_limiter(limits.ip_requests_per_second, clock),
            tasks=tasks,
            clock=clock,
            request_id_prefix=f"{secrets.token_hex(6)}-",
            descriptors=descriptors,
        )
        tunnel_listeners.edge = edge
        edge.start()
        stack.callback(edge.close)

        authority = None
        if settings.tls.authority_dir is not None:
            authority = LocalAuthority.load_or_create(
                settings.tls.authority_dir, domains=settings.server.domains, clock=clock
            )
        certificates: dict[str, CertificateStore] = {}
        if settings.tls.is_configured:
            certificates["edge"] = CertificateStore.for_edge(settings.tls, authority)
            certificates["control"] = CertificateStore.for_control(settings.tls, authority)
            for one in certificates.values():
                background.start(one.watch(settings.tls.reload_seconds), "watch certificate files")

        pre_auth = PreAuthGate(
            per_address=limits.connections_per_address_before_auth,
            # Strangers must not take what visitors need.
            in_all=min(limits.connections_before_auth, max(1, descriptors.limit // 4)),
        )
        pre_auth.observe_refusal = edge_metrics.rate_limited.labels("before_auth").inc
        prometheus.register(
            LiveNumbers(
                make_readings(
                    registry=registry,
                    edge=edge,
                    tcp=tcp,
                    flow=watch,
                    captures=captures,
                    writer=writer,
                    gate=pre_auth,
                    certificates=certificates,
                    is_draining=lambda: self.is_draining,
                )
            )
        )
        probe = LoopLagProbe(process_metrics)
        probe.start()
        stack.callback(probe.close)

        facts = _facts(settings, self.version, await store.instance_id())
        enforcement = Enforcement(registry, authenticator, clock)
        self.rest = make_app(
            registry=registry,
            authenticator=authenticator,
            enforcement=enforcement,
            store=store,
            captures=captures,
            capture_store=capture_store,
            replay=Replayer(edge, ids.connections.next()),
            clock=clock,
            facts=facts,
            hoody=HoodyFacts(
                started_at=clock.now(),
                session_streams=limits.streams_per_session,
                stock_streams=settings.hoody.max_streams,
                free_descriptors=lambda: descriptors.available,
                vitals=read_vitals,
            ),
            trusted=settings.hoody.trusted,
            audit=audit,
            cors_origins=settings.api.cors_origins,
            tokens_are_admin=settings.api.tokens_are_admin,
            observe=partial(_count_call, api_metrics),
        )
        rest = web.AppRunner(self.rest, access_log=None, handle_signals=False)
        await rest.setup()
        stack.push_async_callback(rest.cleanup)
        rest_server = rest.server
        assert rest_server is not None  # noqa: S101 - set up above
        doors: dict[str, Door] = {CONNECT_PATH: HoodyDoor(agents), **make_doors(rustunnel)}
        front = Front(doors, rest_server, pre_auth, head_seconds=limits.first_frame_seconds)
        descriptors.count_others = lambda: (
            pre_auth.waiting
            + len(rest_server.connections)
            + sum(session.connections for session in registry.sessions.values())
        )
        stack.callback(front.close)

        live_rules = LiveRules(edge, tcp, registry.tunnels, clock)
        registry.notices.on_rules_changed = live_rules.rules_changed
        await registry.restore()
        background.start(_every(SWEEP_SECONDS, _sweep(watch)), "sweep stalled streams")
        background.start(_every(FLUSH_SECONDS, authenticator.flush), "flush token use")
        background.start(_every(enforcing.SWEEP_SECONDS, enforcement.sweep), "look at tokens")
        background.start(_every(SILENCE_TICK_SECONDS, live_rules.end_silent), "end what is silent")
        background.start(_every(enforcing.TICK_SECONDS, enforcement.tick), "end what is over")
        stack.push_async_callback(_final_flush, authenticator, journal)

        handshakes = PreAuthGate(
            per_address=EDGE_HANDSHAKES_PER_ADDRESS, in_all=descriptors.handshakes
        )
        await self._listen(
            stack, front, pre_auth, handshakes, certificates, preamble_of, edge_metrics
        )
        health = web.AppRunner(
            make_health_app(prometheus, self.not_ready_because),
            access_log=None,
            handle_signals=False,
        )
        await health.setup()
        stack.push_async_callback(health.cleanup)
        if settings.listen.metrics is not None and health.server is not None:
            make_health = health.server
            await self._listen_plain(
                stack, settings.listen.metrics, lambda _: make_health(), preamble=None
            )
        self.is_ready = True
        return self

    async def _listen(
        self,
        stack: AsyncExitStack,
        front: Front,
        pre_auth: PreAuthGate,
        handshakes: PreAuthGate,
        certificates: Mapping[str, CertificateStore],
        preamble_of: Callable[[str], ProxyPreamble | None],
        metrics: EdgeMetrics,
    ) -> None:
        """Open the public listeners, agents' first: visitors are held until their agents are back."""
        settings = self.settings
        listen_settings, edge = settings.listen, self.edge
        control_host = settings.control_host
        https_port = settings.public.https_port or (
            0 if listen_settings.edge_https is None else listen_settings.edge_https.port
        )

        def control(arrival: Arrival) -> asyncio.Protocol:
            return front.connection((arrival.address, arrival.port))

        def https(arrival: Arrival) -> asyncio.Protocol | asyncio.BufferedProtocol:
            if arrival.server_name == control_host:
                return front.connection((arrival.address, arrival.port))
            return edge.protocol(address=(arrival.address, arrival.port), is_tls=True)

        for name, endpoint, is_tls in (
            ("control", listen_settings.control, listen_settings.control_tls),
            ("api", listen_settings.api, listen_settings.api_tls),
        ):
            if endpoint is None:
                continue
            if is_tls:
                await self._listen_tls(
                    stack, endpoint, certificates["control"], control, pre_auth, name,
                    preamble_of(name), metrics,
                )  # fmt: skip
            else:
                await self._listen_plain(
                    stack, endpoint, front.connection, preamble=preamble_of(name)
                )
        if listen_settings.edge_https is not None and "edge" in certificates:
            await self._listen_tls(
                stack, listen_settings.edge_https, certificates["edge"], https, handshakes,
                "edge-https", preamble_of("edge_https"), metrics,
            )  # fmt: skip
        if listen_settings.edge_http is not None:
            make: MakeProtocol
            if listen_settings.edge_http_mode == "redirect":
                make = lambda _: RedirectConnection(  # noqa: E731 - one of two factories
                    https_port, settings.limits.head_bytes, settings.limits.header_read_seconds
                )
            else:
                make = lambda address: edge.protocol(address=address)  # noqa: E731
            await self._listen_plain(
                stack, listen_settings.edge_http, make, preamble=preamble_of("edge_http")
            )

    async def _listen_plain(
        self,
        stack: AsyncExitStack,
        endpoint: Endpoint,
        make: MakeProtocol,
        *,
        preamble: ProxyPreamble | None,
    ) -> None:
        server = await listen(self.bound.take(endpoint), make, preamble=preamble)
        self.servers.append(server)
        stack.callback(server.close)

    async def _listen_tls(
        self,
        stack: AsyncExitStack,
        endpoint: Endpoint,
        certificates: CertificateStore,
        make: Callable[[Arrival], asyncio.Protocol | asyncio.BufferedProtocol],
        gate: PreAuthGate,
        name: str,
        preamble: ProxyPreamble | None,
        metrics: EdgeMetrics,
    ) -> None:
        listener = TlsListener(
            self.bound.take(endpoint),
            certificates,
            make_protocol=make,
            gate=gate,
            handshake_seconds=self.settings.limits.tls_handshake_seconds,
            preamble=preamble,
            note_failure=lambda _: metrics.tls_failures.labels(name).inc(),
        )
        await stack.enter_async_context(listener)
        self.tls_listeners.append(listener)

    def not_ready_because(self) -> str | None:
        """Why `/readyz` says no, or None."""
        if self.is_draining:
            return "draining"
        return None if self.is_ready else "starting"

    async def drain(self) -> None:
        """Finish what is under way until the deadline; the stack does the rest."""
        core = self.settings.server
        self.is_draining = True
        logger.info(
            "draining",
            extra={"delay_seconds": core.drain_delay_seconds, "seconds": core.drain_seconds},
        )
        await asyncio.sleep(core.drain_delay_seconds)
        self.agents.is_draining = True
        self.rustunnel.is_draining = True
        for server in self.servers:
            server.close()
        for listener in self.tls_listeners:
            listener.stop()
        self.registry.drain("the server is restarting", core.drain_seconds)
        self.tunnel_listeners.drain()
        self.edge.drain()
        self.tcp.drain()
        self.rest[EVENT_STREAMS].close()
        try:
            async with asyncio.timeout(core.drain_seconds):
                # Requests end on the hot path, which must not pay for waking a waiter so rare.
                while self.edge.active_exchanges or self.tcp.connection_count:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            logger.warning(
                "drain deadline passed, resetting what is left",
                extra={
                    "requests": self.edge.active_exchanges,
                    "connections": self.tcp.connection_count,
                },
            )
        self.edge.close()
        self.tcp.close_all()
        self.registry.close("the server is restarting")


async def _final_flush(authenticator: Authenticator, journal: Journal) -> None:
    await journal.flush(5.0)
    try:
        async with asyncio.timeout(5.0):
            await authenticator.flush()
    except (StoreError, TimeoutError) as error:
        logger.warning("times of token use were not saved", extra={"error": str(error)})


async def _every(seconds: float, work: Callable[[], Any]) -> None:
    """Do something periodically; a failing store does not end it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except ServerError as error:
            logger.warning("periodic work failed", extra={"error": str(error)})


def _sweep(watch: FlowWatch) -> Callable[[], Any]:
    async def sweep() -> None:
        watch.sweep()

    return sweep


def _addresses(settings: ServerSettings) -> PublicAddresses:
    scheme = settings.public_scheme
    public, listen_settings = settings.public, settings.listen
    if scheme == "https":
        bound = listen_settings.edge_https
        port = public.https_port or (443 if bound is None else bound.port)
    else:
        bound = listen_settings.edge_http
        port = public.http_port or (80 if bound is None else bound.port)
    edge_https = listen_settings.edge_https
    https_port = None if edge_https is None else public.https_port or edge_https.port
    return PublicAddresses(
        scheme=scheme, port=port, tcp_host=settings.public_tcp_host, https_port=https_port
    )


def _container_ports(settings: ServerSettings) -> ContainerPortSettings:
    hoody, tcp_ports = settings.hoody, settings.listen.tcp_ports
    own = sorted({endpoint.port for endpoint in endpoints(settings.listen).values()})
    return ContainerPortSettings(
        expose=hoody.expose,
        expose_host=hoody.expose_host or ALL_INTERFACES,
        pull=hoody.pull,
        random_ports=(hoody.random_ports.first, hoody.random_ports.last),
        reserved=((tcp_ports.first, tcp_ports.last), *((port, port) for port in own)),
        privileged_expose=hoody.privileged_expose,
        privileged_pull=hoody.privileged_pull,
        hostname=hoody.hostname or "",
    )


def _facts(settings: ServerSettings, version_text: str, instance_id: str) -> ServerFacts:
    listen_settings, limits = settings.listen, settings.limits
    control = urlsplit(settings.public.control_url or "")
    control_port = control.port or (
        443 if listen_settings.control is None else listen_settings.control.port
    )
    edge_http, edge_https = listen_settings.edge_http, listen_settings.edge_https
    return ServerFacts(
        version=version_text,
        instance_id=instance_id,
        domains=settings.server.domains,
        http_port=None if edge_http is None else settings.public.http_port or edge_http.port,
        https_port=None if edge_https is None else settings.public.https_port or edge_https.port,
        control_port=control_port,
        tcp_host=settings.public_tcp_host,
        tcp_ports=(listen_settings.tcp_ports.first, listen_settings.tcp_ports.last),
        region=Region(id=settings.server.region, host=control.hostname or settings.control_host),
        limits={
            "sessions": limits.sessions,
            "tunnels_per_session": limits.tunnels_per_session,
            "streams_per_session": limits.streams_per_session,
            "connections_per_tunnel": limits.connections_per_tunnel,
            "request_body_bytes": limits.request_body_bytes or None,
            "requests_per_second": limits.requests_per_second or None,
            "lease_seconds": settings.hold.lease_seconds,
        },
    )


def _access_log() -> AccessLog | None:
    access = logging.getLogger(ACCESS_LOGGER)
    return AccessLog(access) if access.isEnabledFor(logging.INFO) else None


def _failure_limiter(per_minute: int, clock: Clock) -> KeyedLimiter:
    # 0 is unlimited: a rate that nobody reaches.
    count = per_minute or 1_000_000
    return KeyedLimiter(count / 60, count, clock)


def _rate_limiter(rate: float, clock: Clock) -> KeyedLimiter | None:
    return KeyedLimiter(rate, max(1.0, rate), clock) if rate else None


def _count_call(metrics: ApiMetrics, route: Route, status: int, seconds: float) -> None:
    metrics.requests.labels(route.path, route.method, str(status)).inc()
    # A stream of events lasts as long as somebody watches, which says nothing about the server.
    if route.media_type != EVENT_STREAM:
        metrics.duration.labels(route.path).observe(seconds)


def _count_login(agents: AgentMetrics, edge: EdgeMetrics, kind: str, result: str) -> None:
    agents.auth_attempts.labels(kind, result).inc()
    if result == "limited":
        edge.rate_limited.labels("login_failures").inc()


def _count_password(agents: AgentMetrics, result: str) -> None:
    agents.auth_attempts.labels("visitor", result).inc()
