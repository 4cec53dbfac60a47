"""Authorization: what a principal may bind, and which address it gets.

Decides from the grant of the token, the policies merged into it, and the state that the caller
passes in; changes nothing but the order of ports. The texts of refusals name the rule that refused,
because the people who read them can only act on that. They avoid the letters that make old rustunnel
clients take a refusal for a failed login («auth»).
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Protocol

from moleport_server.access.addresses import is_inside
from moleport_server.domain.hostnames import label_under, normalise_binding, parse_label
from moleport_server.domain.naming import RandomBits, draw_name, is_reserved
from moleport_server.domain.policy import allowed_hostnames, is_within_bounds
from moleport_server.domain.scope import matches
from moleport_server.domain.token import Grant, Principal
from moleport_server.domain.tunnel import ContainerPort, TunnelProtocol
from moleport_server.errors import Forbidden, InvalidRequest, NameTaken, PortTaken

_SHOWN_PATTERNS = 8
"""A refusal is one line for a terminal."""


class Bound(Protocol):
    """What has an address: a tunnel of the registry."""

    @property
    def protocol(self) -> TunnelProtocol:
        """What its visitors speak."""
        ...

    @property
    def hostname(self) -> str | None:
        """Its host name, if it has one."""
        ...

    @property
    def port(self) -> int | None:
        """Its TCP port, if it has one."""
        ...

    @property
    def container(self) -> ContainerPort | None:
        """Its container port, if it has one."""
        ...


class PortOrder:
    """The ports of a range, least recently used first.

    A freed port goes to the end, so that visitors who still know it do not meet another owner's
    service the moment after.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self._order: OrderedDict[int, None] = OrderedDict.fromkeys(range(first, last + 1))

    def __contains__(self, port: int) -> bool:
        return port in self._order

    def __iter__(self) -> Iterator[int]:
        return iter(self._order)

    def touch(self, port: int) -> None:
        """Note that the port was used just now; call it when one is freed."""
        if port in self._order:
            self._order.move_to_end(port)


def authorize_agent(principal: Principal, address: str) -> None:
    """Check that an agent may log in from this IP address.

    Raises:
        Forbidden: the token's agent CIDRs leave the address out.
    """
    if not is_inside(address, _grant(principal).agent_cidrs):
        raise Forbidden(f"{_who(principal)} may not be used from {address}")


def authorize_protocol(principal: Principal, protocol: TunnelProtocol) -> None:
    """Check that the principal may open tunnels of this protocol.

    Raises:
        Forbidden: it may not.
    """
    allowed = _grant(principal).protocols
    if allowed is not None and protocol not in allowed:
        raise Forbidden(f"{_who(principal)} may not use protocol {protocol}")


def choose_hostname(
    principal: Principal,
    *,
    hostname: str | None = None,
    subdomain: str | None = None,
    domains: Collection[str],
    reserved: Collection[str],
    is_free: Callable[[str], bool],
    random_bits: RandomBits,
) -> str:
    """Return the host name of a new HTTP tunnel, normalised.

    Args:
        principal: who asks.
        hostname: the full host name or wildcard it asks for, or None.
        subdomain: the label under our default domain it asks for, or None.
        domains: ours, normalised, the default first.
        reserved: labels that need to be granted by name, and full host names of the server itself,
            which nobody gets.
        is_free: whether this principal could have the name now, be it by taking over its own.
        random_bits: where names come from if none is asked for.

    Raises:
        InvalidRequest: the wanted name is malformed, or both kinds are given.
        Forbidden: the grant leaves the name or the protocol out, or the name is reserved.
        NameTaken: the name is not free, or none that the grant allows is.
    """
    authorize_protocol(principal, TunnelProtocol.HTTP)
    patterns = allowed_hostnames(principal.effective, domains)
    if hostname is not None and subdomain is not None:
        raise InvalidRequest("give either a host name or a subdomain, not both")
    if subdomain is not None:
        shown, wanted = subdomain, f"{parse_label(subdomain)}.{next(iter(domains))}"
    elif hostname is not None:
        shown = wanted = normalise_binding(hostname)
        label = label_under(wanted, domains)
        if label is not None:
            parse_label(label)
    elif patterns == ():
        raise Forbidden(f"{_who(principal)} may not bind any host name")
    else:
        shown = wanted = draw_name(
            random_bits,
            lambda name: (
                is_free(name)
                and not _is_kept(principal, name, domains, reserved)
                and is_within_bounds(principal.effective, name, domains)
            ),
            patterns=patterns,
            domains=domains,
        )
    _check_granted(principal, wanted, domains)
    if _is_kept(principal, wanted, domains, reserved):
        raise Forbidden(f"host name '{wanted}' is reserved")
    if not is_free(wanted):
        # The text that agents of the rustunnel family know.
        noun = "host name" if subdomain is None else "subdomain"
        raise NameTaken(f"{noun} '{shown}' is already in use")
    return wanted


