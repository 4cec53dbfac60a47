import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.pair import Reader
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.mux import Link
from moleport_wire.hoody.stock import StockMux, StockStream, whole_window
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget

WINDOW = 131_072
SESSION = 262_144


class Kit:
    """A kit's mux with two links, and everything that it heard."""

    def __init__(self, window: int = WINDOW, session: int = SESSION) -> None:
        self.budget = ReceiveBudget(1 << 24, window)
        self.ended: list[Stream] = []
        self.mux = StockMux(
            self,
            self.budget,
            stream_window=window,
            session_window=session,
            on_end=self.ended.append,
        )
        self.links = [Link(self.mux, index, lambda: None) for index in range(2)]
        for link in self.links:
            link.room = 1 << 20
            self.mux.attach(link)
        self.heads: list[bytes] = []
        self.reader = Reader()

    def open(self, index: int = 0, *, is_tcp: bool = False) -> StockStream:
        return self.mux.open_stock(
            self.links[index],
            self.reader,
            b"{}",
            on_head=None if is_tcp else lambda payload: self.heads.append(bytes(payload)),
        )

    def sent(self, index: int = 0) -> list[tuple[int, int, bytes]]:
        messages = self.links[index].batch.take()
        return [
            (kind, stream_id, bytes(payload))
            for message in messages
            for kind, stream_id, payload in frames.parse(message)
        ]

    def receive(self, kind: int, stream_id: int, payload: bytes = b"", *, index: int = 0) -> None:
        self.mux.receive(self.links[index], frames.serialize(kind, stream_id, payload))

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None: ...
    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None: ...
    def stream_stalled(self, stream: Stream) -> None: ...
    def stream_drained(self, stream: Stream) -> None: ...
    def stream_blocked(self, stream: Stream) -> None: ...
    def stream_unblocked(self, stream: Stream) -> None: ...


@pytest.mark.parametrize(
    ("size", "promised"), [(1, 65_536), (65_536, 65_536), (65_537, 131_072), (262_144, 262_144)]
)
def test_a_window_lets_whole_frames_through(size: int, promised: int) -> None:
    assert whole_window(size) == promised


def test_ids_begin_at_two_and_rise() -> None:
    kit = Kit()

    assert [kit.open().id, kit.open(1).id, kit.open().id] == [2, 3, 4]
    assert [kind for kind, _, _ in kit.sent()] == [frames.STREAM_OPEN] * 2


def test_every_stream_has_the_window_that_was_promised() -> None:
    kit = Kit()
    kit.budget.committed_bytes = kit.budget.limit_bytes

    assert kit.open().window.size == WINDOW


@pytest.mark.parametrize("index", [0, 1], ids=["own socket", "other socket"])
def test_a_head_is_taken_from_any_socket(index: int) -> None:
    kit = Kit()
    stream = kit.open(0)

    kit.receive(frames.STREAM_RESPONSE_HEAD, stream.id, b"head", index=index)
    kit.receive(frames.DATA, stream.id, b"body", index=index)

    assert kit.heads == [b"head"]
    assert kit.reader.data == b"body"


def test_a_head_on_a_tcp_stream_ends_the_stream_and_nothing_else() -> None:
    kit = Kit()
    stream = kit.open(is_tcp=True)
    kit.sent()

    kit.receive(frames.STREAM_RESPONSE_HEAD, stream.id, b"{}")

    assert kit.reader.resets[0][0] == Code.PROTOCOL_ERROR
    assert [kind for kind, _, _ in kit.sent()] == [frames.RESET]


def test_late_frames_of_a_dead_stream_are_ignored_and_credited() -> None:
    kit = Kit()
    stream = kit.open()
    stream.reset(Code.CANCEL)
    kit.sent()

    kit.receive(frames.STREAM_RESPONSE_HEAD, stream.id, b"{}")
    kit.receive(frames.DATA, stream.id, bytes(65_536))
    kit.receive(frames.DATA, stream.id, bytes(65_536))
    kit.receive(frames.EOF, stream.id)

    assert kit.heads == []
    assert kit.sent() == [(frames.WINDOW, 0, (131_072).to_bytes(4, "big"))]


@pytest.mark.parametrize("stream_id", [1, 99])
@pytest.mark.parametrize(
    "kind", [frames.STREAM_RESPONSE_HEAD, frames.DATA, frames.EOF, frames.WINDOW]
)
def test_a_frame_of_an_id_that_was_never_opened_ends_the_session(stream_id: int, kind: int) -> None:
    kit = Kit()
    kit.open()

    with pytest.raises(RemoteProtocolError):
        kit.receive(kind, stream_id, b"\0\0\0\1" if kind == frames.WINDOW else b"")


