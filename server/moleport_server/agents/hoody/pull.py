"""One TCP connection towards a stock client: half close as its generation bears it.

New clients do what TCP says. Old ones throw away what they have when our EOF arrives before their local
connection stands, and never send an EOF once they had ours. So for them our EOF waits until the driver
has taken something, and at least a moment; afterwards silence counts as their end.
"""

from __future__ import annotations

import asyncio
from typing import Final

from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.stock import StockStream
from moleport_wire.hoody.streams import StreamReceiver

CONNECT_SECONDS: Final = 0.05
"""An old client has its local connection after that, unless something is wrong with it."""
MOST_DELAYED_SECONDS: Final = 1.0
"""Our EOF does not wait longer, whatever the client says."""
LINGER_SECONDS: Final = 30.0
"""An old client that had our EOF and sends nothing for so long has ended."""


class PullStream:
    """One stream of a PULL (a `ByteStream` for the edge, a `StreamReceiver` for the mux)."""

    def __init__(self, receiver: StreamReceiver, *, is_old: bool) -> None:
        self.receiver = receiver
        self._is_old = is_old
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._stream: StockStream
        self._has_sent = False
        self._wants_eof = False
        self._has_ended = False
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, stream: StockStream) -> None:
        """Take the stream that was opened for this."""
        self._stream = stream

    # ByteStream

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._stream.is_open and not self._wants_eof

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for credit or for their turn."""
        return self._stream.queued_bytes

    def write(self, data: Payload) -> None:
        """Send bytes."""
        if not self._wants_eof:
            self._has_sent = True
            self._stream.write(data)

    def write_eof(self) -> None:
        """End our direction, behind everything written; idempotent."""
        if self._wants_eof:
            return
        self._wants_eof = True
        if self._is_old:
            self._send_eof_when_due()
        else:
            self._stream.write_eof()

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions."""
        self._end()
        self._stream.reset(code, reason)

    def pause_reading(self) -> None:
        """Grant no more credit."""
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        """Grant what was held back."""
        self._stream.resume_reading()

    # StreamReceiver

    def stream_data(self, data: Payload) -> None:
        """Pass on."""
        if self._wants_eof and self._timer is not None and not self._stream.is_open:
            self._linger()
        self.receiver.stream_data(data)

    def stream_eof(self) -> None:
        """Pass on."""
        self._stop_timer()
        if self._wants_eof:
            self._stream.write_eof()
        self.receiver.stream_eof()

    def stream_reset(self, code: int, reason: str) -> None:
        """Pass on."""
        self._end()
        self.receiver.stream_reset(code, reason)

    def stream_pause_writing(self) -> None:
        """Pass on."""
        self.receiver.stream_pause_writing()

    def stream_resume_writing(self) -> None:
        """Pass on."""
        self.receiver.stream_resume_writing()

    def take_away(self, code: int, reason: str) -> None:
        """Reset it for a reason of the server: the client and the edge are told."""
        if self._has_ended:
            return
        self.reset(code, reason)
        self.receiver.stream_reset(code, reason)

    # The EOF of old clients

    def _send_eof_when_due(self) -> None:
        self._timer = None
        age = self._loop.time() - self._opened_at
        is_heard = self._stream.was_credited or not self._has_sent
        if age < CONNECT_SECONDS:
            self._timer = self._loop.call_later(CONNECT_SECONDS - age, self._send_eof_when_due)
        elif is_heard or age > MOST_DELAYED_SECONDS:
            self._stream.write_eof()
            self._linger()
        else:
            self._timer = self._loop.call_later(CONNECT_SECONDS, self._send_eof_when_due)

    def _linger(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(LINGER_SECONDS, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        if self._stream.queued_bytes:
            self._linger()  # not even our side is sent yet
            return
        self.receiver.stream_eof()
        self.reset(Code.CANCEL, "silent after our end")

    def _end(self) -> None:
        self._has_ended = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
