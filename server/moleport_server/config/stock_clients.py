"""Settings for unmodified hoody-tunnel clients: container ports and their limits.

Ports inside of the cluster are off until somebody wants them: whoever may bind them decides which port
of the pod a neighbour talks to.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from moleport_server.config.bounds import Seconds
from moleport_server.config.values import PortRange
from moleport_server.domain.tunnel import IPNetwork

RANDOM_PORTS = PortRange(20_000, 65_534)


@dataclass(frozen=True, slots=True, kw_only=True)
class HoodySettings:
    """Stock hoody-tunnel clients, and container ports for all agents."""

    expose: bool = False
    """Whether EXPOSE opens container ports. Without, a stock client still gets a public name."""
    expose_host: Annotated[str | None, "host"] = "0.0.0.0"  # noqa: S104 - the pod network comes from outside
    """Address on which container ports of EXPOSE listen: the pod network by default."""
    pull: bool = False
    """Whether PULL may open ports on loopback, for other containers of the pod."""
    random_ports: PortRange = RANDOM_PORTS
    """Container ports that are drawn from, `first-last`, when a client wants any. Ports of the
    server itself and of `listen.tcp_ports` are left out."""
    privileged_expose: bool = False
    """Whether EXPOSE may have ports 80 to 1023. Lower ones are always refused."""
    privileged_pull: bool = False
    """Whether PULL may have ports 80 to 1023."""
    hostname: str = "port-{port}"
    """Public name of an EXPOSE under the first domain; `{port}` is its container port. A client
    that sends a label gets that name instead if it is free. Empty: no public names."""
    max_streams: Annotated[int, Meta(ge=1, le=65_535)] = 1024
    """Requests and connections of one stock client; above it 503. It works on 200 requests at a
    time, the others wait for their turn."""
    idle_seconds: Seconds = 600.0
    """How long a stock client may stay without a binding."""
    trusted: tuple[IPNetwork, ...] = ()
    """Addresses or CIDRs that may use the REST calls below `/api/v1/tunnel/` without a token and
    see everything there. For a gateway that checks its callers, since stock SDKs are often used
    behind one. Nobody by default."""
