"""The last requests of every tunnel, in memory.

A ring per tunnel and one budget for all. The edge adds a capture per request, so `add` does a
constant amount of work and keeps no index: what people ask for is searched when they ask. Only at the
budget of all tunnels together it looks at every ring, and makes room for many captures then.
When memory is short the oldest bodies go first, then the oldest captures. The last few closed
tunnels keep theirs; older ones are answered by the capture store.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from typing import Final, NamedTuple
from uuid import UUID

from moleport_server.capture.record import Capture, CaptureIds
from moleport_server.registry.live import Tunnel

CAPTURE_OVERHEAD_BYTES: Final = 768
"""What a capture costs beside its heads and bodies (measured: 680)."""

SHRUNK_AT_ONCE: Final = 64
"""At the budget this part of it is freed: about a thousand small captures, in a millisecond or two."""

Sink = Callable[[Tunnel, Capture], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureLimits:
    """How much is remembered."""

    requests_per_tunnel: int = 500
    """What the seed API promises."""
    budget_bytes: int = 64 << 20
    """Of all tunnels together; part of the memory that an operator plans for the server."""
    tunnel_bytes: int = 4 << 20
    """Of one tunnel, so that one noisy tunnel cannot push out all the others."""
    closed_tunnels: int = 64
    """How many closed tunnels are still answered from memory."""


class Recorded(NamedTuple):
    """A capture with what decides who may see it."""

    tunnel_id: UUID
    token_id: str | None
    """The owner; None: the admin."""
    capture: Capture


class _Ring:
    __slots__ = ("captures", "size", "stripped", "token_id", "tunnel_id")

    def __init__(self, tunnel_id: UUID, token_id: str | None) -> None:
        self.tunnel_id = tunnel_id
        self.token_id = token_id
        self.captures: deque[Capture] = deque()
        self.stripped = 0
        """How many captures, from the oldest on, have given up their bodies."""
        self.size = 0


class CaptureLog:
    """Remembers what passed; single-threaded like the event loop it lives on."""

    def __init__(
        self, ids: CaptureIds, limits: CaptureLimits | None = None, *, sink: Sink | None = None
    ) -> None:
        """Start empty.

        Args:
            ids: the id spaces from which the edge draws.
            limits: how much to remember.
            sink: is given every capture too, `CaptureWriter.offer` for example; must not wait.
        """
        self.ids = ids
        self._limits = limits or CaptureLimits()
        self._per_tunnel = self._limits.requests_per_tunnel
        self._sink = sink
        self._rings: dict[UUID, _Ring] = {}
        # By the tunnel itself as well: hashing a UUID is a Python call, and `add` is hot.
        self._of_tunnel: dict[Tunnel, _Ring] = {}
        self._closed: OrderedDict[UUID, None] = OrderedDict()
        self._size = 0
        self.added = 0
        """Captures since the start, those included that were dropped meanwhile."""

    @property
    def size_bytes(self) -> int:
        """What is charged to the budget now."""
        return self._size

    def __len__(self) -> int:
        return sum(len(ring.captures) for ring in self._rings.values())

    def add(self, tunnel: Tunnel, capture: Capture) -> None:
        """Remember a finished request; its `sequence` must be higher than all before."""
        ring = self._of_tunnel.get(tunnel)
        if ring is None:
            ring = self._ring_of(tunnel)
        if self._sink is not None:
            self._sink(tunnel, capture)
        size = CAPTURE_OVERHEAD_BYTES + len(capture.request_head) + len(capture.response_head)
        if capture.response_body is not None:
            size += len(capture.response_body)
        if capture.request_body is not None:
            size += len(capture.request_body)
        capture.charged_bytes = size
        self.added += 1
        captures = ring.captures
        captures.append(capture)
        if len(captures) > self._per_tunnel:
            size -= captures.popleft().charged_bytes
            if ring.stripped:
                ring.stripped -= 1
        ring.size += size
        self._size += size
        if ring.size > self._limits.tunnel_bytes:
            self._shrink_ring(ring, self._limits.tunnel_bytes)
        if self._size > self._limits.budget_bytes:
            self._shrink_all()

    def _ring_of(self, tunnel: Tunnel) -> _Ring:
        ring = self._rings.get(tunnel.id)
        if ring is None:
            ring = self._rings[tunnel.id] = _Ring(tunnel.id, tunnel.token_id)
        self._of_tunnel[tunnel] = ring
        return ring

    def list(self, tunnel_id: UUID, limit: int) -> list[Recorded]:
        """Return the newest `limit` captures of a tunnel, newest first; none if it is unknown."""
        ring = self._rings.get(tunnel_id)
        if ring is None:
            return []
        newest = zip(range(limit), reversed(ring.captures), strict=False)
        return [Recorded(tunnel_id, ring.token_id, capture) for _, capture in newest]

    def get(self, request_id: str) -> Recorded | None:
        """Return one capture by its id, or None if it is not in memory (any more)."""
        sequence = self.ids.requests.parse(request_id)
        if sequence is None:
            return None
        # Asked for by people only: a search costs them nothing, an index would cost every request.
        for ring in self._rings.values():
            for capture in ring.captures:
                if capture.sequence == sequence:
                    return Recorded(ring.tunnel_id, ring.token_id, capture)
        return None

    def forget(self, tunnel_id: UUID) -> None:
        """Note that a tunnel is closed: its captures stay until enough others have closed.

        Idempotent; unknown ids are ignored.
        """
        if tunnel_id not in self._rings:
            return
        self._of_tunnel = {t: ring for t, ring in self._of_tunnel.items() if t.id != tunnel_id}
        self._closed[tunnel_id] = None
        self._closed.move_to_end(tunnel_id)
        if len(self._closed) > self._limits.closed_tunnels:
            oldest, _ = self._closed.popitem(last=False)
            ring = self._rings[oldest]
            while ring.captures:
                self._drop_oldest(ring)

    def _shrink_ring(self, ring: _Ring, limit: int) -> None:
        while ring.size > limit and ring.stripped < len(ring.captures):
            self._drop_oldest_body(ring)
        while ring.size > limit and ring.captures:
            self._drop_oldest(ring)

    def _shrink_all(self) -> None:
        """Drop the oldest bodies, then the oldest captures, whosesoever they are.

        A little more than needed, so that a thousand tunnels at the budget are not all looked at for
        every request.
        """
        goal = self._limits.budget_bytes - self._limits.budget_bytes // SHRUNK_AT_ONCE
        bodied = [
            (ring.captures[ring.stripped].sequence, ring)
            for ring in self._rings.values()
            if ring.stripped < len(ring.captures)
        ]
        heapify(bodied)
        while self._size > goal and bodied:
            ring = bodied[0][1]
            self._drop_oldest_body(ring)
            if ring.stripped < len(ring.captures):
                heapreplace(bodied, (ring.captures[ring.stripped].sequence, ring))
            else:
                heappop(bodied)
        full = [(ring.captures[0].sequence, ring) for ring in self._rings.values() if ring.captures]
        heapify(full)
        while self._size > goal and full:
            ring = full[0][1]
            self._drop_oldest(ring)
            if ring.captures:
                heapreplace(full, (ring.captures[0].sequence, ring))
            else:
                heappop(full)

    def _drop_oldest_body(self, ring: _Ring) -> None:
        capture = ring.captures[ring.stripped]
        ring.stripped += 1
        size = len(capture.request_body or b"") + len(capture.response_body or b"")
        capture.request_body = capture.response_body = None
        capture.charged_bytes -= size
        ring.size -= size
        self._size -= size

    def _drop_oldest(self, ring: _Ring) -> None:
        capture = ring.captures.popleft()
        if ring.stripped:
            ring.stripped -= 1
        ring.size -= capture.charged_bytes
        self._size -= capture.charged_bytes
        if not ring.captures:
            # A request that ends after its tunnel may have made a ring that nobody closes.
            self._rings.pop(ring.tunnel_id, None)
            self._closed.pop(ring.tunnel_id, None)
            self._of_tunnel = {t: r for t, r in self._of_tunnel.items() if r is not ring}
