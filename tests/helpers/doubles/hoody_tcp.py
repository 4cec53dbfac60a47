"""Streams of PULL in the hoody-tunnel double: bytes to and from a local TCP service."""

import asyncio
from collections import deque
from contextlib import suppress

from helpers.doubles.events import say
from helpers.doubles.hoody_credit import GateClosed
from helpers.doubles.hoody_frames import MAX_PAYLOAD_BYTES, Frame, Type
from helpers.doubles.hoody_hello import Generation
from helpers.doubles.hoody_session import Session

EARLY_BYTES = 2**20
CONNECT_SECONDS = 5.0


class TcpStream:
    """One connection. What the generations do at the ends of it differs nearly everywhere."""

    def __init__(self, session: Session, stream_id: int, host: str, port: int) -> None:
        self._session = session
        self._id = stream_id
        self._address = host, port
        self._is_old = session.generation is Generation.OLD
        self._writer: asyncio.StreamWriter | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._kit_has_ended = False
        self._is_gone = False
        self._up: deque[bytes] = deque()
        self._up_changed = asyncio.Event()
        session.crew.start(self._run())

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(*self._address)
        except OSError:
            if not self._is_gone:
                self._session.refuse(self._id, "local connect failed")
            return
        if self._is_gone:
            writer.close()
            return
        self._writer = writer
        for piece in self._early:
            writer.write(piece)
        if self._kit_has_ended:
            writer.write_eof()
        try:
            await self._read(reader)
        except OSError:
            if not self._is_gone:
                self._session.refuse(self._id, "local connect failed")
        finally:
            self._is_gone = True
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        sending = self._session.crew.start(self._send_up())
        try:
            while piece := await reader.read(MAX_PAYLOAD_BYTES):
                self._up.append(piece)
                self._up_changed.set()
                if not self._is_old:
                    await self._room()
            if self._is_old:
                # Whatever waits for credit now is lost: the EOF overtakes it.
                for _ in range(3):
                    await asyncio.sleep(0)
            else:
                while self._up and not sending.done():
                    await self._room(empty=True)
        finally:
            sending.cancel()
        if self._is_gone:
            return
        if not (self._is_old and self._kit_has_ended):
            self._session.send_on_stream(Frame(Type.EOF, self._id))
        self._session.finished(self._id)

    async def _send_up(self) -> None:
        while True:
            while not self._up:
                self._up_changed.clear()
                await self._up_changed.wait()
            try:
                await self._session.send_data(self._id, self._up[0])
            except GateClosed:
                self._up.clear()
                self._up_changed.set()
                return
            self._up.popleft()
            self._up_changed.set()

    async def _room(self, *, empty: bool = False) -> None:
        while len(self._up) >= (1 if empty else 4):
            self._up_changed.clear()
            await self._up_changed.wait()

    def data(self, data: bytes) -> None:
        if self._writer is not None:
            if not self._writer.is_closing():
                self._writer.write(data)
            self._session.crew.start(self._credit_when_taken(self._writer, len(data)))
            return
        self._early_bytes += len(data)
        if self._early_bytes > EARLY_BYTES:
            self._is_gone = True
            self._session.credit_session(len(data))
            if self._is_old:
                self._session.finished(self._id)
            else:
                self._session.refuse(self._id, "early-buffer-overflow")
            return
        self._early.append(data)
        self._session.credit(self._id, len(data))

    async def _credit_when_taken(self, writer: asyncio.StreamWriter, size: int) -> None:
        with suppress(OSError):
            await writer.drain()
        self._session.credit(self._id, size)

    def eof(self) -> None:
        if self._kit_has_ended:
            say("violation", text=f"two EOFs on stream {self._id}")
            return
        self._kit_has_ended = True
        if self._writer is not None:
            with suppress(OSError):
                self._writer.write_eof()
        elif self._is_old:
            say("violation", text=f"EOF on stream {self._id} before the local connect: all is lost")
            self._is_gone = True
            self._session.finished(self._id)

    def reset(self) -> None:
        if self._is_old and self._writer is not None:
            self._is_gone = True
            with suppress(OSError):
                self._writer.write_eof()
            self._session.finished(self._id)
        else:
            self.abort()

    def abort(self) -> None:
        self._is_gone = True
        self._session.finished(self._id)
        if self._writer is not None:
            self._writer.transport.abort()
