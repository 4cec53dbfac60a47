"""Throttle: a stream that keeps to the bandwidth of its token.

Stands between a stream and whoever reads it, for tunnels whose token has a bandwidth; all others never
meet it. Nothing is delayed or kept: bytes pass as they come and are counted, and while the token is in
debt neither side is asked for more. The service is stopped by its stream window and the visitor by its
socket, so memory stays as bounded as without it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from moleport_server.access.bounds import Bandwidth
from moleport_server.registry.upstream import ByteStream
from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.streams import StreamReceiver

LONGEST_SECONDS: Final = 1.0
"""Of one pause: a rate that was raised meanwhile holds soon."""


class ThrottledStream:
    """A `ByteStream` for the edge and the `StreamReceiver` of the stream below.

    Args:
        below: the stream itself; this becomes its receiver.
        bandwidth: shared by all streams of the token.
    """

    __slots__ = (
        "_bandwidth",
        "_below",
        "_is_over",
        "_is_read_paused",
        "_is_write_paused",
        "_loop",
        "_timer",
        "receiver",
    )

    def __init__(self, below: ByteStream, bandwidth: Bandwidth) -> None:
        self.receiver: StreamReceiver = below.receiver
        """Who hears about the stream."""
        self._below = below
        self._bandwidth = bandwidth
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_read_paused = False
        self._is_write_paused = False
        self._is_over = False
        below.receiver = self

    @property
    def is_open(self) -> bool:
        """Whether bytes can still be written."""
        return self._below.is_open

    @property
    def queued_bytes(self) -> int:
        """Bytes that were written and wait for credit or for their turn."""
        return self._below.queued_bytes

    def write(self, data: Payload) -> None:
        """Send bytes of the visitor, and stop it while the token is in debt."""
        self._below.write(data)
        self._spend(len(data))

    def write_eof(self) -> None:
        """Send the end of our direction."""
        self._below.write_eof()

    def reset(self, code: int, reason: str = "") -> None:
        """Abandon both directions."""
        self._end()
        self._below.reset(code, reason)

    def pause_reading(self) -> None:
        """Grant no more credit until `resume_reading`."""
        self._is_read_paused = True
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Grant credit again, as soon as the debt is paid."""
        self._is_read_paused = False
        if self._timer is None:
            self._below.resume_reading()

    # StreamReceiver: the stream below

    def stream_data(self, data: Payload) -> None:
        """Pass bytes of the service on, and stop it while the token is in debt."""
        self.receiver.stream_data(data)
        self._spend(len(data))

    def stream_eof(self) -> None:
        """Pass on."""
        self.receiver.stream_eof()

    def stream_reset(self, code: int, reason: str) -> None:
        """Pass on."""
        self._end()
        self.receiver.stream_reset(code, reason)

    def stream_pause_writing(self) -> None:
        """Pass on."""
        self._is_write_paused = True
        self.receiver.stream_pause_writing()

    def stream_resume_writing(self) -> None:
        """Pass on, as soon as the debt is paid."""
        self._is_write_paused = False
        if self._timer is None:
            self.receiver.stream_resume_writing()

    def _spend(self, size: int) -> None:
        wait = self._bandwidth.spend(size, self._loop.time())
        if wait > 0 and self._timer is None and not self._is_over:
            self._below.pause_reading()
            self.receiver.stream_pause_writing()
            self._wait(wait)

    def _wait(self, seconds: float) -> None:
        self._timer = self._loop.call_later(min(seconds, LONGEST_SECONDS), self._look)

    def _look(self) -> None:
        """Go on if the debt is paid."""
        self._timer = None
        wait = self._bandwidth.spend(0, self._loop.time())
        if wait > 0:
            self._wait(wait)
            return
        if not self._is_read_paused:
            self._below.resume_reading()
        if not self._is_write_paused and not self._is_over:
            self.receiver.stream_resume_writing()

    def _end(self) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def throttled(stream: ByteStream, bandwidth: Bandwidth) -> ByteStream:
    """Return the stream with a throttle, itself if it has one."""
    return stream if isinstance(stream, ThrottledStream) else ThrottledStream(stream, bandwidth)
