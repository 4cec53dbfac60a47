"""Streams that would wait for ever, because of what a client cannot tell.

A client holds a few hundred streams, and those above wait for a place. And a client whose task ended
behind its own end of the stream forgets the stream without a word: no credit comes any more, and no
reset. Both waits get a deadline here.
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
    """

    def __init__(self, mux: Mux, *, stream_seconds: float, credit_seconds: float) -> None:
        self._mux = mux
        self._stream_seconds = stream_seconds
        self._credit_seconds = credit_seconds
        self._waiting: dict[Stream, float] = {}
        self._blocked: dict[Stream, float] = {}

    def sweep(self, now: float) -> None:
        """Reset what waited for too long, as seen by earlier sweeps."""
        mux = self._mux
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
