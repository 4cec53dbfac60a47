"""What a double tells its test, and what the test tells it: one JSON object, one command, per line."""

import asyncio
import json
import sys
from datetime import UTC, datetime


def say(event: str, **fields: object) -> None:
    """Print an event; `at` is the time of it."""
    line = {"event": event, "at": datetime.now(UTC).isoformat(), **fields}
    sys.stdout.write(json.dumps(line, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class Commands:
    """The lines that come in on stdin, word by word. The end of stdin means nothing."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader()

    async def open(self) -> None:
        """Listen to stdin."""
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin
        )

    async def next(self) -> list[str]:
        """Return the words of the next command; waits for ever after the last."""
        while True:
            line = await self._reader.readline()
            if not line:
                await asyncio.get_running_loop().create_future()
            if words := line.decode().split():
                return words
