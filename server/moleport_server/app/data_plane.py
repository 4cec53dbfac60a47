"""The data plane: the registry between the edge and the agents, and what tells them of each other.

The registry asks the TCP edge for listeners, and the edge asks the registry for tunnels; here the two
are made known to each other, before either has anything to do.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.agents.flow import FlowWatch
from moleport_server.agents.hoody.login import AgentSessions
from moleport_server.agents.rustunnel.sessions import RustunnelSessions
from moleport_server.app.doorkeeping import Doorkeeping
from moleport_server.app.foundation import Foundation
from moleport_server.app.sections import (
    edge_settings,
    hoody_settings,
    registry_settings,
    rustunnel_settings,
)
from moleport_server.clock import Clock
from moleport_server.config.settings import ServerSettings
from moleport_server.edge.access_log import AccessLog
from moleport_server.edge.certificates import LocalAuthority
from moleport_server.edge.container import TunnelListeners
from moleport_server.edge.http import HttpEdge
from moleport_server.edge.live_rules import LiveRules
from moleport_server.edge.plain_listener import ProxyPreamble
from moleport_server.edge.tcp import TcpEdge
from moleport_server.edge.tls import CertificateStore
from moleport_server.listening import BoundListeners
from moleport_server.logs import ACCESS_LOGGER
from moleport_server.registry.enforcement import Enforcement
from moleport_server.registry.registry import Registry
from moleport_wire.hoody.window import ReceiveBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPlane:
    """Everything that bytes of visitors pass through."""

    registry: Registry
    enforcement: Enforcement
    """Lets changes of tokens and policies hold for what is live."""
    edge: HttpEdge
    tcp: TcpEdge
    tunnel_listeners: TunnelListeners
    live_rules: LiveRules
    flow: FlowWatch
    agents: AgentSessions
    """Our own agent and stock hoody-tunnel clients."""
    rustunnel: RustunnelSessions


def build_data_plane(
    settings: ServerSettings,
    version: str,
    foundation: Foundation,
    doorkeeping: Doorkeeping,
    leased: BoundListeners,
    stack: AsyncExitStack,
) -> DataPlane:
    """Build registry, edge and agents; nothing is restored and nobody is served yet."""
    tcp = _build_tcp_edge(settings, foundation, leased)
    tunnel_listeners = TunnelListeners(tcp)
    registry = Registry(
        registry_settings(settings),
        foundation.store,
        clock=foundation.clock,
        random_bits=secrets.randbits,
        journal=foundation.journal,
        listeners=tunnel_listeners,
        tasks=foundation.tasks,
    )
    tcp.registry = registry
    captures = foundation.captures
    registry.notices.on_tunnel_closed = lambda tunnel: captures.forget(tunnel.id)
    registry.notices.observer = foundation.counting.lifecycle

    flow = FlowWatch(
        ReceiveBudget(
            settings.flow.receive_budget_bytes,
            settings.flow.stream_window_bytes,
            foundation.clock.monotonic,
        ),
        monotonic=foundation.clock.monotonic,
        patience_seconds=settings.flow.stalled_stream_seconds,
    )
    agents = AgentSessions(
        hoody_settings(settings, version),
        registry,
        doorkeeping.authenticator,
        flow=flow,
        tasks=foundation.tasks,
        clock=foundation.clock,
    )
    rustunnel = RustunnelSessions(
        rustunnel_settings(settings, version),
        registry,
        doorkeeping.authenticator,
        flow=flow,
        tasks=foundation.tasks,
        clock=foundation.clock,
        audit=doorkeeping.audit,
    )
    agents.rtt_seconds = rustunnel.rtt_seconds = foundation.counting.agents.rtt.observe

    edge = _build_http_edge(settings, foundation, doorkeeping, registry)
    tunnel_listeners.edge = edge
    edge.start()
    stack.callback(edge.close)
    live_rules = LiveRules(edge, tcp, registry.tunnels, foundation.clock)
    registry.notices.on_rules_changed = live_rules.rules_changed
    return DataPlane(
        registry=registry,
        enforcement=Enforcement(registry, doorkeeping.authenticator, foundation.clock),
        edge=edge,
        tcp=tcp,
        tunnel_listeners=tunnel_listeners,
        live_rules=live_rules,
        flow=flow,
        agents=agents,
        rustunnel=rustunnel,
    )


def _build_tcp_edge(
    settings: ServerSettings, foundation: Foundation, leased: BoundListeners
) -> TcpEdge:
    return TcpEdge(
        settings.listen.tcp_endpoint,
        metrics=foundation.counting.edge,
        clock=foundation.clock,
        max_connections=settings.limits.edge_connections,
        connections_per_tunnel=settings.limits.connections_per_tunnel,
        preamble=preamble_of(settings, "tcp"),
        descriptors=foundation.descriptors,
        bind=leased.take,
    )


def _build_http_edge(
    settings: ServerSettings, foundation: Foundation, doorkeeping: Doorkeeping, registry: Registry
) -> HttpEdge:
    limits, clock = settings.limits, foundation.clock
    return HttpEdge(
        edge_settings(settings),
        registry,
        doorkeeping.visitors,
        metrics=foundation.counting.edge,
        captures=foundation.captures if settings.capture.enabled else None,
        access_log=_access_log(),
        tunnel_limiter=rate_limiter(limits.requests_per_second, clock),
        address_limiter=rate_limiter(limits.ip_requests_per_second, clock),
        tasks=foundation.tasks,
        clock=clock,
        request_id_prefix=f"{secrets.token_hex(6)}-",
        descriptors=foundation.descriptors,
    )


def load_certificates(
    settings: ServerSettings, foundation: Foundation
) -> Mapping[str, CertificateStore]:
    """Load the certificates of `edge` and `control`, and look for newer ones; none without TLS.

    Raises:
        ConfigError: they cannot be used.
    """
    tls, authority = settings.tls, None
    if tls.authority_dir is not None:
        authority = LocalAuthority.load_or_create(
            tls.authority_dir, domains=settings.server.domains, clock=foundation.clock
        )
    if not tls.is_configured:
        return {}
    certificates = {
        "edge": CertificateStore.for_edge(tls, authority),
        "control": CertificateStore.for_control(tls, authority),
    }
    for one in certificates.values():
        foundation.background.start(one.watch(tls.reload_seconds), "watch certificate files")
    return certificates


def preamble_of(settings: ServerSettings, listener: str) -> ProxyPreamble | None:
    """Return whose PROXY protocol preamble a listener believes; None: it expects none."""
    if listener not in settings.proxy.proxy_protocol:
        return None
    return ProxyPreamble(settings.proxy.trusted)


def rate_limiter(rate: float, clock: Clock) -> KeyedLimiter | None:
    """Return a limiter of requests per second; None: unlimited."""
    return KeyedLimiter(rate, max(1.0, rate), clock) if rate else None


def _access_log() -> AccessLog | None:
    access = logging.getLogger(ACCESS_LOGGER)
    return AccessLog(access) if access.isEnabledFor(logging.INFO) else None
