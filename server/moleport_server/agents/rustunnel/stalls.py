"""Streams that would wait for ever, because of what a client cannot tell.

A client holds a few hundred streams, and those above wait for a place. And a client whose task ended
behind its own end of the stream forgets the stream without a word: no credit comes any more, and no
reset. Both waits get a deadline here. So does the wait for the answer to a ping of yamux, because the
places of streams that we ended are given away only behind it: a client that never answers would have none
left one day, and still look alive.
"""

from __future__ import annotations

from collections.abc import Iterable

from moleport_wire.hoody.frames import Code
from moleport_wire.yamux.mux import Mux
from moleport_wire.yamux.streams import Stream


class Stalls:
    """The waits of one data channel; swept every few seconds.

    Args:
        mux: whose streams they are.
        stream_seconds: how long a stream may wait for a place.
        credit_seconds: how long bytes may wait for credit of a client that ended its direction.
        answer_seconds: how long the client may take to answer a ping of yamux.

    Attributes:
        is_deaf: whether it took longer, as seen by the last sweep.
    """

    def __init__(
        self, mux: Mux, *, stream_seconds: float, credit_seconds: float, answer_seconds: float
    ) -> None:
        self._mux = mux
        self._stream_seconds = stream_seconds
        self._credit_seconds = credit_seconds
        self._answer_seconds = answer_seconds
        self._asked: tuple[int, float] | None = None
        self.is_deaf = False
        self._waiting: dict[Stream, float] = {}
        self._blocked: dict[Stream, float] = {}

    def sweep(self, now: float) -> None:
        """Reset what waited for too long, as seen by earlier sweeps."""
        mux = self._mux
        ping = mux.unanswered_ping
        if ping is None:
            self._asked = None
        elif self._asked is None or self._asked[0] != ping:
            self._asked = (ping, now)
        self.is_deaf = self._asked is not None and now - self._asked[1] >= self._answer_seconds
        self._waiting = _since(self._waiting, mux.waiting_streams, now)
        for stream, since in list(self._waiting.items()):
            if now - since >= self._stream_seconds:
                _reset(stream, Code.CALM_DOWN, "too many streams in this session")
        forgotten = (stream for stream in mux.blocked_streams if stream.has_peer_ended)
        self._blocked = _since(self._blocked, forgotten, now)
        for stream, since in list(self._blocked.items()):
            if now - since >= self._credit_seconds:
                _reset(stream, Code.CANCEL, "the local service does not take any more")


def _since(
    before: dict[Stream, float], streams: Iterable[Stream], now: float
) -> dict[Stream, float]:
    return {stream: before.get(stream, now) for stream in streams}


def _reset(stream: Stream, code: Code, reason: str) -> None:
    stream.reset(code, reason)
    stream.receiver.stream_reset(code, reason)
