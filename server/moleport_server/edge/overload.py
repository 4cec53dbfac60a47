"""What a visitor gets for whom there is no room: 503 in words instead of a broken connection.

The connection is not one of the edge's: it has an answer before its request. It is read for a moment
longer, since a close with unread bytes would destroy the answer on its way (RFC 9112 section 9.6).
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from moleport_server.edge.pages import render
from moleport_server.edge.refusals import Refusal
from moleport_wire.aio.sockets import half_close, settle_reading

LINGER_SECONDS: Final = 1.0
MOST: Final = 64
"""Such connections at a time; the rest is dropped, because each costs what there is too little of."""


class Overload:
    """The connections that are being refused."""

    def __init__(self) -> None:
        self.connections: set[BusyConnection] = set()
        self._answer = render(
            Refusal.BUSY,
            accept=None,
            request_id="",
            detail="",
            retry_after=None,
            is_head=False,
            close=True,
        )

    @property
    def answer(self) -> bytes | None:
        """What the next one is told; None: nothing."""
        return self._answer if len(self.connections) < MOST else None

    def close(self) -> None:
        """Drop them."""
        for connection in list(self.connections):
            connection.abort()


class BusyConnection(asyncio.Protocol):
    """One visitor that is told to come again."""

    def __init__(self, overload: Overload) -> None:
        self._overload = overload
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer, and end our side."""
        self._transport = cast("asyncio.Transport", transport)
        # One that is dropped at once would make the next with its descriptor deaf: an agent, the API.
        settle_reading(self._transport)
        answer = self._overload.answer
        if answer is None:
            self._transport.abort()
            return
        self._overload.connections.add(self)
        self._transport.write(answer)
        half_close(self._transport)
        self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)

    def eof_received(self) -> bool:
        """End: the visitor has nothing more to say."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._overload.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Drop it."""
        self._transport.abort()