def test_credit_above_the_first_windows_is_clamped() -> None:
    kit = Kit()
    stream = kit.open()

    for stream_id in (0, stream.id):
        kit.receive(frames.WINDOW, stream_id, (2**31).to_bytes(4, "big"))
    stream.write(bytes(WINDOW + 65_536))
    messages = kit.links[0].take(1 << 20)

    sent = [p for m in messages for kind, _, p in frames.parse(m) if kind == frames.DATA]
    assert sum(map(len, sent)) == WINDOW
    assert kit.mux.send_credit == SESSION - WINDOW


def test_whoever_counts_streams_hears_of_each_end() -> None:
    kit = Kit()
    by_peer, by_us, by_both, by_link, by_session = (
        kit.open(), kit.open(), kit.open(), kit.open(1), kit.open()
    )  # fmt: skip

    kit.receive(frames.RESET, by_peer.id, b"\0\6")
    by_us.reset(Code.CANCEL)
    kit.receive(frames.EOF, by_both.id)
    by_both.write_eof()
    kit.mux.detach(kit.links[1], "gone")
    kit.mux.close(Code.STREAM_CLOSED, "over")

    assert kit.ended == [by_peer, by_us, by_both, by_link, by_session]
    assert kit.budget.committed_bytes == 0


def test_an_abandoned_stream_takes_and_credits_what_still_comes() -> None:
    kit = Kit()
    stream = kit.open()
    stream.pause_reading()
    kit.sent()

    stream.abandon(Code.CANCEL, "nobody waits")
    for _ in range(3):
        kit.receive(frames.DATA, stream.id, bytes(65_536))
    kit.receive(frames.EOF, stream.id)

    types = [(kind, stream_id) for kind, stream_id, _ in kit.sent()]
    assert types[0] == (frames.RESET, stream.id)
    assert types.count((frames.WINDOW, stream.id)) == 3
    assert types.count((frames.RESET, stream.id)) == 1
    assert kit.ended == [stream]


@pytest.mark.parametrize("end", [frames.EOF, frames.RESET])
def test_a_stream_that_the_driver_ended_is_not_abandoned_but_gone(end: int) -> None:
    kit = Kit()
    stream = kit.open()
    kit.receive(end, stream.id, b"\0\6" if end == frames.RESET else b"")

    stream.abandon(Code.CANCEL)
    stream.abandon(Code.CANCEL)

    assert kit.ended == [stream]


def test_a_prompt_stream_is_credited_frame_by_frame() -> None:
    kit = Kit()
    stream = kit.mux.open_stock(kit.links[0], kit.reader, b"{}", is_prompt=True)
    kit.sent()

    kit.receive(frames.DATA, stream.id, b"abc")
    stream.pause_reading()
    kit.receive(frames.DATA, stream.id, b"defg")
    stalled = kit.sent()
    stream.resume_reading()
    kit.receive(frames.DATA, stream.id, b"h")

    assert stalled == [(frames.WINDOW, stream.id, (3).to_bytes(4, "big"))]
    assert kit.sent() == [(frames.WINDOW, stream.id, (5).to_bytes(4, "big"))]


@pytest.mark.parametrize("is_prompt", [False, True], ids=["new", "old"])
@given(sizes=st.lists(st.sampled_from([0, 0, 1, 1000, 65_536]), max_size=12))
def test_credit_of_nothing_is_never_sent(is_prompt: bool, sizes: list[int]) -> None:
    # Of all that a server can say, this makes a driver of either generation close its session.
    kit = Kit()
    stream = kit.mux.open_stock(kit.links[0], kit.reader, b"{}", is_prompt=is_prompt)

    for size in sizes:
        kit.receive(frames.DATA, stream.id, bytes(size))
    stream.pause_reading()
    kit.receive(frames.DATA, stream.id)
    stream.resume_reading()
    kit.receive(frames.EOF, stream.id)
    stream.reset(Code.CANCEL)
    for size in sizes:
        kit.receive(frames.DATA, stream.id, bytes(size))

    granted = [payload for kind, _, payload in kit.sent() if kind == frames.WINDOW]
    assert bytes(4) not in granted


def test_a_driver_gets_no_more_at_once_than_it_keeps_before_its_service_answers() -> None:
    mib = 1024 * 1024
    kit = Kit(window=4 * mib, session=16 * mib)
    stream = kit.open(is_tcp=True)

    stream.write(bytes(2 * mib))
    kit.links[0].take(1 << 30)
    assert stream.queued_bytes == mib

    # Credit for what only waits there raises nothing either.
    kit.receive(frames.WINDOW, stream.id, (4 * mib).to_bytes(4, "big"))
    kit.links[0].take(1 << 30)
    assert stream.queued_bytes == 0
    stream.write(bytes(2 * mib))
    kit.links[0].take(1 << 30)
    assert stream.queued_bytes == 2 * mib
