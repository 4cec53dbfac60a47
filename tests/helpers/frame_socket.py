"""Frames over a WebSocket of the `websockets` library, for either end.

Not the product's transport, so that both ends of the wire cannot share a misunderstanding about
WebSocket.
"""

import asyncio
from collections import deque

from websockets.asyncio.connection import Connection
from websockets.exceptions import ConnectionClosed

from helpers.waiting import DEADLINE_SECONDS
from moleport_wire.hoody import frames, messages


class FrameSocket:
    """One connection, seen as frames."""

    def __init__(self) -> None:
        self._socket: Connection
        self._received: deque[tuple[int, int, bytes]] = deque()
        self.answers_pings = True

    def break_off(self) -> None:
        """Vanish without a word."""
        self._socket.transport.abort()

    def stop_reading(self) -> None:
        """Take nothing from the connection any more; WebSocket pings stay unanswered too."""
        self._socket.transport.pause_reading()

    async def close(self, code: int) -> None:
        """Send a close frame and wait for the end."""
        await self._socket.close(code)

    async def send(self, frame_type: int, payload: bytes = b"", stream_id: int = 0) -> None:
        await self._socket.send(frames.serialize(frame_type, stream_id, payload))

    async def send_message(self, message: bytes | str) -> None:
        await self._socket.send(message)

    async def frame(self, *types: int) -> tuple[int, int, bytes]:
        """Return the next frame of these types; others are dropped, PINGs answered.

        Raises:
            ConnectionClosed: the peer ended the connection before it came.
        """
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                while self._received:
                    kind, stream_id, payload = self._received.popleft()
                    if kind == frames.PING and self.answers_pings:
                        await self.send(frames.PONG, payload)
                    if kind in types:
                        return kind, stream_id, payload
                message = await self._socket.recv(decode=False)
                self._received.extend((k, s, bytes(p)) for k, s, p in frames.parse(message))

    async def payload(self, frame_type: int) -> bytes:
        return (await self.frame(frame_type))[2]

    async def goodbye(self) -> tuple[messages.GoAway, int | None]:
        """Return the peer's GOAWAY and the close code that follows."""
        goaway = messages.GoAway.decode(await self.payload(frames.GOAWAY))
        return goaway, await self.closed()

    async def closed(self) -> int | None:
        """Wait for the end of the connection and return the peer's close code, if it sent one."""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    await self._socket.recv()
        except ConnectionClosed as end:
            return None if end.rcvd is None else end.rcvd.code
