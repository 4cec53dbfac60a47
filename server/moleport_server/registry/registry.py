"""The registry: which session exposes what, under which address, and what waits for whom.

This is its port, all that the edge, the adapters of agents and the REST API use; the work is done by
the parts that it puts together:

* `bindings` knows who has which address, and answers the edge's `lookup`;
* `claims` gives addresses out, with `quotas` and `contests`;
* `sessions` opens, parks (`parked`), resumes and ends the sessions of agents;
* `leases` ends what nobody comes back for, `restoration` brings it over a restart;
* `renewal` and `governance` let the rules of tokens and policies hold for what is live;
* `tunnels` has the steps that all of these are made of, `durable` writes them, `notices` tells them.

Everything happens on the event loop, synchronously between two awaits: a change is decided and made in
one step, its durable side follows through the journal. Wire formats, sockets and HTTP are unknown here.

Life of a tunnel: claimed by a live session -> parked when the session is lost (leased, visitors are
held) -> taken over by the same token (id, history and counters stay) or released when the lease ends.
A clean goodbye parks without a hold.

The port has four verbs, and they stay what they are when several servers share a store. *Claim* waits,
since the store may have to settle who is first: `claim`, `resume_session`. *Release* never waits:
`unbind`, `close_…`, `release_…`, `lose_session`. *Lookup* is answered from memory: `lookup`, `sessions`,
`tunnels`, `parked`. *Watch* is how others learn of a change, whoever made it: `events` and `notices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from moleport_server.clock import Clock
from moleport_server.domain.token import Principal
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.claim import Claim
from moleport_server.registry.claims import Claims
from moleport_server.registry.container_ports import ContainerPorts, ContainerPortSettings
from moleport_server.registry.contests import Contests
from moleport_server.registry.durable import DurableState
from moleport_server.registry.governance import Governance
from moleport_server.registry.holds import Holds
from moleport_server.registry.journal import Journal
from moleport_server.registry.leases import Leases
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.notices import Notices
from moleport_server.registry.observer import SessionEnd, TunnelEnd
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.ports import PortListeners
from moleport_server.registry.renewal import Renewal
from moleport_server.registry.restoration import Restoration
from moleport_server.registry.sessions import Sessions
from moleport_server.registry.tombstones import Tombstones
from moleport_server.registry.tunnels import Tunnels
from moleport_server.store.base import StateStore, StoredSession
from moleport_wire.aio.tasks import TaskOwner


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """The bounds and names that the registry keeps to."""

    domains: tuple[str, ...]
    reserved_names: frozenset[str]
    addresses: PublicAddresses
    tcp_ports: tuple[int, int]
    """Inclusive range."""
    lease_seconds: float = 60.0
    hold_per_tunnel: int = 1024
    hold_total: int = 10_000
    max_sessions: int = 4096
    max_tunnels_per_session: int = 32
    container_ports: ContainerPortSettings = field(default_factory=ContainerPortSettings)


class Registry:
    """Sessions, tunnels, leases and holds of one server process."""

    def __init__(
        self,
        settings: RegistrySettings,
        store: StateStore,
        *,
        clock: Clock,
        random_bits: Callable[[int], int],
        journal: Journal,
        listeners: PortListeners,
        tasks: TaskOwner,
    ) -> None:
        self.domains = settings.domains
        """Our domains; the first is the default for names."""
        self.lease_seconds = settings.lease_seconds
        """How long an address waits for its absent agent."""
        self.notices = Notices(clock.now)
        """Who is told of what happens; the application sets it up."""
        self.events = self.notices.events
        """What happened, for those who watch."""
        self.holds = Holds(per_tunnel=settings.hold_per_tunnel, total=settings.hold_total)
        """Visitors that wait for an absent agent."""
        self.container_ports = ContainerPorts(settings.container_ports, random_bits)
        """Who has which container port."""
        self.tombstones = Tombstones(clock.monotonic)
        """Sessions that ended for good a short while ago."""

        bindings = self._bindings = Bindings(settings.tcp_ports, self.container_ports)
        durable = DurableState(store, journal)
        governance = Governance(bindings, self.notices, clock)
        tunnels = self._tunnels = Tunnels(
            bindings,
            governance,
            durable=durable,
            notices=self.notices,
            holds=self.holds,
            listeners=listeners,
            clock=clock,
        )
        parked = self._parked = ParkedSessions(durable, self.tombstones)
        leases = self._leases = Leases(
            settings.lease_seconds, bindings=bindings, parked=parked, tunnels=tunnels, clock=clock
        )
        sessions = self._sessions = Sessions(
            settings.max_sessions,
            bindings=bindings,
            tunnels=tunnels,
            parked=parked,
            leases=leases,
            durable=durable,
            notices=self.notices,
            tasks=tasks,
            clock=clock,
        )
        self._claims = Claims(
            domains=settings.domains,
            reserved_names=settings.reserved_names,
            addresses=settings.addresses,
            most_per_session=settings.max_tunnels_per_session,
            random_bits=random_bits,
            bindings=bindings,
            container_ports=self.container_ports,
            sessions=sessions,
            parked=parked,
            tunnels=tunnels,
            contests=Contests(tunnels, clock, sessions.is_live),
            governance=governance,
            durable=durable,
            notices=self.notices,
            clock=clock,
        )
        self._renewal = Renewal(
            settings.domains,
            bindings=bindings,
            sessions=sessions,
            parked=parked,
            tunnels=tunnels,
            governance=governance,
        )
        self._restoration = Restoration(
            store,
            leases=leases,
            parked=parked,
            tunnels=tunnels,
            governance=governance,
            addresses=settings.addresses,
            container_ports=self.container_ports,
            clock=clock,
        )

        self.lookup: Callable[[str], Tunnel | None] = bindings.lookup
        """Find the tunnel for a normalised host name: exact, then wildcard. Each request asks, so no
        call stands in between."""

    @property
    def sessions(self) -> Mapping[str, Session]:
        """Live sessions by id."""
        return self._sessions.live

    @property
    def tunnels(self) -> Mapping[UUID, Tunnel]:
        """Live and leased tunnels by id."""
        return self._bindings.tunnels

    @property
    def parked(self) -> Mapping[str, StoredSession]:
        """Sessions that lost their connection and may be resumed, by id."""
        return self._parked.by_id

    def count_leases(self) -> int:
        """Tunnels that wait for their agent."""
        return self._leases.count()

    # The server starts and ends

    async def restore(self) -> None:
        """Load sessions and leases of the last run; every lease starts anew and in full.

        Called once before any listener opens. Ports that another program has taken meanwhile are
        released, with a warning.
        """
        await self._restoration.run()

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell every agent to go elsewhere; nothing is ended yet."""
        self._leases.is_closing = True
        self._sessions.drain(reason, deadline_seconds)

    def close(self, reason: str) -> None:
        """End every session; names stay leased in the store for the next start."""
        self._leases.close()
        self._tunnels.give_up_holds()
        self._sessions.end_all(reason)
        self._tunnels.close_listeners(reason)

    # An agent comes, stays away, comes back

    def check_admission(self, principal: Principal) -> None:
        """Check that one more session may exist.

        Raises:
            QuotaExceeded: the server or the token is at its limit.
        """
        self._sessions.check_admission(principal)

    def open_session(self, session: Session) -> None:
        """Register a new session and remember it durably."""
        self._sessions.open(session)

    def find_resumable(self, session_id: str, principal: Principal) -> bool:
        """Whether this caller may resume that session, live or parked."""
        return self._sessions.may_resume(session_id, principal)

    def resume_session(self, session: Session) -> list[Tunnel]:
        """Let `session` take the place of the session with its id; return the tunnels it has again.

        The caller has checked `find_resumable`. An old session that still looks alive ends first.
        """
        return self._sessions.resume(session)

    def attach(self, session: Session, tunnels: Iterable[Tunnel]) -> None:
        """Make tunnels of a resumed session live; call it when the agent is ready for streams."""
        self._sessions.attach(session, tunnels)

    def lose_session(
        self, session: Session, reason: str, *, is_clean: bool, cause: SessionEnd | None = None
    ) -> None:
        """Park a session whose connection is gone.

        After a clean goodbye its names are kept as well, but visitors are not held and the session
        cannot be resumed. `cause` is for an end that is neither a goodbye nor a loss.
        """
        self._sessions.lose(session, reason, is_clean=is_clean, cause=cause)

    async def close_session(
        self,
        session: Session,
        reason: str,
        *,
        drain_seconds: float = 0.0,
        grace_seconds: float = 0.0,
        cause: SessionEnd = SessionEnd.CLOSED,
    ) -> None:
        """Begin to end a session for good: its tunnels are released, its agent is told why.

        Returns at once. With `drain_seconds` the agent is told first and open streams get that time.
        With `grace_seconds` the agent has that time to close its connections after its goodbye.
        """
        self._sessions.close(
            session, reason, drain_seconds=drain_seconds, grace_seconds=grace_seconds, cause=cause
        )

    def release_session(self, session: Session, reason: str, cause: SessionEnd) -> bool:
        """Forget a session and release its tunnels; False if it was not live any more.

        The caller ends its connections. A session that was resumed and not yet attached has tunnels
        that only their `session_id` leads to.
        """
        return self._sessions.release(session, reason, cause)

    def release_parked(self, session_id: str, reason: str) -> bool:
        """Release everything of a session whose agent is away; False if there is none."""
        return self._sessions.release_parked(session_id, reason)

    # A tunnel is asked for and given back

    async def claim(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        """Give a session an address for one tunnel; durable when this returns.

        The caller tells the agent and then calls `welcome`. Until then its `open_stream` has to raise
        `NoSession` for this bind: an agent refuses streams of a bind that it was not told about.

        Raises:
            Forbidden: outside of the token's grant.
            InvalidRequest: the wish makes no sense.
            NameTaken: the name is another's, or its owner is alive elsewhere.
            PortTaken: the same for a port, or none is free.
            QuotaExceeded: too many tunnels.
        """
        return await self._claims.claim(session, bind_id, claim)

    def welcome(self, session: Session, tunnel: Tunnel) -> None:
        """End the hold of a tunnel: its agent knows the address and takes streams."""
        self._tunnels.welcome(session, tunnel)

    def unbind(self, session: Session, bind_id: int, reason: str) -> bool:
        """Release one tunnel because its agent asked for it; False if it is not the session's."""
        tunnel = session.tunnels.get(bind_id)
        if tunnel is None:
            return False
        self._tunnels.release(tunnel, reason, TunnelEnd.UNBOUND)
        return True

    async def close_tunnel(self, tunnel: Tunnel, reason: str) -> None:
        """Release a tunnel by order of its owner: the agent is told, visitors are cut."""
        self._tunnels.withdraw(tunnel, reason, TunnelEnd.DELETED)

    # A token or a policy changes

    async def renew_session(self, session: Session, principal: Principal) -> None:
        """Go by what its token may do now; what that leaves out is ended, and its agent told why."""
        self._renewal.renew_session(session, principal)

    def renew_token(self, principal: Principal) -> None:
        """Go by what a token may do now, in all of its tunnels, live and leased.

        Call it after `renew_session` of its sessions. Of too many agents or tunnels the newest go.
        """
        self._renewal.renew_token(principal)

    async def close_token(self, token_id: str, reason: str) -> None:
        """End everything of a token: sessions, leases, resumable sessions."""
        self._renewal.close_token(token_id, reason)
