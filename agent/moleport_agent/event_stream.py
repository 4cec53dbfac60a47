"""Server-sent events as a pure parser: bytes in, events out, whatever the chunks are.

Follows the HTML standard, section 9.2, as far as the server uses it: `id`, `event`, `data` and
comments. No I/O here; `live_events.EventStream` feeds it and reconnects with the last id.
"""

from dataclasses import dataclass
from typing import Final

from moleport_agent.errors import BadAnswer

LONGEST_EVENT_BYTES: Final = 1024 * 1024
"""The server's events are below 16 KiB; an endless line must not fill the memory."""


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as it came; a comment has only `comment`."""

    id: str | None
    kind: str
    data: str
    comment: str | None = None


class EventStreamParser:
    """Collects bytes and returns the events that are complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._size = 0
        self._id: str | None = None
        self._kind = ""
        self._data: list[str] = []
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[RawEvent]:
        """Take the next bytes and return what they complete, in order.

        Raises:
            BadAnswer: one event is larger than any server makes.
        """
        events: list[RawEvent] = []
        # A line may end in CR, LF or CR LF, and a chunk may end between the two.
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        self._buffer += chunk
        self._size += len(chunk)
        *lines, rest = (
            bytes(self._buffer).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        )
        self._buffer = bytearray(rest)
        for line in lines:
            event = self._line(line.decode("utf-8", errors="replace"))
            if event is not None:
                events.append(event)
        if not self._data:
            # Keepalive comments do not add up.
            self._size = len(rest)
        if self._size > LONGEST_EVENT_BYTES:
            raise BadAnswer(f"an event is larger than {LONGEST_EVENT_BYTES} bytes")
        return events

    def _line(self, line: str) -> RawEvent | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            return RawEvent(None, "", "", comment=line[1:].removeprefix(" "))
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._kind = value
        elif field == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> RawEvent | None:
        if not self._data:
            self._kind = ""
            return None
        event = RawEvent(self._id, self._kind or "message", "\n".join(self._data))
        self._kind, self._data, self._size = "", [], 0
        return event
