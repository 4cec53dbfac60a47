"""Claims: gives a session an address for one tunnel, the one it asks for or one that is drawn.

The order is the same for names, TCP ports and container ports: choose an address that the grant allows
and the quota admits; settle with whoever has it; take over a tunnel that the same token left there, or
reserve the address, listen, and open a new one. What may happen during a wait (somebody else was
quicker, the session ended) is looked at behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import uuid4

from moleport_server.access.authorization import choose_hostname, choose_port
from moleport_server.clock import Clock
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import ContainerPort, TunnelProtocol
from moleport_server.errors import (
    ConflictError,
    Forbidden,
    InvalidRequest,
    LimitError,
    NameTaken,
    PortTaken,
    ServerError,
)
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.claim import Claim
from moleport_server.registry.container_ports import ContainerClaim, ContainerPorts
from moleport_server.registry.contests import Contests, is_to_be_had
from moleport_server.registry.durable import DurableState
from moleport_server.registry.governance import Governance
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.notices import Notices
from moleport_server.registry.observer import ClaimResult
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.quotas import check_tunnels
from moleport_server.registry.sessions import Sessions
from moleport_server.registry.tunnels import Tunnels


class Claims:
    """Answers what agents ask for.

    Args:
        domains: ours, the default first.
        reserved_names: labels and host names that need a grant by name.
        addresses: how an address is written.
        most_per_session: how many tunnels a session may have.
        random_bits: where names and container ports come from if none is asked for.
        bindings: who has what now.
        container_ports: those of this server.
        sessions: tells whether a session ended during a wait.
        parked: sessions that end when their last tunnel is taken over.
        tunnels: opens and takes over.
        contests: frees addresses that somebody has.
        governance: lets rules and limits hold.
        durable: keeps what was given.
        notices: counts claims that were refused.
        clock: when a tunnel was opened.
    """

    def __init__(
        self,
        *,
        domains: tuple[str, ...],
        reserved_names: Collection[str],
        addresses: PublicAddresses,
        most_per_session: int,
        random_bits: Callable[[int], int],
        bindings: Bindings,
        container_ports: ContainerPorts,
        sessions: Sessions,
        parked: ParkedSessions,
        tunnels: Tunnels,
        contests: Contests,
        governance: Governance,
        durable: DurableState,
        notices: Notices,
        clock: Clock,
    ) -> None:
        self._domains = domains
        self._reserved_names = reserved_names
        self._addresses = addresses
        self._most_per_session = most_per_session
        self._random_bits = random_bits
        self._bindings = bindings
        self._container_ports = container_ports
        self._sessions = sessions
        self._parked = parked
        self._tunnels = tunnels
        self._contests = contests
        self._governance = governance
        self._durable = durable
        self._notices = notices
        self._clock = clock

    async def claim(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        """Do what `Registry.claim` promises, and count what was refused."""
        try:
            return await self._claim(session, bind_id, claim)
        except ServerError as error:
            self._notices.observer.tunnel_claimed(claim.protocol, result_of(error))
            raise

    async def _claim(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        self._check_live(session)
        own = None if claim.is_wish else self._current(claim)
        check_tunnels(session, self._bindings.tunnels.values(), own, self._most_per_session)
        rules = claim.rules
        if claim.container is not None:
            tunnel = await self._claim_container(session, bind_id, claim, claim.container)
        elif claim.protocol is TunnelProtocol.HTTP:
            tunnel = await self._claim_hostname(session, bind_id, claim)
        else:
            tunnel = await self._claim_port(session, bind_id, claim)
        tunnel.wished = rules
        self._governance.govern(tunnel, session.principal.effective)
        tunnel.host_header = claim.host_header
        tunnel.keepsake = claim.keepsake
        await self._durable.write_lease(tunnel)
        self._check_live(session)
        if tunnel.session is not session:
            raise NameTaken("it was taken away meanwhile")
        return tunnel

    def _check_live(self, session: Session) -> None:
        """Check that the session is there for what it asked: what it gets now nobody would take back.

        Another one under its id does not count: that is its agent on a new connection.
        """
        if not self._sessions.is_live(session):
            raise NameTaken("the session ended meanwhile")

    def _current(self, claim: Claim) -> Tunnel | None:
        """Return the tunnel that has the claimed address now."""
        if claim.container is not None:
            return self._container_ports.holder(claim.container.port)
        if claim.port is not None:
            return self._bindings.of_port(claim.port)
        hostname = claim.hostname
        if claim.subdomain is not None:
            hostname = f"{claim.subdomain}.{self._domains[0]}"
        return None if hostname is None else self._bindings.of_hostname(hostname.lower())

    # Names

    async def _claim_hostname(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        hostname = self._choose_hostname(session.principal, claim)
        while (current := self._bindings.of_hostname(hostname)) is not None:
            await self._contests.settle(current, session, f"'{hostname}' is already in use")
            if self._bindings.of_hostname(hostname) is current:
                return self._take_over(current, session, bind_id)
        tunnel = self._new_tunnel(session, bind_id, claim, hostname=hostname)
        await self._tunnels.reserve(tunnel)
        self._tunnels.open(tunnel, session, bind_id)
        return tunnel

    def _choose_hostname(self, principal: Principal, claim: Claim) -> str:
        def is_ours_or_free(hostname: str) -> bool:
            current = self._bindings.of_hostname(hostname)
            return is_to_be_had(current, principal.token_id, is_wish=claim.is_wish)

        if claim.hostname is None and claim.subdomain is None:
            return self._hostname(principal, is_free=self._is_free)
        try:
            return self._hostname(
                principal,
                hostname=claim.hostname,
                subdomain=claim.subdomain,
                is_free=is_ours_or_free,
            )
        except (NameTaken, InvalidRequest, Forbidden):
            if not claim.is_wish:
                raise
        return self._hostname(principal, is_free=self._is_free)

    def _hostname(
        self,
        principal: Principal,
        *,
        hostname: str | None = None,
        subdomain: str | None = None,
        is_free: Callable[[str], bool],
    ) -> str:
        return choose_hostname(
            principal,
            hostname=hostname,
            subdomain=subdomain,
            domains=self._domains,
            reserved=self._reserved_names,
            is_free=is_free,
            random_bits=self._random_bits,
        )

    def _is_free(self, hostname: str) -> bool:
        return self._bindings.of_hostname(hostname) is None

    # TCP ports

    async def _claim_port(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        wanted = claim.port
        refused: set[int] = set()
        while True:
            try:
                port = self._choose_port(session.principal, claim, wanted, refused)
            except (PortTaken, InvalidRequest, Forbidden):
                if wanted is None or not claim.is_wish:
                    raise
                wanted = None
                continue
            while (current := self._bindings.of_port(port)) is not None:
                await self._contests.settle(current, session, f"port {port} is already in use")
                if self._bindings.of_port(port) is current:
                    return self._take_over(current, session, bind_id)
            tunnel = self._new_tunnel(session, bind_id, claim, port=port)
            try:
                await self._tunnels.reserve(tunnel)
            except PortTaken:
                if wanted is not None and not claim.is_wish:
                    raise
                # Another program sits on it: not ours to give, look further.
                self._check_live(session)
                refused.add(port)
                wanted = None
                continue
            self._open_reserved(tunnel, session, bind_id)
            return tunnel

    def _choose_port(
        self, principal: Principal, claim: Claim, wanted: int | None, refused: Collection[int]
    ) -> int:
        def is_ours_or_free(port: int) -> bool:
            current = self._bindings.of_port(port)
            return is_to_be_had(current, principal.token_id, is_wish=claim.is_wish)

        def is_free(port: int) -> bool:
            return self._bindings.of_port(port) is None and port not in refused

        return choose_port(
            principal,
            wanted,
            ports=self._bindings.ports,
            is_free=is_free if wanted is None else is_ours_or_free,
        )

    # Container ports

    async def _claim_container(
        self, session: Session, bind_id: int, claim: Claim, wanted: ContainerClaim
    ) -> Tunnel:
        principal, ports = session.principal, self._container_ports
        ports.check_mode(wanted.mode)
        refused: set[int] = set()
        while True:
            port = wanted.port or ports.draw(principal, wanted.mode, refused)
            ports.check(principal, wanted.mode, port)
            while (current := ports.holder(port)) is not None:
                await self._contests.settle_container_port(current, session, wanted)
                if ports.holder(port) is current:
                    return self._take_over(current, session, bind_id)
            tunnel = self._new_tunnel(
                session,
                bind_id,
                claim,
                hostname=self._container_hostname(principal, wanted, port),
                container=ports.place(wanted.mode, port, wanted.loopback),
            )
            try:
                await self._tunnels.reserve(tunnel)
            except PortTaken:
                if wanted.port:
                    raise
                self._check_live(session)
                refused.add(port)
                continue
            self._open_reserved(tunnel, session, bind_id)
            return tunnel

    def _container_hostname(
        self, principal: Principal, wanted: ContainerClaim, port: int
    ) -> str | None:
        """Return the public name of an EXPOSE: the label it would like, the pattern's, or none."""
        for label in self._container_ports.labels(wanted, port):
            try:
                return self._hostname(principal, subdomain=label, is_free=self._is_free)
            except (NameTaken, InvalidRequest, Forbidden):
                continue
        return None

    # What all of them do

    def _new_tunnel(
        self,
        session: Session,
        bind_id: int,
        claim: Claim,
        *,
        hostname: str | None = None,
        port: int | None = None,
        container: ContainerPort | None = None,
    ) -> Tunnel:
        tunnel = Tunnel(
            id=uuid4(),
            protocol=claim.protocol,
            hostname=hostname,
            port=port,
            container=container,
            public_url=self._addresses.url(hostname, port),
            token_id=session.principal.token_id,
            token_label=session.principal.label,
            session=None,
            session_id=session.id,
            bind_id=bind_id,
            opened_at=self._clock.now(),
            wished=claim.rules,
        )
        # From the first moment on: a port listens before the claim is complete.
        self._governance.govern(tunnel, session.principal.effective)
        return tunnel

    def _open_reserved(self, tunnel: Tunnel, session: Session, bind_id: int) -> None:
        """Open a tunnel whose listener took its time.

        Raises:
            PortTaken: the session ended meanwhile, or the tunnel was taken away from it.
        """
        if not self._sessions.is_live(session) or tunnel not in self._bindings:
            self._tunnels.abandon(tunnel, "the session ended")
            raise PortTaken("the session ended meanwhile")
        self._tunnels.open(tunnel, session, bind_id)

    def _take_over(self, tunnel: Tunnel, session: Session, bind_id: int) -> Tunnel:
        former = tunnel.session_id
        self._tunnels.take_over(tunnel, session, bind_id)
        if former in self._parked.by_id and not self._bindings.of_session(former):
            # Nothing is left that its agent could come back for.
            self._parked.bury(former)
        return tunnel


def result_of(error: ServerError) -> ClaimResult:
    """Return what a refused claim counts as."""
    match error:
        case InvalidRequest():
            return ClaimResult.INVALID
        case Forbidden():
            return ClaimResult.FORBIDDEN
        case ConflictError():
            return ClaimResult.TAKEN
        case LimitError():
            return ClaimResult.LIMITED
        case _:
            return ClaimResult.FAILED
