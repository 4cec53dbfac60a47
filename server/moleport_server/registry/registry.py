"""The registry: which session exposes what, under which address, and what waits for whom.

Everything here happens on the event loop, synchronously between two awaits: a change is decided and
made in one step, its durable side follows through the journal. Wire formats, sockets and HTTP are
unknown here.

Life of a tunnel: claimed by a live session -> parked when the session is lost (leased, visitors are
held) -> taken over by the same token (id, history and counters stay) or released when the lease ends.
A clean goodbye parks without a hold.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final
from uuid import UUID, uuid4

from moleport_server.access.authentication import merge_rows
from moleport_server.access.authorization import (
    PortOrder,
    authorize_agent,
    check_tunnel,
    choose_hostname,
    choose_port,
)
from moleport_server.access.bounds import Bounds
from moleport_server.access.visitor_rules import parse_rules
from moleport_server.clock import Clock
from moleport_server.domain.policy import visitor_rules
from moleport_server.domain.token import Effective, Principal
from moleport_server.domain.tunnel import (
    OPEN,
    ContainerMode,
    ContainerPort,
    TunnelProtocol,
    VisitorRules,
)
from moleport_server.errors import (
    ConflictError,
    Forbidden,
    InvalidRequest,
    LimitError,
    NameTaken,
    PortTaken,
    QuotaExceeded,
    ServerError,
)
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.container_ports import (
    ContainerClaim,
    ContainerPorts,
    ContainerPortSettings,
    Contest,
)
from moleport_server.registry.events import EventLog
from moleport_server.registry.holds import Holds
from moleport_server.registry.journal import Journal, Write
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import (
    ClaimResult,
    LeaseEnd,
    RegistryObserver,
    SessionEnd,
    TunnelEnd,
    Unobserved,
)
from moleport_server.registry.ports import PortListeners
from moleport_server.registry.tombstones import Tombstones
from moleport_server.store.base import Lease, StateStore, StoredSession, TunnelLogEntry
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.hoody.frames import Code

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 2.0
"""How long a session that seems alive may take to answer before its name is given away."""
TAKEOVER_PAUSE_SECONDS: Final = 60.0
"""Two live agents of one token on different machines must not evict each other for ever."""
ROUTE_CACHE_SIZE: Final = 4096


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an agent asks for in one BIND."""

    protocol: TunnelProtocol
    hostname: str | None = None
    """Full name; excludes `subdomain`."""
    subdomain: str | None = None
    port: int | None = None
    container: ContainerClaim | None = None
    """A container port instead of a name or port of its own."""
    is_wish: bool = False
    """Another name or port will do when this one is not to be had."""
    basic_auth: tuple[tuple[str, str], ...] | None = None
    """User and PHC hash."""
    allowed_cidrs: tuple[str, ...] | None = None
    host_header: str | None = None


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
        self._settings = settings
        self._store = store
        self._clock = clock
        self._random_bits = random_bits
        self._journal = journal
        self._listeners = listeners
        self._tasks = tasks
        self._sessions: dict[str, Session] = {}
        self._tunnels: dict[UUID, Tunnel] = {}
        self._by_hostname: dict[str, Tunnel] = {}
        self._by_port: dict[int, Tunnel] = {}
        self._ports = PortOrder(*settings.tcp_ports)
        self.container_ports = ContainerPorts(settings.container_ports, random_bits)
        self._routes: dict[str, Tunnel | None] = {}
        self._bounds: dict[str, Bounds] = {}
        """By token id; of those that have limits and tunnels."""
        self._evicted_at: dict[UUID, float] = {}
        self._resumable: dict[str, StoredSession] = {}
        self.tombstones = Tombstones(clock.monotonic)
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closing = False
        self.holds = Holds(per_tunnel=settings.hold_per_tunnel, total=settings.hold_total)
        self.events = EventLog(clock.now)
        self.on_agent_returned: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel has a session again, before its hold ends."""
        self.on_agent_left: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel loses its session, or when that is short of streams; the edge forgets
        the idle ones."""
        self.on_tunnel_closed: Callable[[Tunnel], None] = lambda _: None
        """Called when a tunnel was released for good."""
        self.on_rules_changed: Callable[[Tunnel], None] = lambda _: None
        """Called when other visitor rules or limits hold for a tunnel; the edge looks at what is
        open."""
        self.observer: RegistryObserver = Unobserved()
        """Counts what begins and ends."""

    # Reading

    @property
    def sessions(self) -> Mapping[str, Session]:
        """Live sessions by id."""
        return self._sessions

    @property
    def tunnels(self) -> Mapping[UUID, Tunnel]:
        """Live and leased tunnels by id."""
        return self._tunnels

    @property
    def domains(self) -> tuple[str, ...]:
        """Our domains; the first is the default for names."""
        return self._settings.domains

    @property
    def lease_seconds(self) -> float:
        """How long an address waits for its absent agent."""
        return self._settings.lease_seconds

    def lookup(self, hostname: str) -> Tunnel | None:
        """Find the tunnel for a normalised host name: exact, then wildcard.

        A leased exact name wins over a live wildcard, so that visitors of an absent agent are never
        shown somebody else's site.
        """
        try:
            return self._routes[hostname]
        except KeyError:
            pass
        tunnel = self._by_hostname.get(hostname)
        if tunnel is None:
            parent = hostname
            while tunnel is None and "." in parent:
                parent = parent.partition(".")[2]
                tunnel = self._by_hostname.get(f"*.{parent}")
        if len(self._routes) >= ROUTE_CACHE_SIZE:
            self._routes.clear()
        self._routes[hostname] = tunnel
        return tunnel

    @property
    def parked(self) -> Mapping[str, StoredSession]:
        """Sessions that lost their connection and may be resumed, by id."""
        return self._resumable

    def count_leases(self) -> int:
        """Tunnels that wait for their agent."""
        return sum(1 for tunnel in self._tunnels.values() if tunnel.session is None)

    # Sessions

    async def restore(self) -> None:
        """Load sessions and leases of the last run; every lease starts anew and in full.

        Called once before any listener opens. Ports that another program has taken meanwhile are
        released, with a warning.
        """
        leases = await self._store.load_leases()
        with_tunnels = {lease.session_id for lease in leases}
        for stored in await self._store.load_sessions():
            if stored.id in with_tunnels:
                self._resumable[stored.id] = stored
            else:
                await self._store.delete_session(stored.id)
        until = self._clock.monotonic() + self._settings.lease_seconds
        wall_until = self._clock.now() + self._settings.lease_seconds
        policies = await self._store.list_policies()
        owners: dict[str, Principal] = {}
        for lease in leases:
            if lease.token_id is not None and lease.token_id not in owners:
                row = await self._store.get_token(lease.token_id)
                if row is not None:
                    merged = merge_rows(row.token, policies)
                    owners[lease.token_id] = Principal(token=row.token, merged=merged)
            owner = owners.get(lease.token_id or "", Principal())
            tunnel = self._restored(lease, until, owner.label)
            self._govern(tunnel, owner.effective)
            if tunnel.has_listener:
                try:
                    await self._listeners.open(tunnel)
                except PortTaken as error:
                    logger.warning(
                        "port of a lease is taken by another program, releasing it",
                        extra={"port": tunnel.address, "error": str(error)},
                    )
                    await self._store.delete_leases([lease.tunnel_id])
                    await self._store.close_log_entries([lease.tunnel_id], self._clock.now())
                    continue
            self._add(tunnel)
            await self._store.park_leases(lease.session_id, wall_until)
        self._schedule_sweep()

    def _restored(self, lease: Lease, until: float, label: str | None) -> Tunnel:
        wishes = json.loads(lease.settings)
        container = self._restored_container(wishes.get("container"))
        hostname = port = None
        if lease.protocol is TunnelProtocol.HTTP:
            hostname = lease.address if container is None or lease.address[0] != ":" else None
        elif container is None:
            port = int(lease.address)
        users = wishes.get("basic_auth")
        return Tunnel(
            id=UUID(lease.tunnel_id),
            protocol=lease.protocol,
            hostname=hostname,
            port=port,
            container=container,
            public_url=self._public_url(hostname, port),
            token_id=lease.token_id,
            token_label=label,
            session=None,
            session_id=lease.session_id,
            bind_id=lease.bind_id,
            opened_at=lease.opened_at,
            wished=_rules(
                None if users is None else [(str(u), str(h)) for u, h in users],
                wishes.get("allowed_cidrs"),
            ),
            host_header=wishes.get("host_header"),
            lease_until=until,
        )

    def _restored_container(self, kept: Mapping[str, object] | None) -> ContainerPort | None:
        if kept is None:
            return None
        mode = ContainerMode(str(kept["mode"]))
        # Whether and where it listens is for the settings of this run to say.
        return self.container_ports.place(mode, int(str(kept["port"])), str(kept["host"]))

    def check_admission(self, principal: Principal) -> None:
        """Check that one more session may exist.

        Raises:
            QuotaExceeded: the server or the token is at its limit.
        """
        if len(self._sessions) >= self._settings.max_sessions:
            raise QuotaExceeded("tunnel session limit reached")
        limit = principal.effective.limits.max_agents
        if limit is not None:
            count = sum(
                1 for s in self._sessions.values() if s.principal.token_id == principal.token_id
            )
            if count >= limit:
                raise QuotaExceeded(f"token '{principal.label}' may have {limit} agents at a time")

    def open_session(self, session: Session) -> None:
        """Register a new session and remember it durably."""
        self._sessions[session.id] = session
        self._remember(session)
        logger.info(
            "session opened",
            extra={"session": session.id, "peer": session.peer, "protocol": session.protocol},
        )
        self._publish_session("session.opened", session)
        self.observer.session_opened(is_resumed=False)

    def find_resumable(self, session_id: str, principal: Principal) -> bool:
        """Whether this caller may resume that session, live or parked."""
        live = self._sessions.get(session_id)
        if live is not None:
            return live.principal.token_id == principal.token_id
        stored = self._resumable.get(session_id)
        return stored is not None and stored.token_id == principal.token_id

    def resume_session(self, session: Session) -> list[Tunnel]:
        """Let `session` take the place of the session with its id; return the tunnels it has again.

        The caller has checked `find_resumable`. An old session that still looks alive ends first.
        """
        old = self._sessions.get(session.id)
        if old is not None:
            self._detach(old, may_hold=True, until=None)
            old.upstream.end(Code.NONE, "resumed on another connection")
            self.observer.session_ended(SessionEnd.REPLACED)
        self._sessions[session.id] = session
        self._resumable.pop(session.id, None)
        self._remember(session)
        tunnels = [t for t in self._tunnels.values() if t.session_id == session.id]
        until = self._clock.monotonic() + self._settings.lease_seconds
        for tunnel in tunnels:
            if tunnel.lease_until is not None:
                # It is told that it has them: they must not end before `attach`.
                tunnel.lease_until = until
        logger.info(
            "session resumed",
            extra={"session": session.id, "peer": session.peer, "tunnels": len(tunnels)},
        )
        self._publish_session("session.resumed", session)
        self.observer.session_opened(is_resumed=True)
        return tunnels

    def attach(self, session: Session, tunnels: Iterable[Tunnel]) -> None:
        """Make tunnels of a resumed session live; call it when the agent is ready for streams."""
        for tunnel in tunnels:
            if tunnel.session is None and self._tunnels.get(tunnel.id) is tunnel:
                self._attach(tunnel, session, tunnel.bind_id)
                self._save(tunnel)
                self.observer.tunnel_claimed(tunnel.protocol, ClaimResult.RESUMED)
                self.welcome(session, tunnel)

    def lose_session(
        self, session: Session, reason: str, *, is_clean: bool, cause: SessionEnd | None = None
    ) -> None:
        """Park a session whose connection is gone.

        After a clean goodbye its names are kept as well, but visitors are not held and the session
        cannot be resumed. `cause` is for an end that is neither a goodbye nor a loss.
        """
        if self._sessions.get(session.id) is not session:
            return  # superseded or already ended
        del self._sessions[session.id]
        until = self._clock.monotonic() + self._settings.lease_seconds
        had_tunnels = bool(session.tunnels) or self._is_settling(session)
        self._detach(session, may_hold=not is_clean, until=until)
        if had_tunnels and not self._is_closing:
            wall_until = self._clock.now() + self._settings.lease_seconds
            self._journal.post(
                "park leases", lambda: self._store.park_leases(session.id, wall_until)
            )
        if had_tunnels and not is_clean:
            self._resumable[session.id] = StoredSession(
                id=session.id,
                token_id=session.principal.token_id,
                protocol=session.protocol,
                opened_at=session.connected_at,
            )
        else:
            self._journal.post("forget session", lambda: self._store.delete_session(session.id))
        self._schedule_sweep()
        extra = {"session": session.id, "reason": reason}
        if is_clean or not had_tunnels:
            logger.info("session closed", extra=extra)
            self._publish_session("session.closed", session, reason)
        else:
            logger.info("session parked", extra=extra)
            self._publish_session("session.parked", session, reason)
        self.observer.session_ended(cause or (SessionEnd.GOODBYE if is_clean else SessionEnd.LOST))

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
        if drain_seconds > 0 and session.upstream.open_streams:
            session.upstream.drain(reason, drain_seconds)
            work = self._end_drained(session, reason, drain_seconds, cause)
            self._tasks.start(work, "drain a session")
        else:
            self._end_session(session, reason, cause, grace_seconds)

    async def _end_drained(
        self, session: Session, reason: str, drain_seconds: float, cause: SessionEnd
    ) -> None:
        deadline = self._clock.monotonic() + drain_seconds
        # Streams end one by one on the hot path, which must not pay for a waiter that is so rare.
        while session.upstream.open_streams and self._clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self._end_session(session, reason, cause)

    def _end_session(
        self, session: Session, reason: str, cause: SessionEnd, grace_seconds: float = 0.0
    ) -> None:
        if self.release_session(session, reason, cause):
            session.upstream.end(Code.PROTOCOL_ERROR, reason, grace_seconds)

    def release_session(self, session: Session, reason: str, cause: SessionEnd) -> bool:
        """Forget a session and release its tunnels; False if it was not live any more.

        The caller ends its connections. A session that was resumed and not yet attached has tunnels
        that only their `session_id` leads to.
        """
        if self._sessions.get(session.id) is not session:
            return False
        del self._sessions[session.id]
        end = {SessionEnd.REVOKED: TunnelEnd.REVOKED, SessionEnd.GOODBYE: TunnelEnd.UNBOUND}
        of_tunnels = end.get(cause, TunnelEnd.DELETED)
        tunnels = list(session.tunnels.values())
        for tunnel in tunnels or [t for t in self._tunnels.values() if t.session_id == session.id]:
            self._release(tunnel, reason, of_tunnels)
        self.tombstones.add(session.id)
        self._journal.post("forget session", lambda: self._store.delete_session(session.id))
        logger.info("session closed", extra={"session": session.id, "reason": reason})
        self._publish_session("session.closed", session, reason)
        self.observer.session_ended(cause)
        return True

    def _is_settling(self, session: Session) -> bool:
        """Whether it was resumed and its tunnels have not been attached yet."""
        return any(t.session_id == session.id for t in self._tunnels.values())

    def release_parked(self, session_id: str, reason: str) -> bool:
        """Release everything of a session whose agent is away; False if there is none."""
        parked = self._resumable.pop(session_id, None)
        if parked is None:
            return False
        for tunnel in [t for t in self._tunnels.values() if t.session_id == session_id]:
            self._release(tunnel, reason, TunnelEnd.DELETED)
        self.tombstones.add(session_id)
        self._journal.post("forget session", lambda: self._store.delete_session(session_id))
        logger.info("session closed", extra={"session": session_id, "reason": reason})
        self.events.publish(
            "session.closed", parked.token_id, {"session_id": session_id, "reason": reason}
        )
        return True

    async def close_token(self, token_id: str, reason: str) -> None:
        """End everything of a token: sessions, leases, resumable sessions."""
        for session in [s for s in self._sessions.values() if s.principal.token_id == token_id]:
            self._end_session(session, reason, SessionEnd.REVOKED)
        for tunnel in [t for t in self._tunnels.values() if t.token_id == token_id]:
            self._release(tunnel, reason, TunnelEnd.REVOKED)
        for stored in [s for s in self._resumable.values() if s.token_id == token_id]:
            del self._resumable[stored.id]

    # Changes of tokens and policies

    async def renew_session(self, session: Session, principal: Principal) -> None:
        """Go by what its token may do now; what that leaves out is ended, and its agent told why."""
        session.principal = principal
        try:
            authorize_agent(principal, _host(session.peer))
        except Forbidden as error:
            await self.close_session(session, str(error), cause=SessionEnd.REVOKED)

    def renew_token(self, principal: Principal) -> None:
        """Go by what a token may do now, in all of its tunnels, live and leased.

        Call it after `renew_session` of its sessions. Of too many agents or tunnels the newest go.
        """
        limits = principal.effective.limits
        sessions = [
            s for s in self._sessions.values() if s.principal.token_id == principal.token_id
        ]
        sessions.sort(key=lambda session: session.connected_at)
        if limits.max_agents is not None:
            reason = f"token '{principal.label}' may have {limits.max_agents} agents at a time"
            for session in sessions[limits.max_agents :]:
                self._end_session(session, reason, SessionEnd.REVOKED)
        tunnels = [t for t in self._tunnels.values() if t.token_id == principal.token_id]
        for tunnel in tunnels:
            try:
                check_tunnel(principal, tunnel, self._settings.domains)
            except Forbidden as error:
                self._revoke(tunnel, str(error))
        live = [t for t in tunnels if t.id in self._tunnels and t.lease_until is None]
        live.sort(key=lambda tunnel: tunnel.opened_at)
        if limits.max_tunnels is not None:
            for tunnel in live[limits.max_tunnels :]:
                self._revoke(tunnel, _too_many_tunnels(principal, limits.max_tunnels))
        for tunnel in tunnels:
            if tunnel.id in self._tunnels:
                self._govern(tunnel, principal.effective)

    def _revoke(self, tunnel: Tunnel, reason: str) -> None:
        session = tunnel.session
        self._release(tunnel, reason, TunnelEnd.REVOKED)
        if session is not None:
            session.upstream.unbind(tunnel, reason)

    def _govern(self, tunnel: Tunnel, effective: Effective) -> None:
        """Let the rules and limits of the token hold for a tunnel."""
        rules = visitor_rules(tunnel.wished, effective)
        bounds = self._bounds_of(tunnel, effective)
        has_changed = rules != tunnel.rules or bounds is not None or tunnel.bounds is not None
        tunnel.rules = rules
        if bounds is None:
            self._leave_bounds(tunnel)
        else:
            bounds.tunnels.add(tunnel)
            tunnel.bounds = bounds
        if has_changed and tunnel.id in self._tunnels:
            self.on_rules_changed(tunnel)

    def _bounds_of(self, tunnel: Tunnel, effective: Effective) -> Bounds | None:
        token_id, now = tunnel.token_id, self._clock.monotonic()
        if token_id is None:
            return None
        bounds = self._bounds.get(token_id)
        if bounds is not None:
            bounds.change(effective.limits, now)
        elif Bounds.is_needed(effective.limits):
            bounds = self._bounds[token_id] = Bounds(effective.limits, now)
        return bounds

    def _leave_bounds(self, tunnel: Tunnel) -> None:
        bounds = tunnel.bounds
        if bounds is not None:
            bounds.tunnels.discard(tunnel)
            if not bounds.tunnels and tunnel.token_id is not None:
                self._bounds.pop(tunnel.token_id, None)

    # Tunnels

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
        try:
            return await self._claim(session, bind_id, claim)
        except ServerError as error:
            self.observer.tunnel_claimed(claim.protocol, _result_of(error))
            raise

    async def _claim(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        self._check_quota(session, claim)
        rules = _claimed_rules(claim)
        if claim.container is not None:
            tunnel = await self._claim_container(session, bind_id, claim, claim.container)
        elif claim.protocol is TunnelProtocol.HTTP:
            tunnel = await self._claim_hostname(session, bind_id, claim)
        else:
            tunnel = await self._claim_port(session, bind_id, claim)
        tunnel.wished = rules
        self._govern(tunnel, session.principal.effective)
        tunnel.host_header = claim.host_header
        await self._journal.write("save lease", self._lease_write(tunnel))
        if session.id not in self._sessions or tunnel.session is not session:
            raise NameTaken("the session ended meanwhile")
        return tunnel

    def welcome(self, session: Session, tunnel: Tunnel) -> None:
        """End the hold of a tunnel: its agent knows the address and takes streams."""
        if tunnel.session is session:
            self.on_agent_returned(tunnel)
            self.holds.end(tunnel, returned=True)

    def _check_quota(self, session: Session, claim: Claim) -> None:
        # A tunnel whose listener is being opened has no session yet, but it is not leased: it counts,
        # so that claims at the same time do not get past a limit together. One that would be taken
        # over does not: an agent that was restarted must get its name back from its dead twin.
        own = None if claim.is_wish else self._current(claim)
        live = [t for t in self._tunnels.values() if t.lease_until is None and t is not own]
        limit = self._settings.max_tunnels_per_session
        count = sum(1 for t in live if t.session_id == session.id)
        if count >= limit:
            raise QuotaExceeded(
                f"limit exceeded: session {session.id} already has {count} tunnels (max {limit})"
            )
        principal = session.principal
        most = principal.effective.limits.max_tunnels
        if most is not None:
            count = sum(1 for t in live if t.token_id == principal.token_id)
            if count >= most:
                raise QuotaExceeded(_too_many_tunnels(principal, most))

    def _current(self, claim: Claim) -> Tunnel | None:
        """Return the tunnel that has the claimed address now."""
        if claim.container is not None:
            return self.container_ports.holder(claim.container.port)
        if claim.port is not None:
            return self._by_port.get(claim.port)
        hostname = claim.hostname
        if claim.subdomain is not None:
            hostname = f"{claim.subdomain}.{self._settings.domains[0]}"
        return None if hostname is None else self._by_hostname.get(hostname.lower())

    async def _claim_hostname(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        principal = session.principal

        def is_free(hostname: str) -> bool:
            tunnel = self._by_hostname.get(hostname)
            return tunnel is None

        def is_ours_or_free(hostname: str) -> bool:
            tunnel = self._by_hostname.get(hostname)
            if tunnel is None:
                return True
            if tunnel.token_id != principal.token_id:
                return False
            # A wish never evicts a live agent; only asking by name does.
            return not claim.is_wish or tunnel.session is None

        def choose(hostname: str | None, subdomain: str | None) -> str:
            wanted = hostname is not None or subdomain is not None
            return choose_hostname(
                principal,
                hostname=hostname,
                subdomain=subdomain,
                domains=self._settings.domains,
                reserved=self._settings.reserved_names,
                is_free=is_ours_or_free if wanted else is_free,
                random_bits=self._random_bits,
            )

        try:
            hostname = choose(claim.hostname, claim.subdomain)
        except (NameTaken, InvalidRequest, Forbidden):
            if not claim.is_wish:
                raise
            hostname = choose(None, None)
        current = self._by_hostname.get(hostname)
        if current is not None:
            await self._make_way(current, session, f"'{hostname}' is already in use")
            current = self._by_hostname.get(hostname)
        if current is not None:
            return self._take_over(current, session, bind_id)
        tunnel = self._new_tunnel(session, bind_id, claim, hostname=hostname)
        self._add(tunnel)
        self._attach(tunnel, session, bind_id)
        self._log_opened(tunnel)
        return tunnel

    async def _claim_port(self, session: Session, bind_id: int, claim: Claim) -> Tunnel:
        principal = session.principal

        def is_free(port: int) -> bool:
            return port not in self._by_port

        def is_ours_or_free(port: int) -> bool:
            tunnel = self._by_port.get(port)
            if tunnel is None:
                return True
            if tunnel.token_id != principal.token_id:
                return False
            return not claim.is_wish or tunnel.session is None

        refused: set[int] = set()

        def choose(wanted: int | None) -> int:
            return choose_port(
                principal,
                wanted,
                ports=self._ports,
                is_free=is_ours_or_free
                if wanted is not None
                else (lambda port: is_free(port) and port not in refused),
            )

        wanted = claim.port
        while True:
            try:
                port = choose(wanted)
            except (PortTaken, InvalidRequest, Forbidden):
                if wanted is None or not claim.is_wish:
                    raise
                wanted = None
                continue
            current = self._by_port.get(port)
            if current is not None:
                await self._make_way(current, session, f"port {port} is already in use")
                current = self._by_port.get(port)
            if current is not None:
                return self._take_over(current, session, bind_id)
            tunnel = self._new_tunnel(session, bind_id, claim, port=port)
            self._add(tunnel)  # reserves the port while the listener opens
            try:
                await self._listeners.open(tunnel)
            except PortTaken:
                self._remove(tunnel)
                if wanted is not None and not claim.is_wish:
                    raise
                # Another program sits on it: not ours to give, look further.
                refused.add(port)
                wanted = None
                continue
            except BaseException:
                self._remove(tunnel)
                raise
            if session.id not in self._sessions:
                self._listeners.close(tunnel, reason="the session ended")
                self._remove(tunnel)
                raise PortTaken("the session ended meanwhile")
            self._attach(tunnel, session, bind_id)
            self._log_opened(tunnel)
            return tunnel

    async def _claim_container(
        self, session: Session, bind_id: int, claim: Claim, wanted: ContainerClaim
    ) -> Tunnel:
        principal, ports = session.principal, self.container_ports
        ports.check_mode(wanted.mode)
        refused: set[int] = set()
        while True:
            port = wanted.port or ports.draw(principal, wanted.mode, refused)
            ports.check(principal, wanted.mode, port)
            current = ports.holder(port)
            if current is not None:
                await self._contest(current, session, wanted)
                current = ports.holder(port)
            if current is not None:
                return self._take_over(current, session, bind_id)
            tunnel = self._new_tunnel(
                session,
                bind_id,
                claim,
                hostname=self._container_hostname(principal, wanted, port),
                container=ports.place(wanted.mode, port, wanted.loopback),
            )
            self._add(tunnel)  # reserves the port while the listener opens
            if tunnel.has_listener:
                try:
                    await self._listeners.open(tunnel)
                except PortTaken:
                    self._remove(tunnel)
                    if wanted.port:
                        raise
                    refused.add(port)
                    continue
                except BaseException:
                    self._remove(tunnel)
                    raise
            if session.id not in self._sessions:
                self._listeners.close(tunnel, reason="the session ended")
                self._remove(tunnel)
                raise PortTaken("the session ended meanwhile")
            self._attach(tunnel, session, bind_id)
            self._log_opened(tunnel)
            return tunnel

    async def _contest(self, tunnel: Tunnel, session: Session, wanted: ContainerClaim) -> None:
        """Free a container port for a claim that may have it.

        Raises:
            NameTaken: whoever has it keeps it.
        """
        text = f"port {wanted.port} is already bound"
        container = tunnel.container
        if container is None or container.mode is not wanted.mode:
            raise NameTaken(text)
        if wanted.contest is Contest.RETURN:
            await self._make_way(tunnel, session, text)
            return
        if wanted.contest is Contest.REFUSE or tunnel.token_id != session.principal.token_id:
            raise NameTaken(text)
        if tunnel.session is session:
            raise NameTaken(f"{text} by this client")
        self._evict(tunnel, "taken over by another session")

    def _container_hostname(
        self, principal: Principal, wanted: ContainerClaim, port: int
    ) -> str | None:
        """Return the public name of an EXPOSE: the label it would like, the pattern's, or none."""
        for label in self.container_ports.labels(wanted, port):
            try:
                return choose_hostname(
                    principal,
                    subdomain=label,
                    domains=self._settings.domains,
                    reserved=self._settings.reserved_names,
                    is_free=lambda hostname: hostname not in self._by_hostname,
                    random_bits=self._random_bits,
                )
            except (NameTaken, InvalidRequest, Forbidden):
                continue
        return None

    async def _make_way(self, tunnel: Tunnel, session: Session, text: str) -> None:
        """Free a tunnel of the same token from its live session, if the rules allow it.

        Raises:
            NameTaken: another token's, or its agent is alive elsewhere and was evicted lately.
        """
        if tunnel.token_id != session.principal.token_id:
            raise NameTaken(text)
        owner = tunnel.session
        if owner is None:
            return
        if owner is session:
            raise NameTaken(f"{text} by this agent")
        if _host(owner.peer) != _host(session.peer):
            alive = await owner.upstream.is_alive(PROBE_SECONDS)
            if tunnel.session is not owner:
                return
            if alive:
                now = self._clock.monotonic()
                evicted_at = self._evicted_at.get(tunnel.id)
                if evicted_at is not None and now - evicted_at < TAKEOVER_PAUSE_SECONDS:
                    raise NameTaken(f"{text} by another agent of this token")
                self._evicted_at[tunnel.id] = now
        self._evict(tunnel, "another agent of this token took the address over")

    def _evict(self, tunnel: Tunnel, reason: str) -> None:
        """Take a tunnel from its session, which is told; it waits for its new owner."""
        owner = tunnel.session
        if owner is None:
            return
        self._drop_from_session(tunnel)
        self.on_agent_left(tunnel)
        owner.upstream.unbind(tunnel, reason)

    def _take_over(self, tunnel: Tunnel, session: Session, bind_id: int) -> Tunnel:
        former = tunnel.session_id
        self._attach(tunnel, session, bind_id)
        if former in self._resumable and not any(
            t.session_id == former for t in self._tunnels.values()
        ):
            # Nothing is left that its agent could come back for.
            del self._resumable[former]
            self.tombstones.add(former)
            self._journal.post("forget session", lambda: self._store.delete_session(former))
        self.observer.tunnel_claimed(tunnel.protocol, ClaimResult.RESUMED)
        return tunnel

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
            public_url=self._public_url(hostname, port),
            token_id=session.principal.token_id,
            token_label=session.principal.label,
            session=None,
            session_id=session.id,
            bind_id=bind_id,
            opened_at=self._clock.now(),
            wished=_claimed_rules(claim),
        )
        # From the first moment on: a port listens before the claim is complete.
        self._govern(tunnel, session.principal.effective)
        return tunnel

    def _public_url(self, hostname: str | None, port: int | None) -> str:
        if hostname is not None:
            return self._settings.addresses.http_url(hostname)
        return "" if port is None else self._settings.addresses.tcp_url(port)

    def unbind(self, session: Session, bind_id: int, reason: str) -> bool:
        """Release one tunnel because its agent asked for it; False if it is not the session's."""
        tunnel = session.tunnels.get(bind_id)
        if tunnel is None:
            return False
        self._release(tunnel, reason, TunnelEnd.UNBOUND)
        return True

    async def close_tunnel(self, tunnel: Tunnel, reason: str) -> None:
        """Release a tunnel by order of its owner: the agent is told, visitors are cut."""
        session = tunnel.session
        self._release(tunnel, reason, TunnelEnd.DELETED)
        if session is not None:
            session.upstream.unbind(tunnel, reason)

    # Shutdown

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell every agent to go elsewhere; nothing is ended yet."""
        self._is_closing = True
        for session in list(self._sessions.values()):
            session.upstream.drain(reason, deadline_seconds)

    def close(self, reason: str) -> None:
        """End every session; names stay leased in the store for the next start."""
        self._is_closing = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for tunnel in list(self._tunnels.values()):
            self.holds.end(tunnel, returned=False)
        for session in list(self._sessions.values()):
            session.upstream.end(Code.NONE, reason)
            self.observer.session_ended(SessionEnd.DRAINED)
        self._sessions.clear()
        for tunnel in self._tunnels.values():
            if tunnel.has_listener:
                self._listeners.close(tunnel, reason=reason)

    # Inner steps

    def _add(self, tunnel: Tunnel) -> None:
        self._tunnels[tunnel.id] = tunnel
        if tunnel.hostname is not None:
            self._by_hostname[tunnel.hostname] = tunnel
            self._routes.clear()
        if tunnel.port is not None:
            self._by_port[tunnel.port] = tunnel
        self.container_ports.add(tunnel)

    def _remove(self, tunnel: Tunnel) -> None:
        self._tunnels.pop(tunnel.id, None)
        if tunnel.hostname is not None and self._by_hostname.get(tunnel.hostname) is tunnel:
            del self._by_hostname[tunnel.hostname]
            self._routes.clear()
        if tunnel.port is not None and self._by_port.get(tunnel.port) is tunnel:
            del self._by_port[tunnel.port]
            self._ports.touch(tunnel.port)
        self.container_ports.remove(tunnel)
        self._evicted_at.pop(tunnel.id, None)
        self._leave_bounds(tunnel)

    def _attach(self, tunnel: Tunnel, session: Session, bind_id: int) -> None:
        if tunnel.lease_until is not None:
            self.observer.lease_ended(LeaseEnd.RESUMED)
        tunnel.session = session
        tunnel.session_id = session.id
        tunnel.bind_id = bind_id
        tunnel.lease_until = None
        tunnel.may_hold = True
        tunnel.client_addr = session.peer
        session.tunnels[bind_id] = tunnel

    def _drop_from_session(self, tunnel: Tunnel) -> None:
        session = tunnel.session
        if session is not None:
            session.tunnels.pop(tunnel.bind_id, None)
        tunnel.session = None

    def _detach(self, session: Session, *, may_hold: bool, until: float | None) -> None:
        for tunnel in session.tunnels.values():
            tunnel.session = None
            tunnel.may_hold = may_hold
            tunnel.lease_until = until
            self.on_agent_left(tunnel)
            if not may_hold:
                self.holds.end(tunnel, returned=False)
        session.tunnels.clear()

    def _release(self, tunnel: Tunnel, reason: str, cause: TunnelEnd) -> None:
        if self._tunnels.get(tunnel.id) is not tunnel:
            return
        if tunnel.lease_until is not None:
            is_over = cause is TunnelEnd.LEASE_OVER
            self.observer.lease_ended(LeaseEnd.EXPIRED if is_over else LeaseEnd.RELEASED)
        self._drop_from_session(tunnel)
        self._remove(tunnel)
        self.on_agent_left(tunnel)
        if tunnel.has_listener:
            self._listeners.close(tunnel, reason=reason)
        self.holds.end(tunnel, returned=False)
        tunnel_id, at = str(tunnel.id), self._clock.now()
        self._journal.post("delete lease", lambda: self._store.delete_leases([tunnel_id]))
        self._journal.post("close history", lambda: self._store.close_log_entries([tunnel_id], at))
        self.on_tunnel_closed(tunnel)
        logger.info("tunnel closed", extra={"tunnel": tunnel_id, "reason": reason})
        self.events.publish(
            "tunnel.closed",
            tunnel.token_id,
            {"tunnel_id": tunnel_id, "label": tunnel.label, "reason": reason},
        )
        self.observer.tunnel_ended(tunnel.protocol, cause, max(0.0, at - tunnel.opened_at))

    def _log_opened(self, tunnel: Tunnel) -> None:
        entry = TunnelLogEntry(
            id=str(uuid4()),
            tunnel_id=str(tunnel.id),
            protocol=tunnel.protocol.value,
            label=tunnel.label,
            session_id=tunnel.session_id,
            token_id=tunnel.token_id,
            token_label=tunnel.token_label,
            registered_at=tunnel.opened_at,
        )
        self._journal.post("add history", lambda: self._store.add_log_entry(entry))
        logger.info(
            "tunnel opened",
            extra={
                "tunnel": entry.tunnel_id,
                "session": tunnel.session_id,
                "url": tunnel.public_url,
            },
        )
        self.events.publish(
            "tunnel.opened",
            tunnel.token_id,
            {
                "tunnel_id": entry.tunnel_id,
                "protocol": entry.protocol,
                "label": tunnel.label,
                "public_url": tunnel.public_url,
                "session_id": tunnel.session_id,
            },
        )
        self.observer.tunnel_claimed(tunnel.protocol, ClaimResult.OPENED)

    def _remember(self, session: Session) -> None:
        stored = StoredSession(
            id=session.id,
            token_id=session.principal.token_id,
            protocol=session.protocol,
            opened_at=session.connected_at,
        )
        self._journal.post("save session", lambda: self._store.save_session(stored))

    def _save(self, tunnel: Tunnel) -> None:
        self._journal.post("save lease", self._lease_write(tunnel))

    def _lease_write(self, tunnel: Tunnel) -> Write:
        rules = tunnel.wished
        users = rules.basic_auth
        cidrs = rules.allowed_cidrs
        wishes: dict[str, object] = {
            "basic_auth": None if users is None else [[u.user, u.password_hash] for u in users],
            "allowed_cidrs": None if cidrs is None else [str(c) for c in cidrs],
            "host_header": tunnel.host_header,
        }
        if tunnel.container is not None:
            wishes["container"] = {
                "mode": tunnel.container.mode.value,
                "port": tunnel.container.port,
                "host": tunnel.container.host,
            }
        lease = Lease(
            tunnel_id=str(tunnel.id),
            protocol=tunnel.protocol,
            address=tunnel.address,
            token_id=tunnel.token_id,
            session_id=tunnel.session_id,
            bind_id=tunnel.bind_id,
            settings=json.dumps(wishes),
            opened_at=tunnel.opened_at,
            until=None,
        )
        return lambda: self._store.save_lease(lease)

    def _publish_session(self, kind: str, session: Session, reason: str | None = None) -> None:
        fields: dict[str, object] = {
            "session_id": session.id,
            "protocol": session.protocol,
            "peer": session.peer,
        }
        if reason is not None:
            fields["reason"] = reason
        self.events.publish(kind, session.principal.token_id, fields)

    def _schedule_sweep(self) -> None:
        """Wake when the next lease ends."""
        if self._is_closing:
            return
        ends = [t.lease_until for t in self._tunnels.values() if t.lease_until is not None]
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if ends:
            delay = max(0.0, min(ends) - self._clock.monotonic()) + 0.01
            self._sweep = asyncio.get_running_loop().call_later(delay, self._end_leases)

    def _end_leases(self) -> None:
        self._sweep = None
        now = self._clock.monotonic()
        over = [
            t for t in self._tunnels.values() if t.lease_until is not None and t.lease_until <= now
        ]
        for tunnel in over:
            self._release(tunnel, "the lease is over", TunnelEnd.LEASE_OVER)
        alive = {t.session_id for t in self._tunnels.values()}
        for session_id in [s for s in self._resumable if s not in alive]:
            del self._resumable[session_id]
            self.tombstones.add(session_id)
            self._journal.post("forget session", partial(self._store.delete_session, session_id))
        self._schedule_sweep()


def _rules(users: list[tuple[str, str]] | None, cidrs: Iterable[str] | None) -> VisitorRules:
    if users is None and cidrs is None:
        return OPEN
    return parse_rules(
        basic_auth=None if users is None else [{"user": u, "hash": h} for u, h in users],
        allowed_cidrs=None if cidrs is None else list(cidrs),
    )


def _claimed_rules(claim: Claim) -> VisitorRules:
    users = claim.basic_auth
    return _rules(None if users is None else list(users), claim.allowed_cidrs)


def _too_many_tunnels(principal: Principal, most: int) -> str:
    return f"token '{principal.label}' may have {most} tunnels at a time"


def _result_of(error: ServerError) -> ClaimResult:
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


def _host(peer: str) -> str:
    return peer.rpartition(":")[0]
