"""What each component is told of the settings: its own section, in its own words, and no more. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from moleport_server.agents.hoody.session import SessionSettings, StockSettings
from moleport_server.agents.rustunnel.sessions import RustunnelSettings
from moleport_server.api.ports import Region, ServerFacts
from moleport_server.capture.ring import CaptureLimits
from moleport_server.capture.writer import WriterSettings
from moleport_server.config.bounds import CaptureSettings
from moleport_server.config.checks import endpoints
from moleport_server.config.settings import ALL_INTERFACES, ServerSettings
from moleport_server.edge.http import EdgeSettings
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.container_ports import ContainerPortSettings
from moleport_server.registry.registry import RegistrySettings


def writer_settings(capture: CaptureSettings) -> WriterSettings:
    """Return what the writer of captures keeps to."""
    return WriterSettings(persist_bodies=capture.persist_bodies, queue_bytes=capture.queue_bytes)


def capture_limits(capture: CaptureSettings) -> CaptureLimits:
    """Return how much the captures in memory may be."""
    return CaptureLimits(
        requests_per_tunnel=capture.requests_per_tunnel,
        budget_bytes=capture.budget_bytes,
        tunnel_bytes=capture.tunnel_bytes,
    )


def registry_settings(settings: ServerSettings) -> RegistrySettings:
    """Return the names and bounds of the registry."""
    ports, hold, limits = settings.listen.tcp_ports, settings.hold, settings.limits
    return RegistrySettings(
        domains=settings.server.domains,
        reserved_names=frozenset({*settings.names.reserved, settings.control_host}),
        addresses=public_addresses(settings),
        tcp_ports=(ports.first, ports.last),
        lease_seconds=hold.lease_seconds,
        hold_per_tunnel=hold.per_tunnel,
        hold_total=hold.total,
        max_sessions=limits.sessions,
        max_tunnels_per_session=limits.tunnels_per_session,
        container_ports=_container_ports(settings),
    )


def edge_settings(settings: ServerSettings) -> EdgeSettings:
    """Return the limits of the HTTP edge."""
    limits = settings.limits
    return EdgeSettings(
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
        replay_bytes=settings.hold.replay_bytes,
        capture_body_bytes=settings.capture.body_bytes,
        trusted_proxies=settings.proxy.trusted,
    )


def hoody_settings(settings: ServerSettings, version: str) -> SessionSettings:
    """Return what sessions of our own agent and of stock hoody-tunnel clients keep to."""
    limits, flow = settings.limits, settings.flow
    return SessionSettings(
        first_frame_seconds=limits.first_frame_seconds,
        stream_window_bytes=flow.stream_window_bytes,
        session_window_bytes=flow.session_window_bytes,
        write_buffer_bytes=flow.write_buffer_bytes,
        max_streams=limits.streams_per_session,
        server_name=f"moleport {version}",
        stock=StockSettings(
            max_streams=settings.hoody.max_streams, idle_seconds=settings.hoody.idle_seconds
        ),
    )


def rustunnel_settings(settings: ServerSettings, version: str) -> RustunnelSettings:
    """Return what sessions of stock rustunnel clients keep to."""
    return RustunnelSettings(
        first_frame_seconds=settings.limits.first_frame_seconds,
        write_buffer_bytes=settings.flow.write_buffer_bytes,
        server_name=f"moleport.{version}",
        addresses=public_addresses(settings),
    )


def public_addresses(settings: ServerSettings) -> PublicAddresses:
    """Return what visitors use, which is seldom what the pod binds."""
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


def server_facts(settings: ServerSettings, version: str, instance_id: str) -> ServerFacts:
    """Return what the REST API tells about this server."""
    listen_settings, limits = settings.listen, settings.limits
    control = urlsplit(settings.public.control_url or "")
    control_port = control.port or (
        443 if listen_settings.control is None else listen_settings.control.port
    )
    edge_http, edge_https = listen_settings.edge_http, listen_settings.edge_https
    return ServerFacts(
        version=version,
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
