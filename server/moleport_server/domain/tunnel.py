"""What a tunnel is: protocol, address and the rules for its visitors.

Pure facts; who may have which address is decided by `access`, who has it now by `registry`.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from uuid import UUID

IPNetwork = IPv4Network | IPv6Network

TunnelId = UUID


class TunnelProtocol(StrEnum):
    """What visitors speak to the edge."""

    HTTP = "http"
    TCP = "tcp"


class HostHeader(StrEnum):
    """Which Host header the local service sees; any other text is a fixed value."""

    PRESERVE = "preserve"
    """The public name, as the visitor sent it."""
    REWRITE = "rewrite"
    """The agent's own target, for development servers that refuse unknown hosts."""


class ContainerMode(StrEnum):
    """Which way a container port leads."""

    EXPOSE = "expose"
    """The pod network reaches an HTTP service beside the agent."""
    PULL = "pull"
    """Containers of the pod reach a TCP service beside the agent, by loopback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPort:
    """A port inside of the cluster that leads to the agent; ports of both modes share one row."""

    mode: ContainerMode
    port: int
    host: str
    """The address to listen on."""
    is_listening: bool = True
    """False: the number is given out, but the server opens no such ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BasicCredential:
    """One user that may pass HTTP basic authentication of a tunnel."""

    user: str
    password_hash: str
    """PHC string `$scrypt$ln=..,r=..,p=..$salt$hash` (base64 without padding) of an agent, or bcrypt
    (`$2b$..`) of a policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VisitorRules:
    """Who may visit a tunnel, as its agent asked for and as the policies of its token demand.

    `None` means unrestricted, an empty tuple means that nobody may.
    """

    basic_auth: tuple[BasicCredential, ...] | None = None
    allowed_cidrs: tuple[IPNetwork, ...] | None = None
    denied_cidrs: tuple[IPNetwork, ...] = ()
    """Stronger than `allowed_cidrs`."""
    requires_tls: bool = False
    """Of HTTP visitors."""
    http_denied: str | None = None
    """Why nobody gets through by HTTP, or None."""

    @property
    def is_open(self) -> bool:
        """Whether every visitor passes, so that the edge can skip the check."""
        return (
            self.basic_auth is None
            and self.allowed_cidrs is None
            and not self.denied_cidrs
            and not self.requires_tls
            and self.http_denied is None
        )


OPEN = VisitorRules()
