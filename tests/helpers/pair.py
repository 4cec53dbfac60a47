"""Two muxes wired back to back: a kit and a driver without sockets, clocks or tasks."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.mux import Link, Mux
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget

ROOM_BYTES = 256 * 1024
BUDGET_BYTES = 64 * 1024 * 1024


class Reader:
    """A stream's receiver that writes everything down."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces: list[int] = []
        self.eofs = 0
        self.resets: list[tuple[int, str]] = []
        self.is_paused = False

    def stream_data(self, data: Payload) -> None:
        self.data += data
        self.pieces.append(len(data))

    def stream_eof(self) -> None:
        self.eofs += 1

    def stream_reset(self, code: int, reason: str) -> None:
        self.resets.append((code, reason))

    def stream_pause_writing(self) -> None:
        self.is_paused = True

    def stream_resume_writing(self) -> None:
        self.is_paused = False


@dataclass
class Side:
    """One end: a mux, its links, and everything that its owner heard (it is the `MuxOwner`)."""

    name: str
    budget: ReceiveBudget
    mux: Mux = field(init=False)
    links: list[Link] = field(default_factory=list)
    controls: list[tuple[int, bytes]] = field(default_factory=list)
    opened: dict[int, tuple[Stream, Reader]] = field(default_factory=dict)
    refuse_with: int | None = None
    stalled: set[Stream] = field(default_factory=set)
    blocked: set[Stream] = field(default_factory=set)
    schedules: int = 0
    wake: Callable[[], object] = lambda: None

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None:
        self.controls.append((frame_type, bytes(payload)))

    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None:
        if self.refuse_with is not None:
            self.mux.refuse(link, stream_id, self.refuse_with, "no such binding")
            return
        reader = Reader()
        window = messages.StreamOpen.decode(payload).window
        self.opened[stream_id] = (self.mux.accept(link, stream_id, reader, window), reader)

    def stream_stalled(self, stream: Stream) -> None:
        assert stream not in self.stalled
        self.stalled.add(stream)

    def stream_drained(self, stream: Stream) -> None:
        self.stalled.remove(stream)

    def stream_blocked(self, stream: Stream) -> None:
        assert stream not in self.blocked
        self.blocked.add(stream)

    def stream_unblocked(self, stream: Stream) -> None:
        self.blocked.remove(stream)

    def schedule(self) -> None:
        self.schedules += 1
        self.wake()


class MuxPair:
    """A kit and a driver, and the messages under way between them, per link and direction."""

    def __init__(
        self,
        *,
        links: int = 1,
        stream_window: int = 256 * 1024,
        session_window: int = 16 * 1024 * 1024,
        first_window: int = 256 * 1024,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self.kit = self._side("kit", ReceiveBudget(budget_bytes, first_window))
        self.driver = self._side("driver", ReceiveBudget(budget_bytes, first_window))
        for side in (self.kit, self.driver):
            side.mux = Mux(
                side,
                side.budget,
                stream_window=stream_window,
                session_window=session_window,
                opens=side is self.kit,
            )
            for index in range(links):
                link = Link(side.mux, index, side.schedule)
                link.room = ROOM_BYTES
                side.mux.attach(link)
                side.links.append(link)
        self.to_driver: list[deque[bytes]] = [deque() for _ in range(links)]
        self.to_kit: list[deque[bytes]] = [deque() for _ in range(links)]

    @staticmethod
    def _side(name: str, budget: ReceiveBudget) -> Side:
        return Side(name, budget)

    def open(self, link: int = 0) -> tuple[Stream, Reader]:
        """Open a stream at the kit; the driver hears of it with the next `deliver`."""
        reader = Reader()
        stream = self.kit.mux.open(
            self.kit.links[link],
            reader,
            lambda window: messages.StreamOpen(bind_id=1, peer="", window=window).encode(),
        )
        return stream, reader

    def open_both(self, link: int = 0) -> tuple[Stream, Reader, Stream, Reader]:
        """Open a stream and deliver it: the kit's side and reader, then the driver's."""
        stream, reader = self.open(link)
        self.settle()
        return stream, reader, *self.driver.opened[stream.id]

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Exchange messages on an event loop whenever one of the sides has something to say."""

        def wake() -> None:
            loop.call_soon(self.settle)

        self.kit.wake = self.driver.wake = wake

    def flush(self, side: Side, *, room: int = ROOM_BYTES) -> list[list[bytes]]:
        """Give each link of a side one turn; what it wrote is under way and returned."""
        queues = self.to_driver if side is self.kit else self.to_kit
        written = []
        for link, queue in zip(side.links, queues, strict=True):
            messages_due = link.take(room)
            link.room = room
            queue.extend(messages_due)
            written.append(messages_due)
        return written

    def deliver(self, side: Side, index: int = 0) -> bool:
        """Hand the oldest message that is under way to a side; False if there is none."""
        queue = (self.to_kit if side is self.kit else self.to_driver)[index]
        if not queue:
            return False
        side.mux.receive(side.links[index], queue.popleft())
        return True

    def settle(self) -> None:
        """Exchange messages until nothing moves any more."""
        is_moving = True
        while is_moving:
            for side in (self.kit, self.driver):
                self.flush(side)
            is_moving = False
            for side in (self.kit, self.driver):
                for index in range(len(side.links)):
                    while self.deliver(side, index):
                        is_moving = True


def frames_of(written: list[list[bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """Yield every frame of what `flush` returned."""
    for due in written:
        for message in due:
            for frame_type, stream_id, payload in frames.parse(message):
                yield frame_type, stream_id, bytes(payload)
