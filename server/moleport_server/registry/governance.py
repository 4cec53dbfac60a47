"""Governance: lets the rules and limits of a token hold for each of its tunnels.

The rules of a tunnel are those that its agent asked for and what the policies of its token demand. The
limits of a token are one object that its tunnels share, made only for tokens that have limits.
"""

from moleport_server.access.bounds import Bounds
from moleport_server.clock import Clock
from moleport_server.domain.policy import visitor_rules
from moleport_server.domain.token import Effective
from moleport_server.registry.bindings import Bindings
from moleport_server.registry.live import Tunnel
from moleport_server.registry.notices import Notices


class Governance:
    """What holds for which tunnel."""

    def __init__(self, bindings: Bindings, notices: Notices, clock: Clock) -> None:
        self._bindings = bindings
        self._notices = notices
        self._clock = clock
        self._bounds: dict[str, Bounds] = {}
        """By token id; of those that have limits and tunnels."""

    def govern(self, tunnel: Tunnel, effective: Effective) -> None:
        """Let the rules and limits of its token hold for a tunnel; who serves it is told of a change."""
        rules = visitor_rules(tunnel.wished, effective)
        bounds = self._bounds_of(tunnel, effective)
        has_changed = rules != tunnel.rules or bounds is not None or tunnel.bounds is not None
        tunnel.rules = rules
        if bounds is None:
            self.leave(tunnel)
        else:
            bounds.tunnels.add(tunnel)
            tunnel.bounds = bounds
        if has_changed and tunnel in self._bindings:
            self._notices.on_rules_changed(tunnel)

    def leave(self, tunnel: Tunnel) -> None:
        """Count a tunnel no more among those of its token; idempotent."""
        bounds = tunnel.bounds
        if bounds is not None:
            bounds.tunnels.discard(tunnel)
            if not bounds.tunnels and tunnel.token_id is not None:
                self._bounds.pop(tunnel.token_id, None)

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
