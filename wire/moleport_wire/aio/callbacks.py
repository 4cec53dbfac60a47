"""The protocol object of a socket whose callbacks live elsewhere.

A transport takes only subclasses of `asyncio.BufferedProtocol`, and a class that was compiled ahead of
time (`hatch_build.py`) cannot inherit from an interpreted one. So the transport gets a `SocketCallbacks`,
whose attributes are the bound methods of the object that does the work: what it calls is that object's
method itself, with nothing in between.
"""

import asyncio
from typing import Protocol


class SocketOwner(Protocol):
    """What a transport calls; the same as `asyncio.BufferedProtocol`, which has the contracts."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer for one read."""
        ...

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read."""

    def eof_received(self) -> bool:
        """Note the end of the peer's direction; True keeps ours open."""
        ...

    def pause_writing(self) -> None:
        """Stop writing."""

    def resume_writing(self) -> None:
        """Go on."""

    def peer_left(self, *, is_broken: bool) -> None:
        """Know what reading cannot tell while it is paused; may come more than once.

        Args:
            is_broken: the connection was reset; otherwise its peer only ended its own direction.
        """


class SocketCallbacks(asyncio.BufferedProtocol):
    """Gives one owner's methods to a transport."""

    __slots__ = (
        "buffer_updated",
        "connection_lost",
        "connection_made",
        "eof_received",
        "get_buffer",
        "owner",
        "pause_writing",
        "resume_writing",
    )

    def __init__(self, owner: SocketOwner) -> None:
        self.owner = owner
        # Assigned over methods on purpose: the slots hide those of the base class.
        self.connection_made = owner.connection_made  # type: ignore[method-assign]
        self.connection_lost = owner.connection_lost  # type: ignore[method-assign]
        self.get_buffer = owner.get_buffer  # type: ignore[method-assign]
        self.buffer_updated = owner.buffer_updated  # type: ignore[method-assign]
        self.eof_received = owner.eof_received  # type: ignore[method-assign]
        self.pause_writing = owner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = owner.resume_writing  # type: ignore[method-assign]
