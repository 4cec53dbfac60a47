"""Settings that belong together: each problem names a key, its source and what to change.

Single values are checked when they are read (`values`, `schema`).
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from pathlib import Path

from moleport_server.config.settings import ListenSettings, ServerSettings, TlsSettings
from moleport_server.config.values import Endpoint, hosts_overlap
from moleport_server.domain.hostnames import parse_label
from moleport_server.errors import InvalidRequest

ReadFile = Callable[[Path], str]
LISTENERS = ("edge_http", "edge_https", "control", "api", "metrics")


def check(settings: ServerSettings, sources: Mapping[str, str], read_file: ReadFile) -> list[str]:
    """Return a sentence for each problem, empty if there is none."""
    problems = [
        *_check_ports(settings.listen),
        *_check_certificates(settings.tls, settings.listen),
        *_check_admin(settings, read_file),
        *_check_sizes(settings),
        *_check_edges(settings),
        *_check_container_names(settings.hoody.hostname),
    ]
    return [_with_source(problem, sources) for problem in problems]


def endpoints(listen: ListenSettings) -> dict[str, Endpoint]:
    """Return the listeners that are on, by name."""
    found = {name: getattr(listen, name) for name in LISTENERS}
    return {name: endpoint for name, endpoint in found.items() if endpoint is not None}


def _check_ports(listen: ListenSettings) -> Iterator[str]:
    on = endpoints(listen)
    for (name, endpoint), (other_name, other) in combinations(on.items(), 2):
        if endpoint.overlaps(other):
            yield f"listen.{other_name}: {other} is also listen.{name}, choose another port"
    for name, endpoint in on.items():
        same_host = hosts_overlap(endpoint.host, listen.tcp_host or "")
        if endpoint.port in listen.tcp_ports and same_host:
            yield (
                f"listen.{name}: port {endpoint.port} is in listen.tcp_ports "
                f"({listen.tcp_ports}), choose another one"
            )


def _check_certificates(tls: TlsSettings, listen: ListenSettings) -> Iterator[str]:
    for certificate, key in (
        ("certificate_file", "key_file"),
        ("control_certificate_file", "control_key_file"),
    ):
        has_certificate, has_key = getattr(tls, certificate), getattr(tls, key)
        if has_certificate and not has_key:
            yield f"tls.{key}: missing, tls.{certificate} needs it"
        if has_key and not has_certificate:
            yield f"tls.{certificate}: missing, tls.{key} needs it"
    if tls.authority_dir and (tls.certificate_file or tls.certificates):
        yield "tls.authority_dir: excludes tls.certificate_file and tls.certificates"
    if listen.edge_https and not tls.is_configured:
        yield "listen.edge_https: needs tls.certificate_file and tls.key_file"
    may_serve_control = tls.is_configured or tls.control_certificate_file is not None
    if listen.control and listen.control_tls and not may_serve_control:
        yield (
            "listen.control_tls: needs tls.certificate_file or tls.control_certificate_file; "
            "set it to false only behind an ingress that ends TLS"
        )
    if listen.api and listen.api_tls and not may_serve_control:
        yield "listen.api_tls: needs tls.certificate_file or tls.control_certificate_file"


def _check_admin(settings: ServerSettings, read_file: ReadFile) -> Iterator[str]:
    auth = settings.auth
    if auth.admin_token is not None and auth.admin_token_file is not None:
        yield "auth.admin_token: excludes auth.admin_token_file, set one of them"
    elif auth.admin_token_file is not None:
        try:
            text = read_file(auth.admin_token_file).strip()
        except OSError as error:
            reason = error.strerror or error
            yield f"auth.admin_token_file: {auth.admin_token_file} cannot be read: {reason}"
        except UnicodeDecodeError:
            yield f"auth.admin_token_file: {auth.admin_token_file} is not text"
        else:
            if not text:
                yield f"auth.admin_token_file: {auth.admin_token_file} is empty"
            elif not text.isascii() or not text.isprintable() or " " in text:
                yield f"auth.admin_token_file: {auth.admin_token_file} has to hold one word"
    elif auth.admin_token is None:
        yield (
            "auth.admin_token_file: missing, and auth.admin_token as well; "
            "nobody could create tokens without an admin"
        )


def _check_sizes(settings: ServerSettings) -> Iterator[str]:
    limits, flow, capture = settings.limits, settings.flow, settings.capture
    if flow.stream_window_bytes > flow.session_window_bytes:
        yield "flow.stream_window_bytes: larger than flow.session_window_bytes"
    if flow.session_window_bytes > flow.receive_budget_bytes:
        yield "flow.session_window_bytes: larger than flow.receive_budget_bytes"
    if limits.connections_per_address_before_auth > limits.connections_before_auth:
        yield (
            "limits.connections_per_address_before_auth: larger than limits.connections_before_auth"
        )
    if capture.body_bytes > capture.tunnel_bytes:
        yield "capture.body_bytes: larger than capture.tunnel_bytes"
    if capture.tunnel_bytes > capture.budget_bytes:
        yield "capture.tunnel_bytes: larger than capture.budget_bytes"


def _check_edges(settings: ServerSettings) -> Iterator[str]:
    listen, public = settings.listen, settings.public
    if listen.edge_http_mode == "redirect" and settings.public_scheme != "https":
        yield (
            "listen.edge_http_mode: redirect needs the HTTPS edge, or public.scheme = https "
            "if something in front ends TLS"
        )
    if settings.proxy.proxy_protocol and not settings.proxy.trusted:
        yield "proxy.proxy_protocol: needs proxy.trusted, PROXY headers of strangers are refused"
    if public.control_url is not None and listen.control is None and listen.edge_https is None:
        yield "public.control_url: neither listen.control nor listen.edge_https is on"


def _check_container_names(pattern: str) -> Iterator[str]:
    if not pattern:
        return
    if "{port}" not in pattern:
        yield "hoody.hostname: needs {port}, or all container ports would have one name"
        return
    try:
        parse_label(pattern.replace("{port}", "65535"))
    except InvalidRequest as error:
        yield f"hoody.hostname: {error}"


def _with_source(problem: str, sources: Mapping[str, str]) -> str:
    source = sources.get(problem.partition(":")[0])
    return problem if source is None else f"{problem}, from {source}"
