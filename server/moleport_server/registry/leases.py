"""Leases: how long an address waits for its absent agent, and what ends with it."""

from __future__ import annotations

import asyncio

from moleport_server.clock import Clock
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.observer import TunnelEnd
from moleport_server.registry.parked import ParkedSessions
from moleport_server.registry.tunnels import Tunnels


class Leases:
    """One timer for the lease that ends next.

    Args:
        seconds: how long a lease is.
        bindings: the tunnels, some of them leased.
        parked: sessions that end with their last lease.
        tunnels: releases those whose lease is over.
        clock: where the ends are measured.
    """

    def __init__(
        self,
        seconds: float,
        *,
        bindings: Bindings,
        parked: ParkedSessions,
        tunnels: Tunnels,
        clock: Clock,
    ) -> None:
        self.seconds = seconds
        self.is_closing = False
        """The server is about to end: what is leased now waits in the store for the next start."""
        self._bindings = bindings
        self._parked = parked
        self._tunnels = tunnels
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    def end_of_new(self) -> float:
        """Return when a lease that begins now will end, in monotonic seconds."""
        return self._clock.monotonic() + self.seconds

    def wall_end_of_new(self) -> float:
        """Return when a lease that begins now will end, in Unix seconds."""
        return self._clock.now() + self.seconds

    def count(self) -> int:
        """Tunnels that wait for their agent."""
        return sum(1 for tunnel in self._bindings.tunnels.values() if tunnel.session is None)

    def schedule(self) -> None:
        """Wake when the next lease ends; call it when one began."""
        if self.is_closing:
            return
        tunnels = self._bindings.tunnels.values()
        ends = [t.lease_until for t in tunnels if t.lease_until is not None]
        self._cancel()
        if ends:
            delay = max(0.0, min(ends) - self._clock.monotonic()) + 0.01
            self._timer = asyncio.get_running_loop().call_later(delay, self.end_due)

    def end_due(self) -> None:
        """Release what nobody came back for, and the sessions that have nothing left."""
        self._timer = None
        now = self._clock.monotonic()
        tunnels = self._bindings.tunnels.values()
        over = [t for t in tunnels if t.lease_until is not None and t.lease_until <= now]
        for tunnel in over:
            self._tunnels.release(tunnel, "the lease is over", TunnelEnd.LEASE_OVER)
        alive = {t.session_id for t in self._bindings.tunnels.values()}
        for session_id in [s for s in self._parked.by_id if s not in alive]:
            self._parked.bury(session_id)
        self.schedule()

    def close(self) -> None:
        """Let every lease wait for the next start."""
        self.is_closing = True
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