def choose_port(
    principal: Principal, wanted: int | None, *, ports: PortOrder, is_free: Callable[[int], bool]
) -> int:
    """Return the port of a new TCP tunnel: the wanted one, or the one unused for longest.

    Args:
        principal: who asks.
        wanted: None for any.
        ports: the range of the server; the chosen port moves to its end.
        is_free: whether this principal could have the port now, be it by taking over its own.

    Raises:
        InvalidRequest: the wanted port is no port number, or outside of the range.
        Forbidden: the grant leaves the port, every port of the range, or the protocol out.
        PortTaken: the port is not free, or none is.
    """
    authorize_protocol(principal, TunnelProtocol.TCP)
    ranges = _grant(principal).tcp_ports
    if wanted is not None:
        if not 1 <= wanted <= 65535:
            raise InvalidRequest(f"port {wanted} is not between 1 and 65535")
        if not _is_granted(wanted, ranges):
            raise Forbidden(f"{_who(principal)} may not use port {wanted}")
        if wanted not in ports:
            raise InvalidRequest(f"port {wanted} is outside of {ports.first}-{ports.last}")
        if not is_free(wanted):
            raise PortTaken(f"port {wanted} is already in use")
        ports.touch(wanted)
        return wanted
    granted = [port for port in ports if _is_granted(port, ranges)]
    if ranges is not None and not granted:
        raise Forbidden(f"{_who(principal)} may not use any port of {ports.first}-{ports.last}")
    for port in granted:
        if is_free(port):
            ports.touch(port)
            return port
    # The text that agents of the rustunnel family know.
    raise PortTaken("no TCP ports available")


def authorize_container_port(principal: Principal, protocol: TunnelProtocol, port: int) -> None:
    """Check that the principal may bind this container port for this protocol.

    Raises:
        Forbidden: it may not.
    """
    authorize_protocol(principal, protocol)
    if not _is_granted(port, _grant(principal).container_ports):
        raise Forbidden(f"{_who(principal)} may not use container port {port}")


def check_tunnel(principal: Principal, tunnel: Bound, domains: Collection[str]) -> None:
    """Check that a principal may still have a tunnel that it was given earlier.

    Raises:
        Forbidden: its token or one of the policies changed, and now leaves the address out.
    """
    authorize_protocol(principal, tunnel.protocol)
    if tunnel.container is not None:
        authorize_container_port(principal, tunnel.protocol, tunnel.container.port)
    if tunnel.hostname is not None:
        _check_granted(principal, tunnel.hostname, domains)
    if tunnel.port is not None and not _is_granted(tunnel.port, _grant(principal).tcp_ports):
        raise Forbidden(f"{_who(principal)} may not use port {tunnel.port}")


def _check_granted(principal: Principal, hostname: str, domains: Collection[str]) -> None:
    """Raise Forbidden if the host name is outside of the grant; the admin has all."""
    if principal.is_admin:
        return
    effective = principal.effective
    if not matches(effective.grant.hostnames, hostname, domains):
        patterns = effective.grant.hostnames
    elif not is_within_bounds(effective, hostname, domains):
        patterns = allowed_hostnames(effective, domains)
    else:
        return
    if patterns is None:
        allowed = "single names under " + ", ".join(domains)
    else:
        allowed = ", ".join(patterns[:_SHOWN_PATTERNS]) or "none"
        if len(patterns) > _SHOWN_PATTERNS:
            allowed += ", …"
    raise Forbidden(f"{_who(principal)} may not bind host name '{hostname}' (allowed: {allowed})")


def _is_kept(
    principal: Principal, hostname: str, domains: Collection[str], reserved: Collection[str]
) -> bool:
    """Whether a name is reserved, and not granted by its very name."""
    if hostname in reserved and "." in hostname:
        return True
    label = label_under(hostname, domains)
    if principal.is_admin or not is_reserved(label, hostname, reserved):
        return False
    patterns = _grant(principal).hostnames or ()
    return label not in patterns and hostname not in patterns


def _grant(principal: Principal) -> Grant:
    return principal.effective.grant


def _who(principal: Principal) -> str:
    return f"token '{principal.label}'"


def _is_granted(port: int, ranges: Iterable[tuple[int, int]] | None) -> bool:
    return ranges is None or any(first <= port <= last for first, last in ranges)
