"""Bounds: what all tunnels of one token may use together, as the edge asks for it.

Made by the registry for tokens that have such limits; tunnels of others have none, so that their
requests cost one comparison. One object per token, shared by its tunnels and changed in place:
a new limit holds for the next request, and for streams that are already open.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from moleport_server.access.rate_limits import TokenBucket
from moleport_server.domain.token import Limits

BURST_SECONDS: Final = 0.25
"""So much of a second's bandwidth may pass at once; less would pause after each small answer."""
LEAST_BURST_BYTES: Final = 16 * 1024


class Loaded(Protocol):
    """A tunnel, as far as connections are counted."""

    active: int
    """Requests and connections in flight."""


class Bandwidth:
    """Bytes per second, in debt: what has arrived is counted, and paid for by waiting."""

    __slots__ = ("_bytes", "_updated_at", "rate")

    def __init__(self, rate: int | None, now: float) -> None:
        self.rate = rate
        """Bytes per second; None is unlimited, 0 lets nothing pass but what is on its way."""
        self._bytes = self._burst
        self._updated_at = now

    @property
    def _burst(self) -> float:
        return max(float(LEAST_BURST_BYTES), (self.rate or 0) * BURST_SECONDS)

    def spend(self, size: int, now: float) -> float:
        """Count bytes and return how many seconds nothing more should come."""
        rate = self.rate
        if rate is None:
            return 0.0
        elapsed = max(0.0, now - self._updated_at)
        self._updated_at = now
        self._bytes = min(self._burst, self._bytes + elapsed * rate) - size
        if self._bytes >= 0:
            return 0.0
        return -self._bytes / rate if rate else float("inf")


class Bounds:
    """The limits of one token on what passes through its tunnels; -1 stands for unlimited."""

    __slots__ = (
        "_limits",
        "_requests",
        "bandwidth",
        "body_bytes",
        "connections",
        "connections_per_tunnel",
        "idle_seconds",
        "tunnels",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self.tunnels: set[Loaded] = set()
        """Those of the token, live and leased; kept by the registry."""
        self.bandwidth = Bandwidth(limits.bandwidth, now)
        self._limits = Limits()
        self._requests: TokenBucket | None = None
        self.change(limits, now)

    @staticmethod
    def is_needed(limits: Limits) -> bool:
        """Whether any of the limits is about what passes through tunnels."""
        return any(
            limit is not None
            for limit in (
                limits.max_connections,
                limits.max_connections_per_tunnel,
                limits.requests_per_second,
                limits.request_body_bytes,
                limits.bandwidth,
                limits.idle_seconds,
            )
        )

    def change(self, limits: Limits, now: float) -> None:
        """Go by other limits from here on; what has been used up stays so where a limit stays."""
        before, self._limits = self._limits, limits
        self.connections = _number(limits.max_connections)
        self.connections_per_tunnel = _number(limits.max_connections_per_tunnel)
        self.body_bytes = _number(limits.request_body_bytes)
        self.idle_seconds = -1.0 if limits.idle_seconds is None else limits.idle_seconds
        self.bandwidth.rate = limits.bandwidth
        rate, burst = limits.requests_per_second, limits.burst
        if rate is None:
            self._requests = None
        elif (rate, burst) != (before.requests_per_second, before.burst):
            # A bucket needs a rate: next to nothing stands for 0.
            rate = max(rate, 1e-9)
            self._requests = TokenBucket(rate, max(1.0, rate if burst is None else burst), now)

    def take_request(self, now: float) -> float:
        """Count a request and return 0.0, or return in how many seconds it may come again."""
        return 0.0 if self._requests is None else self._requests.take(now)

    def is_full(self, active: int) -> bool:
        """Whether a tunnel with so many requests and connections in flight may have no other."""
        if 0 <= self.connections_per_tunnel <= active:
            return True
        return 0 <= self.connections <= _load(self.tunnels)


def _number(limit: int | None) -> int:
    return -1 if limit is None else limit


def _load(tunnels: Iterable[Loaded]) -> int:
    return sum(tunnel.active for tunnel in tunnels)
