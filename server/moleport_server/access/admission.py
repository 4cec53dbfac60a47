"""How many connections may exist before their owner has proved who it is.

A stranger costs a socket, a TLS handshake and a buffer, so strangers are counted, by address and
in all. An address has its own bound so that one stranger cannot use up the room of all others.
"""

from collections.abc import Callable
from typing import Final

from moleport_server.access.addresses import limit_key

PER_ADDRESS: Final = 32
IN_ALL: Final = 1024


class PreAuthGate:
    """Counts connections between accept and authentication.

    The caller pairs each `enter` that returned True with exactly one `leave` of the same address:
    when the connection has authenticated, or when it is gone.
    """

    def __init__(self, *, per_address: int = PER_ADDRESS, in_all: int = IN_ALL) -> None:
        self._per_address = per_address
        self._in_all = in_all
        self._counts: dict[str, int] = {}
        self._total = 0
        self.observe_refusal: Callable[[], None] = lambda: None
        """Called for each connection that found no place."""

    @property
    def waiting(self) -> int:
        """How many connections have not authenticated yet."""
        return self._total

    def enter(self, address: str) -> bool:
        """Count a new connection; False means that it must be closed (and not be left)."""
        key = limit_key(address)
        count = self._counts.get(key, 0)
        if self._total >= self._in_all or count >= self._per_address:
            self.observe_refusal()
            return False
        self._counts[key] = count + 1
        self._total += 1
        return True

    def leave(self, address: str) -> None:
        """Give the place of one connection back."""
        key = limit_key(address)
        count = self._counts.get(key, 0)
        if count == 0:
            raise ValueError(f"no connection of {address} has entered")
        self._total -= 1
        if count == 1:
            del self._counts[key]
        else:
            self._counts[key] = count - 1
