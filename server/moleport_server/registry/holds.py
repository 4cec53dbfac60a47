"""Holds: visitors that wait for an absent agent instead of failing.

A waiter joins the hold of a tunnel and is told once: the agent came back, or nobody will. Bounded per
tunnel and in all; whoever does not fit gets the refusal at once.
"""

from typing import Protocol

from moleport_server.registry.live import Tunnel


class Waiter(Protocol):
    """A visitor that is held; must be hashable by identity."""

    def hold_ended(self, *, returned: bool) -> None:
        """Go on: the agent is back, or (False) give up."""


class Holds:
    """Who waits for which tunnel.

    Args:
        per_tunnel: most waiters of one tunnel.
        total: most waiters in all.
    """

    def __init__(self, *, per_tunnel: int, total: int) -> None:
        self._per_tunnel = per_tunnel
        self._total = total
        self._waiting: dict[Tunnel, dict[Waiter, None]] = {}
        self.count = 0
        """Held visitors now."""

    def join(self, tunnel: Tunnel, waiter: Waiter) -> bool:
        """Hold a visitor; False when a bound is reached."""
        if self.count >= self._total:
            return False
        if len(self._waiting.get(tunnel, ())) >= self._per_tunnel:
            return False
        waiters = self._waiting.setdefault(tunnel, {})
        if waiter not in waiters:
            waiters[waiter] = None
            self.count += 1
        return True

    def leave(self, tunnel: Tunnel, waiter: Waiter) -> None:
        """Forget a visitor that went away; idempotent."""
        waiters = self._waiting.get(tunnel)
        if waiters is not None and waiter in waiters:
            del waiters[waiter]
            self.count -= 1
            if not waiters:
                del self._waiting[tunnel]

    def end(self, tunnel: Tunnel, *, returned: bool) -> None:
        """Tell every waiter of a tunnel, in the order they came."""
        waiters = self._waiting.pop(tunnel, {})
        self.count -= len(waiters)
        for waiter in waiters:
            waiter.hold_ended(returned=returned)
