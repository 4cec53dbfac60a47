"""Container ports: which numbers may be bound, which are free, and who has them.

A number belongs to one tunnel at a time, EXPOSE or PULL: a listener of all addresses and one of loopback
cannot share it. The server's own listeners and its TCP range are never given out, not even while they
are closed, because the kernel would let a tunnel sit on them first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from moleport_server.access.authorization import authorize_container_port
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import ContainerMode, ContainerPort, TunnelProtocol
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    PortPrivileged,
    PortReserved,
    UnavailableError,
)
from moleport_server.registry.live import Tunnel

NEVER_BELOW: Final = 80
"""Nobody may have ports below, whatever the settings say."""
PRIVILEGED_BELOW: Final = 1024
DRAWS: Final = 64
"""Random ports that are tried before a walk through all of them."""


class Contest(Enum):
    """What a claim does when somebody has the port."""

    REFUSE = "refuse"
    """Whoever has it keeps it, an absent agent too: stock clients without `takeover`."""
    RETURN = "return"
    """The rules of names: an agent of the same token that came back gets it."""
    TAKE = "take"
    """The same token takes it over at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerClaim:
    """What an agent asks for."""

    mode: ContainerMode
    port: int
    """0: any."""
    loopback: str = "127.0.0.1"
    """Where a PULL listens."""
    contest: Contest = Contest.REFUSE
    name: str | None = None
    """A label that it would like for the public name of an EXPOSE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPortSettings:
    """What this server gives out."""

    expose: bool = False
    """Whether listeners of EXPOSE are opened; without, only public names lead to the agent."""
    expose_host: str = "0.0.0.0"  # noqa: S104 - the pod network comes from outside
    pull: bool = False
    random_ports: tuple[int, int] = (20_000, 65_534)
    """Inclusive."""
    reserved: tuple[tuple[int, int], ...] = ()
    """Inclusive ranges of the server itself."""
    privileged_expose: bool = False
    privileged_pull: bool = False
    hostname: str = ""
    """Pattern of the public label, with `{port}`; empty: none."""


class ContainerPorts:
    """The container ports of one server."""

    def __init__(self, settings: ContainerPortSettings, random_bits: Callable[[int], int]) -> None:
        self._settings = settings
        self._random_bits = random_bits
        self._held: dict[int, Tunnel] = {}

    def holder(self, port: int) -> Tunnel | None:
        """Return the tunnel that has the port, live or leased."""
        return self._held.get(port)

    def add(self, tunnel: Tunnel) -> None:
        """Note who has its container port; others are ignored."""
        if tunnel.container is not None:
            self._held[tunnel.container.port] = tunnel

    def remove(self, tunnel: Tunnel) -> None:
        """Free the port again; idempotent."""
        container = tunnel.container
        if container is not None and self._held.get(container.port) is tunnel:
            del self._held[container.port]

    def place(self, mode: ContainerMode, port: int, loopback: str) -> ContainerPort:
        """Return where a port of this mode listens here."""
        settings = self._settings
        if mode is ContainerMode.EXPOSE:
            return ContainerPort(
                mode=mode, port=port, host=settings.expose_host, is_listening=settings.expose
            )
        return ContainerPort(mode=mode, port=port, host=loopback, is_listening=settings.pull)

    def labels(self, claim: ContainerClaim, port: int) -> tuple[str, ...]:
        """Return the labels to try for the public name, the best first."""
        if claim.mode is ContainerMode.PULL or not self._settings.hostname:
            return ()
        made = self._settings.hostname.replace("{port}", str(port))
        return (made,) if claim.name is None else (claim.name.lower(), made)

    def check_mode(self, mode: ContainerMode) -> None:
        """Check that this server does such a thing at all.

        Raises:
            Forbidden: PULL is off, or there would be neither a port nor a name.
        """
        settings = self._settings
        if mode is ContainerMode.PULL and not settings.pull:
            raise Forbidden("this server opens no PULL ports (setting hoody.pull)")
        if mode is ContainerMode.EXPOSE and not (settings.expose or settings.hostname):
            raise Forbidden("this server opens no container ports (setting hoody.expose)")

    def check(self, principal: Principal, mode: ContainerMode, port: int) -> None:
        """Check that a principal may have a port of its choice.

        Raises:
            Forbidden: its grant leaves out the port, or the protocol.
            InvalidRequest: it is no port number.
            PortPrivileged: it is below 80, or below 1024 where the settings do not allow that.
            PortReserved: the server uses it itself.
        """
        if not 1 <= port <= 65_535:
            raise InvalidRequest(f"port {port} is not between 1 and 65535")
        settings = self._settings
        may_be_low = (
            settings.privileged_expose if mode is ContainerMode.EXPOSE else settings.privileged_pull
        )
        if port < NEVER_BELOW or (port < PRIVILEGED_BELOW and not may_be_low):
            raise PortPrivileged(f"port {port} is privileged")
        if self._is_reserved(port):
            raise PortReserved(f"port {port} belongs to the tunnel server")
        authorize_container_port(principal, _protocol(mode), port)

    def draw(self, principal: Principal, mode: ContainerMode, avoid: Collection[int]) -> int:
        """Return a random port that is free and granted, none of `avoid`.

        Raises:
            Forbidden: the grant has none of the range, or leaves out the protocol.
            UnavailableError: all of those are taken.
        """
        first, last = self._settings.random_ports
        size = last - first + 1

        def fits(port: int) -> bool:
            if port in self._held or port in avoid or self._is_reserved(port):
                return False
            try:
                authorize_container_port(principal, _protocol(mode), port)
            except Forbidden:
                return False
            return True

        for _ in range(DRAWS):
            port = first + self._random_bits(32) % size
            if fits(port):
                return port
        start = self._random_bits(32) % size
        for step in range(size):
            port = first + (start + step) % size
            if fits(port):
                return port
        authorize_container_port(principal, _protocol(mode), first)
        raise UnavailableError("no container port is free")

    def _is_reserved(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self._settings.reserved)


def _protocol(mode: ContainerMode) -> TunnelProtocol:
    return TunnelProtocol.HTTP if mode is ContainerMode.EXPOSE else TunnelProtocol.TCP
