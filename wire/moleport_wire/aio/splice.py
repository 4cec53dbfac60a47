"""Splice: join a socket and a stream until both directions have ended.

Used by the agent towards local services and by the server's TCP edge towards visitors: the same rules on
both ends. Half close passes through in both directions; a connection that breaks resets the stream, a
reset stream aborts the connection, so that nobody takes a truncated transfer for a complete one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

from moleport_wire.aio.callbacks import SocketCallbacks
from moleport_wire.aio.resets import watch_for_reset
from moleport_wire.aio.socket_options import tune_socket
from moleport_wire.aio.sockets import (
    ReadBuffer,
    abort_with_reset,
    half_close,
    resume_reading,
    settle_reading,
)
from moleport_wire.hoody.frames import Code, Payload

WRITE_BUFFER_BYTES: Final = 256 * 1024
"""Above this the peer of the stream gets no more credit."""
WRITE_RESUME_BYTES: Final = 64 * 1024


class SplicedStream(Protocol):
    """What a splice asks of a stream, whatever mux it belongs to."""

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for credit or for their turn."""
        ...

    def write(self, data: Payload) -> None:
        """Send bytes; never blocks."""

    def write_eof(self) -> None:
        """Send the end of our direction, behind everything written; idempotent."""

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions; idempotent."""

    def pause_reading(self) -> None:
        """Grant no more credit."""

    def resume_reading(self) -> None:
        """Grant what was held back."""


class Splice:
    """The owner of a socket and a stream's receiver in one.

    Made before either side exists: `stream` is set with `attach`, the socket by `connection_made`.
    Bytes of the stream that come before the socket are kept, at most one window, because no credit
    is granted for them.

    Args:
        buffer: what the socket is read into.
        on_end: called once when both directions have ended or one side broke, with a reason or "".
        on_bytes: called with (to the socket, from the socket) byte counts of each chunk, or None.
        preface: makes what the socket is sent before anything else, from its transport.
    """

    __slots__ = (
        "_buffer",
        "_early",
        "_eof_received",
        "_is_ended",
        "_is_socket_eof",
        "_is_write_paused",
        "_on_bytes",
        "_on_end",
        "_preface",
        "_stream",
        "_transport",
    )

    def __init__(
        self,
        buffer: ReadBuffer,
        on_end: Callable[[Splice, str], None],
        on_bytes: Callable[[int, int], None] | None = None,
        preface: Callable[[asyncio.BaseTransport], bytes] | None = None,
    ) -> None:
        self._buffer = buffer
        self._on_end = on_end
        self._on_bytes = on_bytes
        self._preface = preface
        self._stream: SplicedStream | None = None
        self._transport: asyncio.Transport | None = None
        self._early: list[Payload] | None = []
        self._eof_received = False
        self._is_socket_eof = False
        self._is_ended = False
        self._is_write_paused = False

    def protocol(self) -> SocketCallbacks:
        """Make what the socket's transport wants; once per splice."""
        return SocketCallbacks(self)

    @property
    def transport(self) -> asyncio.Transport | None:
        """The socket's transport, None before it is connected."""
        return self._transport

    def attach(self, stream: SplicedStream) -> None:
        """Join the stream; the socket may come later."""
        self._stream = stream
        if self._transport is None:
            stream.pause_reading()
        else:
            resume_reading(self._transport)

    def end(self, code: int, reason: str) -> None:
        """Break both sides; idempotent."""
        if self._is_ended:
            return
        if self._stream is not None:
            self._stream.reset(code, reason)
        if self._transport is not None:
            abort_with_reset(self._transport)
        self._finish(reason)

    # asyncio.Protocol: the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what came early and start to read."""
        tune_socket(transport)
        self._adopt(transport)
        self._settle()

    def _adopt(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket over; `_settle` has to follow."""
        # The loop's promise for stream sockets; C transports do not inherit from asyncio.Transport.
        transport = cast("asyncio.Transport", transport)
        self._transport = transport
        settle_reading(transport)
        if self._is_ended:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES, low=WRITE_RESUME_BYTES)
        watch_for_reset(transport)
        early, self._early = self._early, None
        if self._preface is not None:
            transport.write(self._preface(transport))
        if early:
            transport.writelines(early)
        if self._stream is not None and not self._is_write_paused:
            self._stream.resume_reading()
        if self._eof_received:
            self._write_eof()

    def _settle(self) -> None:
        """Read if somebody takes the bytes; otherwise the kernel's buffer is the bound."""
        transport = self._transport
        if transport is None:
            return
        if self._stream is None and not transport.is_closing():
            transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer for one read."""
        del sizehint
        return self._buffer.lend()

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on to the stream."""
        self.data_received(self._buffer.take(nbytes))

    def data_received(self, data: bytes) -> None:
        """Pass on bytes that were read."""
        stream = self._stream
        if stream is not None:
            stream.write(data)
            if self._on_bytes is not None:
                self._on_bytes(0, len(data))

    def eof_received(self) -> bool:
        """Pass a half close on; the socket stays open for the other direction."""
        self._is_socket_eof = True
        if self._stream is not None:
            self._stream.write_eof()
        transport = self._transport
        # TLS cannot half-close: an open direction would be a promise that nobody keeps.
        return transport is not None and transport.can_write_eof() and not self._eof_received

    def connection_lost(self, exc: Exception | None) -> None:
        """End: orderly if the socket's direction had ended, else reset the stream."""
        if self._is_ended:
            return
        stream = self._stream
        if exc is None and self._is_socket_eof and stream is not None and not self._eof_received:
            # TLS ends both directions at once. What the socket sent may still wait for credit and
            # a reset would cut it, so the stream stays until its peer ends it.
            self._transport = None
            stream.resume_reading()
            return
        if exc is None and self._is_socket_eof:
            self._finish("")
            return
        if stream is not None:
            stream.reset(Code.CANCEL, "connection closed" if exc is None else "connection broken")
        self._finish("connection lost")

    def pause_writing(self) -> None:
        """Stop the stream: the socket's buffer is full."""
        self._is_write_paused = True
        if self._stream is not None:
            self._stream.pause_reading()

    def resume_writing(self) -> None:
        """Let the stream go on."""
        self._is_write_paused = False
        if self._stream is not None:
            self._stream.resume_reading()

    def peer_left(self, *, is_broken: bool) -> None:
        """Do nothing: what it sent before its end is still to be passed on."""

    # StreamReceiver: the stream

    def stream_data(self, data: Payload) -> None:
        """Pass on to the socket."""
        if self._on_bytes is not None:
            self._on_bytes(len(data), 0)
        if self._transport is not None:
            self._transport.write(data)
        elif self._early is not None:
            self._early.append(data)
        elif self._stream is not None and not self._stream.queued_bytes:
            # The socket ended in order, and everything it sent is out: now the peer may know that
            # nobody takes its bytes.
            self.end(Code.CANCEL, "connection closed")

    def stream_eof(self) -> None:
        """Half-close the socket behind everything written."""
        self._eof_received = True
        if self._transport is not None:
            self._write_eof()
        elif self._early is None and self._is_socket_eof:
            self._finish("")

    def stream_reset(self, code: int, reason: str) -> None:
        """Abort the socket: what was sent is not complete."""
        del code
        if self._transport is not None:
            abort_with_reset(self._transport)
        self._finish(reason)

    def stream_pause_writing(self) -> None:
        """Stop reading from the socket."""
        if self._transport is not None:
            self._transport.pause_reading()

    def stream_resume_writing(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            resume_reading(self._transport)

    def _write_eof(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._is_socket_eof:
            # Both directions are done: close, which flushes first.
            transport.close()
            return
        half_close(transport)
        # TLS towards a local service cannot half-close; its answer ends the connection.

    def _finish(self, reason: str) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        self._early = None
        self._on_end(self, reason)
        # What refers to itself is freed by the garbage collector only, much later and all at once.
        self._stream = None
        self._on_end = _nobody
        self._on_bytes = None
        self._preface = None


def _nobody(splice: Splice, reason: str) -> None:
    """Take the place of who was told about the end of a splice."""
