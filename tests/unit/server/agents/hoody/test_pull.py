"""Half closes of PULL connections, for both generations of clients."""

from typing import Any

import pytest

from helpers.pair import Reader
from helpers.waiting import until
from moleport_server.agents.hoody import pull as module
from moleport_server.agents.hoody.pull import PullStream
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.mux import Link
from moleport_wire.hoody.stock import StockMux
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget


class Kit:
    """One PULL connection and the client at its other end."""

    def __init__(self, *, is_old: bool) -> None:
        self.mux = StockMux(
            self,
            ReceiveBudget(1 << 24, 65_536),
            stream_window=65_536,
            session_window=1 << 20,
            on_end=lambda _: None,
        )
        self.link = Link(self.mux, 0, lambda: None)
        self.link.room = 1 << 20
        self.mux.attach(self.link)
        self.visitor = Reader()
        self.pull = PullStream(self.visitor, is_old=is_old)
        self.stream = self.mux.open_stock(self.link, self.pull, b"{}")
        self.pull.attach(self.stream)
        self.kinds: list[int] = []

    def sent(self) -> list[int]:
        """Return the types of all frames so far."""
        for message in self.link.take(1 << 20):
            self.kinds += [kind for kind, _, _ in frames.parse(message)]
        return self.kinds

    def receive(self, kind: int, payload: bytes = b"") -> None:
        self.mux.receive(self.link, frames.serialize(kind, self.stream.id, payload))

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None: ...
    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None: ...
    def stream_stalled(self, stream: Stream) -> None: ...
    def stream_drained(self, stream: Stream) -> None: ...
    def stream_blocked(self, stream: Stream) -> None: ...
    def stream_unblocked(self, stream: Stream) -> None: ...


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.01)
    monkeypatch.setattr(module, "MOST_DELAYED_SECONDS", 0.05)
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)


async def test_a_new_client_is_told_the_end_at_once() -> None:
    kit = Kit(is_old=False)

    kit.pull.write(b"all")
    kit.pull.write_eof()
    kit.pull.write(b"ignored")

    assert kit.sent() == [frames.STREAM_OPEN, frames.DATA, frames.EOF]
    assert not kit.pull.is_open


@pytest.mark.usefixtures("quick")
async def test_an_old_client_is_told_the_end_when_it_took_the_bytes() -> None:
    kit = Kit(is_old=True)
    kit.pull.write(b"all")
    kit.pull.write_eof()
    at_once = list(kit.sent())

    kit.receive(frames.WINDOW, (3).to_bytes(4, "big"))
    await until(lambda: frames.EOF in kit.sent())

    assert frames.EOF not in at_once
    assert kit.sent().count(frames.EOF) == 1


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("sent", [b"", b"bytes that it says nothing about"])
async def test_an_old_client_is_told_the_end_in_any_case(sent: bytes) -> None:
    kit = Kit(is_old=True)
    kit.pull.write(sent) if sent else None

    kit.pull.write_eof()

    await until(lambda: frames.EOF in kit.sent())


@pytest.mark.usefixtures("quick")
async def test_an_old_client_that_falls_silent_after_our_end_has_ended() -> None:
    kit = Kit(is_old=True)
    kit.pull.write_eof()
    await until(lambda: frames.EOF in kit.sent())

    kit.receive(frames.DATA, b"answer")
    await until(lambda: kit.visitor.eofs == 1)

    assert kit.visitor.data == b"answer"
    assert kit.sent()[-1] == frames.RESET
    assert kit.mux.open_streams == 0


@pytest.mark.usefixtures("quick")
async def test_an_old_client_that_ends_first_gets_our_end_at_once() -> None:
    kit = Kit(is_old=True)
    kit.pull.write_eof()

    kit.receive(frames.EOF)

    assert kit.visitor.eofs == 1
    assert kit.sent()[-1] == frames.EOF
    assert kit.mux.open_streams == 0


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
async def test_a_visitor_that_is_gone_resets_the_stream(is_old: bool) -> None:
    kit = Kit(is_old=is_old)
    kit.pull.write_eof()

    kit.pull.reset(Code.CANCEL, "gone")
    kit.receive(frames.DATA, b"late")

    assert kit.sent()[-1] == frames.RESET
    assert kit.visitor.data == b""


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "new"])
async def test_both_sides_hear_that_it_is_taken_away_once(is_old: bool) -> None:
    kit = Kit(is_old=is_old)

    for _ in range(2):
        kit.pull.take_away(Code.TAKEOVER, "taken over")

    assert kit.visitor.resets == [(Code.TAKEOVER, "taken over")]
    assert kit.sent() == [frames.STREAM_OPEN, frames.RESET]


async def test_what_the_visitor_does_not_read_is_not_credited() -> None:
    kit = Kit(is_old=False)
    kit.pull.pause_reading()
    kit.receive(frames.DATA, bytes(65_536))
    held: Any = list(kit.sent())

    kit.pull.resume_reading()

    assert frames.WINDOW not in held
    assert frames.WINDOW in kit.sent()
