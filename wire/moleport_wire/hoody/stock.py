"""The kit's mux towards stock drivers: heads of answers, windows as promised, credit that is clamped.

Stock drivers differ from our own agent in four ways, and this module holds exactly those. The window of
each stream is the one of HELLO_OK (nothing in STREAM_OPEN changes it). STREAM_RESPONSE_HEAD belongs to
a stream. Credit above the first windows is clamped, because an old driver that reconnects on the same
object sends stale credit. And whoever opened a stream is told when it has left the mux, whatever ended
it, so that nothing that is counted per stream can leak.

Frames of a stream are taken from any link: drivers change the socket in the middle (once they saw our
EOF, they answer on the primary).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import MAX_PAYLOAD_BYTES, Code, Payload
from moleport_wire.hoody.mux import MAX_STREAM_ID, Link, Mux, MuxOwner
from moleport_wire.hoody.streams import Stream, StreamReceiver
from moleport_wire.hoody.window import ReceiveBudget, ReceiveWindow

FIRST_STREAM_ID: Final = 2
MOST_UNDER_WAY_BYTES: Final = 1024 * 1024
"""What a driver keeps of one stream while its local connection is being made. It gives credit for such
bytes at once and fails the stream above that, and nothing tells us when the connection stands."""


def whole_window(size: int) -> int:
    """Return the window to promise: whole frames, because drivers ask for credit by whole frames.

    With less than one frame of 65,536 bytes the body of an answer never starts.
    """
    return -(-size // MAX_PAYLOAD_BYTES) * MAX_PAYLOAD_BYTES


class ExchangeReceiver(StreamReceiver, Protocol):
    """Who hears about one stream, the heads of answers included."""

    def stream_head(self, payload: Payload) -> None:
        """Take a STREAM_RESPONSE_HEAD."""


class StockStream(Stream):
    """One stream towards a stock driver; made by `StockMux.open_stock`."""

    __slots__ = ("_is_prompt", "_on_head", "was_credited")

    def __init__(
        self,
        mux: StockMux,
        link: Link,
        stream_id: int,
        receiver: StreamReceiver,
        on_head: Callable[[Payload], None] | None,
        *,
        is_prompt: bool,
    ) -> None:
        size = mux.stream_window
        window = ReceiveWindow(mux.budget, size)
        super().__init__(mux, link, stream_id, receiver, min(size, MOST_UNDER_WAY_BYTES), window)
        self._on_head = on_head
        self._is_prompt = is_prompt
        self.was_credited = False
        """Whether the driver has taken any of our bytes."""

    def receive_head(self, payload: Payload) -> None:
        """Handle STREAM_RESPONSE_HEAD; on a TCP stream it ends the stream."""
        if not self._remote_open:
            return
        if self._on_head is None:
            self.reset(Code.PROTOCOL_ERROR, "a response head on a TCP stream")
            self.receiver.stream_reset(Code.PROTOCOL_ERROR, "a response head on a TCP stream")
        else:
            self._on_head(payload)

    def abandon(self, code: int, reason: str = "") -> None:
        """Reset our side, and go on to take what the driver sends until it ends the stream.

        For a driver that ignores a RESET of what it is answering: without credit its answer would
        wait for ever, and hold on to a share of the session window meanwhile.
        """
        if not self._remote_open:
            self.reset(code, reason)
            return
        if not self._local_open:
            return
        self.link.send(frames.RESET, self.id, int(code).to_bytes(2, "big") + reason.encode()[:1024])
        self._local_open = False
        self._pending.clear()
        self._pending_bytes = 0
        self._eof_queued = False
        self.resume_reading()

    def drop(self) -> None:
        """Forget the stream without a word: it was abandoned, and nothing comes any more."""
        if self._local_open or self._remote_open:
            self._close()

    def _receive_data(self, data: Payload) -> None:
        super()._receive_data(data)
        window = self.window
        grant = window.unacknowledged
        if self._is_prompt and grant and self._remote_open and not self._is_paused_by_us:
            window.unacknowledged = 0
            window.credit += grant
            self.link.send(frames.WINDOW, self.id, grant.to_bytes(4, "big"))

    def _receive_credit(self, increment: int) -> None:
        self.was_credited = True
        super()._receive_credit(increment)
        most = min(self._mux.stream_window, MOST_UNDER_WAY_BYTES)
        self._send_credit = min(self._send_credit, most)


class StockMux(Mux):
    """The streams of one session with a stock driver.

    Args:
        owner: gets control frames.
        budget: what the receive windows of this process may cost together.
        stream_window: the `streamWindow` of HELLO_OK, a multiple of 65,536.
        session_window: the `sessionWindow` of HELLO_OK.
        on_end: called for each stream that has left the mux.
    """

    def __init__(
        self,
        owner: MuxOwner,
        budget: ReceiveBudget,
        *,
        stream_window: int,
        session_window: int,
        on_end: Callable[[Stream], None],
    ) -> None:
        super().__init__(
            owner, budget, stream_window=stream_window, session_window=session_window, opens=True
        )
        self.budget = budget
        self._on_end = on_end

    def open_stock(
        self,
        link: Link,
        receiver: StreamReceiver,
        payload: bytes,
        *,
        on_head: Callable[[Payload], None] | None = None,
        is_prompt: bool = False,
    ) -> StockStream:
        """Open a stream on a link.

        Args:
            link: the connection that carries it.
            receiver: who hears about it.
            payload: of STREAM_OPEN.
            on_head: takes the heads of answers; None for TCP.
            is_prompt: whether credit is granted for each frame, because the driver loses what
                waits for credit when its local service ends.

        Raises:
            RemoteProtocolError: all 2**32 ids are used; the session has to be renewed.
        """
        stream_id = self._next_id
        if stream_id > MAX_STREAM_ID:
            raise RemoteProtocolError(Code.EXHAUSTED, "stream ids are used up")
        self._next_id = stream_id + 1
        self._highest_seen = stream_id
        # The driver was promised this window for every stream, whatever the budget says now.
        self.budget.committed_bytes += self.stream_window
        stream = StockStream(self, link, stream_id, receiver, on_head, is_prompt=is_prompt)
        self._streams[stream_id] = stream
        link.send(frames.STREAM_OPEN, stream_id, payload)
        return stream

    def forget(self, stream: Stream) -> None:
        """Drop a closed stream and tell who counts."""
        super().forget(stream)
        self._on_end(stream)

    def _receive_stream_frame(
        self, link: Link, frame_type: int, stream_id: int, payload: Payload
    ) -> None:
        if frame_type != frames.STREAM_RESPONSE_HEAD:
            super()._receive_stream_frame(link, frame_type, stream_id, payload)
            return
        stream = self._streams.get(stream_id)
        if isinstance(stream, StockStream):
            stream.receive_head(payload)
        else:
            self._check_known(stream_id)

    def _receive_session_credit(self, payload: Payload) -> None:
        super()._receive_session_credit(payload)
        self.send_credit = min(self.send_credit, self.session_window)

    def _check_known(self, stream_id: int) -> None:
        if stream_id < FIRST_STREAM_ID:
            raise RemoteProtocolError(
                Code.PROTOCOL_ERROR, f"frame for stream {stream_id}, which was never opened"
            )
        super()._check_known(stream_id)
