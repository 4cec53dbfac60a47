"""The steps in the life of a tunnel, each of which leaves everything consistent.

Opened for a session -> detached when that is lost, and leased -> attached to another one of the same
token, or released for good. Whoever calls these steps has decided that they are due: sessions, claims,
leases and renewals.
"""

from __future__ import annotations

from moleport_server.clock import Clock
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.durable import DurableState
from moleport_server.registry.governance import Governance
from moleport_server.registry.holds import Holds
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.notices import Notices
from moleport_server.registry.observer import ClaimResult, LeaseEnd, TunnelEnd
from moleport_server.registry.ports import PortListeners


class Tunnels:
    """Changes tunnels; the only one that removes bindings, attaches and detaches."""

    def __init__(
        self,
        bindings: Bindings,
        governance: Governance,
        *,
        durable: DurableState,
        notices: Notices,
        holds: Holds,
        listeners: PortListeners,
        clock: Clock,
    ) -> None:
        self._bindings = bindings
        self._governance = governance
        self._durable = durable
        self._notices = notices
        self._holds = holds
        self._listeners = listeners
        self._clock = clock

    async def reserve(self, tunnel: Tunnel) -> None:
        """Take the addresses of a tunnel that is being made, and listen where it has a port.

        Raises:
            PortTaken: another program uses the port; the addresses are free again.
        """
        self._bindings.add(tunnel)  # nobody else is given them while the listener opens
        if tunnel.has_listener:
            tunnel.is_opening = True
            try:
                await self._listeners.open(tunnel)
            except BaseException:
                self._remove(tunnel)
                raise
            finally:
                tunnel.is_opening = False

    def abandon(self, tunnel: Tunnel, reason: str) -> None:
        """Give up a tunnel that was reserved and never opened."""
        self._listeners.close(tunnel, reason=reason)
        self._remove(tunnel)

    def open(self, tunnel: Tunnel, session: Session, bind_id: int) -> None:
        """Make a reserved tunnel the session's, and begin its history."""
        self._attach(tunnel, session, bind_id)
        self._durable.add_history(tunnel)
        self._notices.tunnel_opened(tunnel)

    def take_over(self, tunnel: Tunnel, session: Session, bind_id: int) -> None:
        """Make a tunnel that has no session the session's; id, history and counters stay."""
        self._attach(tunnel, session, bind_id)
        self._notices.observer.tunnel_claimed(tunnel.protocol, ClaimResult.RESUMED)

    def welcome(self, session: Session, tunnel: Tunnel) -> None:
        """End the hold of a tunnel: its agent knows the address and takes streams."""
        if tunnel.session is session:
            self._notices.on_agent_returned(tunnel)
            self._holds.end(tunnel, returned=True)

    def evict(self, tunnel: Tunnel, reason: str) -> None:
        """Take a tunnel from its session, which is told; it waits for its new owner."""
        owner = tunnel.owner
        if owner is None:
            return
        self._drop_from_session(tunnel)
        self._notices.on_agent_left(tunnel)
        owner.upstream.unbind(tunnel, reason)

    def promise(self, tunnel: Tunnel, session: Session, until: float) -> None:
        """Keep a tunnel for a session that was resumed: its agent knows, and will take streams soon.

        Args:
            tunnel: has no session.
            session: to be attached.
            until: when a lease ends at the earliest; it was promised.
        """
        tunnel.promised_to = session
        if tunnel.lease_until is not None:
            tunnel.lease_until = until

    def detach(self, session: Session, *, may_hold: bool, until: float | None) -> None:
        """Take all tunnels from a session whose connection is gone.

        Args:
            session: has none afterwards.
            may_hold: whether visitors wait for its agent.
            until: when the leases end, in monotonic seconds; None: it is back already.
        """
        for tunnel in session.tunnels.values():
            tunnel.session = None
            self.leave_waiting(tunnel, may_hold=may_hold, until=until)
            self._notices.on_agent_left(tunnel)
        session.tunnels.clear()

    def leave_waiting(self, tunnel: Tunnel, *, may_hold: bool, until: float | None) -> None:
        """Say how long a tunnel without a session waits for one, and whether its visitors do."""
        tunnel.promised_to = None
        tunnel.may_hold = may_hold
        tunnel.lease_until = until
        if not may_hold:
            self._holds.end(tunnel, returned=False)

    def release(self, tunnel: Tunnel, reason: str, cause: TunnelEnd) -> None:
        """End a tunnel for good; the caller tells its agent; idempotent."""
        if tunnel not in self._bindings:
            return
        if tunnel.lease_until is not None:
            is_over = cause is TunnelEnd.LEASE_OVER
            self._notices.observer.lease_ended(LeaseEnd.EXPIRED if is_over else LeaseEnd.RELEASED)
        self._drop_from_session(tunnel)
        self._remove(tunnel)
        self._notices.on_agent_left(tunnel)
        if tunnel.has_listener:
            self._listeners.close(tunnel, reason=reason)
        self._holds.end(tunnel, returned=False)
        at = self._clock.now()
        self._durable.forget_tunnel(tunnel, at)
        self._notices.tunnel_closed(tunnel, reason, cause, at)

    def withdraw(self, tunnel: Tunnel, reason: str, cause: TunnelEnd) -> None:
        """End a tunnel for good against its agent's will, and tell it."""
        owner = tunnel.owner
        self.release(tunnel, reason, cause)
        if owner is not None:
            owner.upstream.unbind(tunnel, reason)

    def give_up_holds(self) -> None:
        """Send every held visitor away: the server ends."""
        for tunnel in list(self._bindings.tunnels.values()):
            self._holds.end(tunnel, returned=False)

    def close_listeners(self, reason: str) -> None:
        """Close every port; the tunnels stay leased in the store."""
        for tunnel in self._bindings.tunnels.values():
            if tunnel.has_listener:
                self._listeners.close(tunnel, reason=reason)

    def _attach(self, tunnel: Tunnel, session: Session, bind_id: int) -> None:
        if tunnel.lease_until is not None:
            self._notices.observer.lease_ended(LeaseEnd.RESUMED)
        tunnel.session = session
        tunnel.promised_to = None
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
        tunnel.promised_to = None

    def _remove(self, tunnel: Tunnel) -> None:
        self._bindings.remove(tunnel)
        self._governance.leave(tunnel)
