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
