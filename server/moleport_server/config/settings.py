"""Everything that can be set on a tunnel server, one frozen dataclass per concern.

The text under each field is its documentation: meaning, unit, default and reason. The reference
page and the sample file are made from it. `None` is written as the empty text where text is
expected, and as `off` for a listener.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from moleport_server.config.bounds import (
    CaptureSettings,
    CountOrZero,
    FlowSettings,
    HoldSettings,
    LimitSettings,
    Seconds,
    SecondsOrZero,
)
from moleport_server.config.stock_clients import HoodySettings
from moleport_server.config.values import CertificateFiles, Endpoint, PortRange, Secret
from moleport_server.domain.tunnel import IPNetwork

Port = Annotated[int, Meta(ge=1, le=65_535)]
Domains = Annotated[tuple[str, ...], "domains"]
"""Domain names in lower case."""
HostText = Annotated[str | None, "host"]
"""One host name or IP address."""
UrlText = Annotated[str | None, "url"]
"""A base URL without a trailing slash."""

ListenerName = Literal["edge_http", "edge_https", "control", "api", "metrics"]

ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - visitors, agents and Prometheus come from outside the pod
EDGE_HTTP = Endpoint(ALL_INTERFACES, 8080)
EDGE_HTTPS = Endpoint(ALL_INTERFACES, 8443)
CONTROL = Endpoint(ALL_INTERFACES, 4040)
API = Endpoint("127.0.0.1", 4041)
METRICS = Endpoint(ALL_INTERFACES, 9090)
TCP_PORTS = PortRange(20_000, 20_099)

CA_FILE = "ca.pem"
"""The certificate of a local authority, in its directory: what clients trust."""

RESERVED_NAMES = (
    "_acme-challenge",
    "abuse",
    "admin",
    "administrator",
    "api",
    "auth",
    "autoconfig",
    "autodiscover",
    "control",
    "dashboard",
    "ftp",
    "hostmaster",
    "imap",
    "localhost",
    "login",
    "mail",
    "metrics",
    "mta-sts",
    "ns1",
    "ns2",
    "oauth",
    "pop",
    "postmaster",
    "root",
    "security",
    "smtp",
    "sso",
    "static",
    "status",
    "support",
    "webmail",
    "webmaster",
    "wpad",
    "www",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreSettings:
    """The server as a whole."""

    data_dir: Path = Path("moleport-data")
    """Directory of the databases. It is locked: one server per directory. Back it up with
    `moleport-server backup`."""
    domains: Domains = ("localhost",)
    """Domains under which tunnels get their names; random names are drawn under the first. Each
    needs a wildcard DNS record that leads to this server."""
    region: str = "default"
    """Name of this place in `GET /api/regions`."""
    control_host: HostText = None
    """Host name that means the control listener on the HTTPS edge, so that agents can use port 443.
    Empty: `control.` and the first domain."""
    drain_delay_seconds: SecondsOrZero = 3.0
    """How long new connections are still accepted after SIGTERM: load balancers need that time to
    notice that `/readyz` fails."""
    drain_seconds: SecondsOrZero = 30.0
    """Deadline for requests under way after that; then they are reset. Keep the pod's
    `terminationGracePeriodSeconds` above the sum of both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSettings:
    """Where the server listens; `off` turns a listener off."""

    edge_http: Endpoint | None = EDGE_HTTP
    """HTTP for visitors."""
    edge_http_mode: Literal["serve", "redirect"] = "serve"
    """`serve`: answer on plain HTTP too. `redirect`: send visitors to https with a 308."""
    edge_https: Endpoint | None = EDGE_HTTPS
    """HTTPS for visitors, and for agents under `server.control_host`. Off as long as no certificate
    is configured."""
    control: Endpoint | None = CONTROL
    """Agents and REST."""
    control_tls: bool = True
    """Whether the control listener speaks TLS. Turn it off only behind an ingress that ends TLS:
    tokens would travel in the clear."""
    api: Endpoint | None = API
    """REST and the dashboard for people and the operator; on loopback until you open it."""
    api_tls: bool = False
    """Whether the API listener speaks TLS, with the control listener's certificate."""
    metrics: Endpoint | None = METRICS
    """`/metrics`, `/livez` and `/readyz`, plain HTTP. Do not publish it."""
    tcp_host: HostText = ALL_INTERFACES
    """Address on which the ports of TCP tunnels are opened."""
    tcp_ports: PortRange = TCP_PORTS
    """Ports for TCP tunnels, `first-last`; each is open only while a tunnel has it. They have to be
    published with the same numbers."""

    def tcp_endpoint(self, port: int) -> Endpoint:
        """Return where the TCP tunnel with this port listens."""
        return Endpoint(self.tcp_host or "127.0.0.1", port)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSettings:
    """What visitors and agents see when something in front of the server changes ports or names."""

    scheme: Literal["http", "https"] | None = None
    """Scheme of public URLs. Default: `https` if the HTTPS edge is on, else `http`. Set `https`
    behind an ingress that ends TLS."""
    http_port: Port | None = None
    """Port of http URLs. Default: the bound one. 80 is left out of URLs."""
    https_port: Port | None = None
    """Port of https URLs. Default: the bound one. 443 is left out of URLs."""
    tcp_host: HostText = None
    """Host name in the URLs of TCP tunnels. Default: the first domain."""
    control_url: UrlText = None
    """Base URL that agents are told to use. Default: made from `server.control_host` and the
    control listener."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Certificates; their files are read again when they change."""

    certificate_file: Path | None = None
    """PEM chain, leaf first, for visitors whose name no other certificate covers."""
    key_file: Path | None = None
    """PEM key of `certificate_file`, without a passphrase."""
    certificates: tuple[CertificateFiles, ...] = ()
    """More certificates, chosen by the names in them: exact name, then wildcard, then
    `certificate_file`. In one text: `cert.pem:key.pem,cert2.pem:key2.pem`."""
    control_certificate_file: Path | None = None
    """PEM chain of the control and API listeners. Default: the certificates above."""
    control_key_file: Path | None = None
    """PEM key of `control_certificate_file`."""
    authority_dir: Path | None = None
    """Directory of a local authority that issues a certificate for each name on first use, for
    development; clients trust its `ca.pem`. Made when missing. Excludes the files above."""
    reload_seconds: Seconds = 5.0
    """How often the files are looked at. A look costs one `stat` per file."""
    min_version: Literal["1.2", "1.3"] = "1.2"
    """Oldest TLS version that is spoken; 1.2 because current systems without 1.3 still exist."""

    @property
    def ca_file(self) -> Path | None:
        """What clients of the local authority trust; None without one."""
        return None if self.authority_dir is None else self.authority_dir / CA_FILE

    @property
    def is_configured(self) -> bool:
        """Whether visitors can be served with TLS."""
        return bool(self.certificate_file or self.certificates or self.authority_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSettings:
    """Who is the admin, and how often one may guess."""

    admin_token: Secret | None = None
    """Token that may do everything. Prefer the file: an environment is easily shown."""
    admin_token_file: Path | None = None
    """File with the admin token, spaces around it ignored; read again when it changes."""
    failures_per_minute: CountOrZero = 10
    """Failed authentications of one address (IPv6: of one /64) before the next ones get 429. A
    correct credential is never limited. 0 is unlimited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """Which proxies in front of the server are believed."""

    trusted: tuple[IPNetwork, ...] = ()
    """Addresses or CIDRs of proxies whose `X-Forwarded-*` fields and PROXY headers are believed.
    Nobody by default: a visitor could claim any address."""
    proxy_protocol: tuple[ListenerName | Literal["tcp"], ...] = ()
    """Listeners on which trusted proxies begin each connection with a PROXY header (v1 or v2):
    `edge_http`, `edge_https`, `control`, `api`, `tcp`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameSettings:
    """Which names tunnels may have."""

    reserved: tuple[str, ...] = RESERVED_NAMES
    """Labels under our domains that nobody but the admin gets, because they look official or belong
    to protocols."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """The REST API."""

    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API, such as `https://ops.example.com`."""
    tokens_are_admin: bool = False
    """Whether every API token may do what the admin may, as rustunnel servers do. Insecure: each
    agent could then create tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important level that is written."""
    format: Literal["text", "json"] = "text"
    """`text` for people, `json` for collectors: one object per line."""
    access: Literal["off", "text", "json"] = "off"
    """Format of the access log, one line per request of a visitor. Off, because it holds personal
    data and costs CPU."""
    audit_file: Path | None = None
    """File to which logins, tunnels of rustunnel clients, and tokens made and deleted are appended,
    one JSON object per line (see `docs/reference/logs.md`). Default: none is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """All sections; only `app` and the commands see this object."""

    server: CoreSettings = field(default_factory=CoreSettings)
    listen: ListenSettings = field(default_factory=ListenSettings)
    public: PublicSettings = field(default_factory=PublicSettings)
    tls: TlsSettings = field(default_factory=TlsSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    hold: HoldSettings = field(default_factory=HoldSettings)
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    hoody: HoodySettings = field(default_factory=HoodySettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    names: NameSettings = field(default_factory=NameSettings)
    api: ApiSettings = field(default_factory=ApiSettings)
    log: LogSettings = field(default_factory=LogSettings)

    @property
    def control_host(self) -> str:
        """The host name of the control listener on the HTTPS edge."""
        return self.server.control_host or f"control.{self.server.domains[0]}"

    @property
    def public_scheme(self) -> Literal["http", "https"]:
        """The scheme of public URLs."""
        if self.public.scheme is not None:
            return self.public.scheme
        return "https" if self.listen.edge_https is not None else "http"

    @property
    def public_tcp_host(self) -> str:
        """The host name in the URLs of TCP tunnels."""
        return self.public.tcp_host or self.server.domains[0]
