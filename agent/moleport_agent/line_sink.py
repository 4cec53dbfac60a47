"""Write lines to a stream from a thread of their own, so that nothing else ever waits for it.

A terminal stopped with Ctrl-S or a pipe that nobody reads blocks `write` for ever. On the event
loop that would cost the agent its session; here it costs the oldest thing there is to lose, lines.
The queue is bounded, and what did not fit is counted and told as soon as the reader is back.
"""

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Final, Self, TextIO

MOST_LINES: Final = 4096
"""Lines that wait for a slow reader: some seconds of a busy tunnel, at most a few MiB."""
CLOSE_SECONDS: Final = 1.0
"""How long the end of a command waits for a reader that may never come back."""


class LineSink:
    """Takes lines without waiting; a context manager that writes what is left when it ends."""

    def __init__(self, stream: TextIO, told_lost: Callable[[int], str]) -> None:
        """Make a sink.

        Args:
            stream: where lines go; flushed after each.
            told_lost: makes the line that tells how many were not written.
        """
        self._stream = stream
        self._told_lost = told_lost
        self._queue: queue.Queue[str | None] = queue.Queue(MOST_LINES)
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="line-sink", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, line: str) -> None:
        """Queue one line without its end; when the queue is full it is counted and dropped."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what is queued, as far as the reader takes it in `CLOSE_SECONDS`; idempotent."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_SECONDS)
        if self._thread.is_alive():
            self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        is_writable = True
        while (line := self._queue.get()) is not None:
            if not is_writable:
                continue
            if self._lost:
                lost, self._lost = self._lost, 0
                line = f"{self._told_lost(lost)}\n{line}"
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except (OSError, ValueError):
                # The reader is gone for good. The tunnels are what counts, so they go on.
                is_writable = False
