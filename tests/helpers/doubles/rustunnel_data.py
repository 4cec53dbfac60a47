"""The data channel of the rustunnel double: yamux inside a WebSocket, and the bridges to services.

A bridge begins when both halves of a connection are here: the stream with its id in the first sixteen
bytes, and the announcement on the control channel, in either order and without a time limit.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from helpers.doubles.crew import Crew
from helpers.doubles.events import say
from helpers.doubles.link import Link, Message
from helpers.doubles.naive_yamux import Quirks, Stream, StreamReset, Yamux, YamuxClosed

COPY_BYTES = 8_192
PING_SECONDS = 10.0
ID_BYTES = 16

Address = tuple[str, int]


class Pairing:
    """What waits for its other half. Outlives a data channel, as in the client."""

    def __init__(self) -> None:
        self.announced: dict[UUID, Address] = {}
        self.streams: dict[UUID, Stream] = {}


class DataChannel:
    """One attached `/_data`, from its first ping to its end."""

    def __init__(
        self,
        link: Link,
        pairing: Pairing,
        crew: Crew,
        *,
        quirks: Quirks,
        refuses: bool = False,
        resets_after: int | None = None,
        stream_seen: Callable[[], None] = lambda: None,
        traces: bool = False,
    ) -> None:
        self.link = link
        self._pairing = pairing
        self._crew = crew
        self._refuses = refuses
        self._resets_after = resets_after
        self._stream_seen = stream_seen
        self._traces = traces
        self._bridges = 0
        self._is_muted = asyncio.Event()
        self.yamux = Yamux(
            link.send_nowait, link.drain, is_client=False, accepted=self._accept, quirks=quirks
        )

    async def run(self) -> str:
        """Serve until the connection is of no more use; returns why it ended."""
        self.yamux.ping()
        pinging = self._crew.start(self._ping())
        try:
            return await self._read()
        finally:
            pinging.cancel()
            self.yamux.lose()
            self._pairing.streams.clear()
            self.link.abort()

    async def _read(self) -> str:
        while (message := await self.link.receive()) is not None:
            if not isinstance(message, Message) or not message.is_binary:
                continue
            if not message.data:
                say("violation", text="an empty binary message is the end of the bytes")
                return "an empty message"
            try:
                self.yamux.feed(message.data)
            except YamuxClosed as closed:
                say("violation", text=str(closed), goaway=closed.code, by_peer=closed.by_peer)
                if closed.by_peer or closed.code is None:
                    return str(closed)
                # After a GoAway of its own the library reads on until the server ends it.
            while self._is_muted.is_set():
                await asyncio.get_running_loop().create_future()
        assert self.link.end is not None
        return str(self.link.end)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            self.yamux.ping()

    def mute(self) -> None:
        """Read nothing from now on."""
        self._is_muted.set()

    def stats(self) -> dict[str, object]:
        """Return what a test counts."""
        counts = self.yamux.counts
        return {
            "open_streams": len(self.yamux.streams),
            "bridges": self._bridges,
            "waiting_streams": len(self._pairing.streams),
            "waiting_announcements": len(self._pairing.announced),
            **{name: getattr(counts, name) for name in counts.__dataclass_fields__},
        }

    # Streams

    def _accept(self, stream: Stream) -> None:
        self._crew.start(self._pair(stream))

    async def _pair(self, stream: Stream) -> None:
        head = b""
        try:
            while len(head) < ID_BYTES:
                chunk = await stream.read(ID_BYTES - len(head))
                if not chunk:
                    stream.drop()
                    return
                head += chunk
        except StreamReset:
            stream.drop()
            return
        conn_id = UUID(bytes=head)
        self._stream_seen()
        target = self._pairing.announced.pop(conn_id, None)
        if target is None:
            self._pairing.streams[conn_id] = stream
        else:
            await self._bridge(stream, target)

    def announce(self, conn_id: UUID, target: Address | None) -> None:
        """Take the half that came on the control channel; without a target the stream stays for ever."""
        if target is None:
            return
        stream = self._pairing.streams.pop(conn_id, None)
        if stream is None:
            self._pairing.announced[conn_id] = target
        else:
            self._crew.start(self._bridge(stream, target))

    async def _bridge(self, stream: Stream, target: Address) -> None:
        if self._traces:
            say("stream_opened", stream=stream.id, target=target[1])
        self._bridges += 1
        how = "done"
        try:
            if self._refuses:
                how = "refused"
                return
            reader, writer = await asyncio.open_connection(*target, limit=COPY_BYTES)
            try:
                await self._copy(stream, reader, writer)
            finally:
                writer.close()
        except OSError as error:
            how = f"local: {error}"
        except StreamReset:
            how = "reset"
        finally:
            self._bridges -= 1
            stream.drop()
            if self._traces:
                say("stream_closed", stream=stream.id, how=how)

    async def _copy(
        self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async def up() -> None:
            sent = 0
            while data := await reader.read(COPY_BYTES):
                await stream.write(data)
                sent += len(data)
                if self._resets_after is not None and sent >= self._resets_after:
                    stream.reset()
                    raise StreamReset("by this side")
            stream.finish()

        async def down() -> None:
            while data := await stream.read(COPY_BYTES):
                writer.write(data)
                await writer.drain()
            with suppress(OSError):
                writer.write_eof()

        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(up())
                both.create_task(down())
        except* (OSError, StreamReset) as group:
            raise group.exceptions[0] from None
