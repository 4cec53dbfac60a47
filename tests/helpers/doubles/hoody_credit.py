"""What a hoody-tunnel driver may send: one gate for the session, and one for each stream."""

import asyncio
from collections import deque


class GateClosed(Exception):
    """No credit will come any more: the stream, or the session, is over."""


class Gate:
    """Credit in bytes, taken strictly in turn: who asks for much holds up who asks for little."""

    def __init__(self, credit: int) -> None:
        self.credit = credit
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, size: int) -> None:
        """Take credit for a whole frame at once, waiting for it; does not suspend when it is there.

        Raises:
            GateClosed: The gate was closed meanwhile.
        """
        if not self._waiting and self.credit >= size:
            self.credit -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give(size)
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self.give(0)
            raise

    def close(self) -> None:
        """Turn away who waits."""
        for _, turn in self._waiting:
            if not turn.done():
                turn.set_exception(GateClosed)
        self._waiting.clear()

    def give(self, size: int) -> None:
        """Return credit; nothing checks that it is not more than there ever was."""
        self.credit += size
        while self._waiting and self.credit >= self._waiting[0][0]:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.credit -= wanted
                turn.set_result(None)


class Credits:
    """All gates of a session. That of a stream comes to be with the first data that wants through."""

    def __init__(self, session_window: int, stream_window: int) -> None:
        self.session = Gate(session_window)
        self.stream_window = stream_window
        self._streams: dict[int, Gate] = {}

    async def take(self, stream_id: int, size: int) -> None:
        """Take from the session first and from the stream then, holding the one meanwhile.

        Raises:
            GateClosed: The stream, or the session, is over.
        """
        await self.session.take(size)
        gate = self._streams.setdefault(stream_id, Gate(self.stream_window))
        try:
            await gate.take(size)
        except GateClosed:
            self.session.give(size)
            raise

    def give(self, stream_id: int, size: int) -> None:
        """Return credit; of a stream that has no gate it is lost."""
        if stream_id == 0:
            self.session.give(size)
        elif (gate := self._streams.get(stream_id)) is not None:
            gate.give(size)

    def turn_away(self, stream_id: int) -> None:
        """Turn away who waits for a stream that was reset. What comes later waits as ever."""
        if (gate := self._streams.get(stream_id)) is not None:
            gate.close()

    def forget(self, stream_id: int) -> None:
        """The stream is over for us as well."""
        self.turn_away(stream_id)
        self._streams.pop(stream_id, None)

    def close(self) -> None:
        """Nothing can be sent any more."""
        for gate in (self.session, *self._streams.values()):
            gate.close()
