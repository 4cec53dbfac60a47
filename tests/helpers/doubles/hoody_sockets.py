"""The sockets of one session of the hoody-tunnel double, and the messages that frames become."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from helpers.doubles.events import say
from helpers.doubles.hoody_frames import BadMessage, Batch, Frame, decode
from helpers.doubles.link import ConnectError, Link, Message, Target


@dataclass(frozen=True, slots=True)
class Door:
    """Where the kit is, and what is said to get in."""

    target: Target
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    hello_token: str | None = None
    """The old driver's credential."""


class Sockets:
    """All sockets of a session; the first one is the primary."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self.links: list[Link] = []
        self.bad_messages = 0
        self._batches: list[Batch] = []
        self._flush_is_due = False
        self._reading = asyncio.Event()
        self._reading.set()

    async def open(self, version: str) -> int:
        """Open one more socket and return its place.

        Raises:
            ConnectError: No WebSocket of that subprotocol came of it.
        """
        link = await Link.open(
            self._door.target,
            self._door.path,
            headers=self._door.headers,
            subprotocols=[version],
            compression=True,
        )
        if link.subprotocol != version:
            link.abort()
            raise ConnectError(f"the answer names the subprotocol {link.subprotocol}", 101)
        self.links.append(link)
        self._batches.append(Batch())
        return len(self.links) - 1

    async def read(self, index: int, receive: Callable[[Frame, int], None]) -> Link:
        """Hand over each frame of one socket until it ends; bad messages are thrown away."""
        link = self.links[index]
        while (message := await link.receive()) is not None:
            await self._reading.wait()
            if not isinstance(message, Message) or not message.is_binary:
                continue
            try:
                frames = decode(message.data)
            except BadMessage as bad:
                self.bad_messages += 1
                say("violation", text=f"a message was thrown away: {bad}")
                continue
            for frame in frames:
                receive(frame, index)
        return link

    def freeze(self) -> None:
        """Read nothing any more, on any socket."""
        self._reading.clear()

    # Sending

    def send(self, frame: Frame, index: int = 0) -> None:
        """Queue a frame for a socket; what one tick queues shares messages."""
        if (full := self._batches[index].add(frame)) is not None:
            self.links[index].send_nowait(full)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Send what is queued."""
        self._flush_is_due = False
        for link, batch in zip(self.links, self._batches, strict=True):
            if (message := batch.take()) is not None:
                link.send_nowait(message)

    def send_alone(self, frame: Frame, index: int = 0) -> None:
        """Send a frame as a message of its own, now."""
        self.flush()
        self.links[index].send_nowait(frame.encode())

    def send_raw(self, message: bytes, index: int = 0, *, text: bool = False) -> None:
        """Send a message that need not be one."""
        self.flush()
        self.links[index].send_nowait(message, text=text)

    # Ending

    def close(self) -> None:
        """Send a Close frame without a code on each socket."""
        self.flush()
        for link in self.links:
            link.close_nowait()

    def drop(self, index: int | None = None) -> None:
        """Lose one socket, or all, without a Close frame."""
        for link in self.links if index is None else [self.links[index]]:
            link.abort()
