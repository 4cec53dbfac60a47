from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helpers.pair import MuxPair, Reader, Side, frames_of
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import (
    HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_FRAMES,
    MAX_PAYLOAD_BYTES,
    Code,
    parse,
    serialize,
)
from moleport_wire.hoody.messages import StreamOpen
from moleport_wire.hoody.mux import MAX_STREAM_ID, QUANTUM_BYTES
from moleport_wire.hoody.streams import SMALL_BYTES, Stream

WINDOW = 256 * 1024
OPEN = StreamOpen(bind_id=1, peer="", window=WINDOW).encode()


def sizes(written: list[list[bytes]]) -> dict[int, list[int]]:
    """DATA sizes per stream."""
    found: dict[int, list[int]] = defaultdict(list)
    for kind, stream_id, payload in frames_of(written):
        if kind == frames.DATA:
            found[stream_id].append(len(payload))
    return found


def receive(side: Side, message: bytes, link: int = 0) -> None:
    side.mux.receive(side.links[link], message)


def test_streams_are_numbered_from_two_upwards() -> None:
    pair = MuxPair()

    assert [pair.open()[0].id for _ in range(3)] == [2, 3, 4]


def test_a_refused_stream_tells_why() -> None:
    pair = MuxPair()
    pair.driver.refuse_with = Code.REFUSED
    _, reader = pair.open()
    pair.settle()

    assert reader.resets == [(Code.REFUSED, "no such binding")]
    assert pair.kit.mux.open_streams == 0
    assert pair.kit.budget.committed_bytes == 0


def test_ids_are_never_reused() -> None:
    pair = MuxPair()
    pair.kit.mux._next_id = MAX_STREAM_ID
    assert pair.open()[0].id == MAX_STREAM_ID

    with pytest.raises(RemoteProtocolError, match="used up") as caught:
        pair.open()
    assert caught.value.code == Code.EXHAUSTED


def test_control_frames_go_to_the_owner_in_order() -> None:
    pair = MuxPair()

    receive(pair.kit, serialize(frames.PING, 0, b"1") + serialize(0x7E, 0, b"2"))

    assert pair.kit.controls == [(frames.PING, b"1"), (0x7E, b"2")]


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        pytest.param(serialize(frames.DATA, 0, b"x"), 1, "stream 0", id="DATA on 0"),
        pytest.param(serialize(frames.EOF, 0), 1, "stream 0", id="EOF on 0"),
        pytest.param(serialize(frames.RESET, 0, b"\0\1"), 1, "stream 0", id="RESET on 0"),
        pytest.param(serialize(frames.STREAM_RESPONSE_HEAD, 0), 1, "stream 0", id="head on 0"),
        pytest.param(serialize(frames.STREAM_OPEN, 0, OPEN), 1, "id 0", id="open of 0"),
        pytest.param(serialize(frames.STREAM_OPEN, 2, OPEN), 1, "id 2", id="open of a used id"),
        pytest.param(serialize(frames.DATA, 9, b"x"), 1, "stream 9", id="DATA of an unknown id"),
        pytest.param(serialize(frames.EOF, 9), 1, "stream 9", id="EOF of an unknown id"),
        pytest.param(serialize(frames.RESET, 9, b"\0\1"), 1, "stream 9", id="RESET of unknown"),
        pytest.param(
            serialize(frames.WINDOW, 9, b"\0\0\0\1"), 1, "stream 9", id="WINDOW of unknown"
        ),
        pytest.param(serialize(frames.WINDOW, 2, bytes(4)), 1, "WINDOW of 0", id="no credit"),
        pytest.param(
            serialize(frames.WINDOW, 0, bytes(4)), 1, "WINDOW of 0", id="no session credit"
        ),
        pytest.param(serialize(frames.WINDOW, 2, b"\0\0\1"), 1, "not 4 bytes", id="short WINDOW"),
        pytest.param(serialize(frames.WINDOW, 0, b"\0" * 5), 1, "not 4 bytes", id="long WINDOW"),
        pytest.param(serialize(frames.EOF, 2, b"x"), 1, "EOF with", id="EOF with a payload"),
        pytest.param(
            serialize(frames.RESET, 2, b"\0"), 1, "without a code", id="RESET without code"
        ),
        pytest.param(serialize(frames.STREAM_RESPONSE_HEAD, 2), 1, "byte stream 2", id="head"),
        pytest.param(
            serialize(frames.BIND, 2, b"{}"), 1, "0x03 on stream 2", id="BIND on a stream"
        ),
        pytest.param(serialize(frames.PING, 9), 1, "0x20 on stream 9", id="PING on a stream"),
        pytest.param(b"", 1, "empty", id="empty message"),
    ],
)
def test_what_breaks_the_protocol_ends_the_session(message: bytes, code: int, reason: str) -> None:
    pair = MuxPair()
    pair.open_both()

    with pytest.raises(RemoteProtocolError, match=reason) as caught:
        receive(pair.driver, message)
    assert caught.value.code == code


def test_a_kit_refuses_streams_of_a_driver() -> None:
    pair = MuxPair()

    with pytest.raises(RemoteProtocolError, match="STREAM_OPEN of id 2"):
        receive(pair.kit, serialize(frames.STREAM_OPEN, 2, OPEN))


@pytest.mark.parametrize("stream_id", [2, 999], ids=["open", "unknown"])
def test_an_extension_may_use_any_stream_id(stream_id: int) -> None:
    pair = MuxPair()
    pair.open_both()

    receive(pair.driver, serialize(0x70, stream_id, b"later"))


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(serialize(frames.DATA, 2, b"late"), id="DATA"),
        pytest.param(serialize(frames.EOF, 2), id="EOF"),
        pytest.param(serialize(frames.RESET, 2, b"\0\7"), id="RESET"),
        pytest.param(serialize(frames.WINDOW, 2, b"\0\0\0\1"), id="WINDOW"),
        pytest.param(serialize(frames.STREAM_RESPONSE_HEAD, 2, b"{}"), id="head"),
    ],
)
def test_late_frames_of_a_closed_stream_are_ignored(late: bytes) -> None:
    pair = MuxPair()
    ours, our_reader, _, their_reader = pair.open_both()
    ours.reset(Code.CANCEL)
    pair.settle()

    receive(pair.kit, late)
    receive(pair.driver, late)

    assert our_reader.data == their_reader.data == b""
    assert our_reader.resets == []


def test_session_credit_comes_back_for_bytes_that_nobody_takes() -> None:
    pair = MuxPair(session_window=MAX_PAYLOAD_BYTES)
    dead, *_ = pair.open_both()
    alive, _, _, reader = pair.open_both()

    for _ in range(20):
        dead, _, theirs, _ = pair.open_both()
        dead.write(bytes(MAX_PAYLOAD_BYTES // 2))
        pair.flush(pair.kit)
        theirs.reset(Code.CANCEL)
        pair.settle()

    assert pair.kit.mux.send_credit > 0
    alive.write(bytes(10 * MAX_PAYLOAD_BYTES))
    pair.settle()
    assert len(reader.data) == 10 * MAX_PAYLOAD_BYTES


def test_more_bytes_than_session_credit_end_the_session() -> None:
    pair = MuxPair(session_window=100)
    pair.open_both()

    with pytest.raises(RemoteProtocolError, match="session window exceeded") as caught:
        receive(pair.driver, serialize(frames.DATA, 2, bytes(101)))
    assert caught.value.code == Code.FLOW_CONTROL


def test_streams_that_wait_for_session_credit_go_on_with_it() -> None:
    pair = MuxPair(session_window=1000)
    streams = [pair.open_both() for _ in range(3)]

    for ours, *_ in streams:
        ours.write(bytes(5000))
    pair.settle()

    assert [len(reader.data) for *_, reader in streams] == [5000] * 3
    assert not pair.kit.links[0].has_more


def test_session_credit_wakes_the_links_that_waited_for_it() -> None:
    pair = MuxPair(links=2, session_window=1000)
    ours, *_ = pair.open_both(link=1)
    ours.write(bytes(1001))
    pair.flush(pair.kit)
    before = pair.kit.schedules

    receive(pair.kit, serialize(frames.WINDOW, 0, b"\0\0\0\1"))

    assert pair.kit.schedules == before + 1
    assert sizes(pair.flush(pair.kit)) == {ours.id: [1]}


def test_a_link_has_a_line_of_its_own_once_a_stream_waits() -> None:
    pair = MuxPair(links=3, session_window=1000)
    idle, *waiting = pair.kit.links
    streams = [pair.open_both(link=link.index)[0] for link in waiting]
    assert all(link.ready is idle.ready for link in waiting)

    for stream in streams:
        stream.write(bytes(1001))

    assert [list(link.ready) for link in pair.kit.links] == [[], *([s] for s in streams)]


def test_session_credit_is_clamped() -> None:
    pair = MuxPair()

    receive(pair.kit, serialize(frames.WINDOW, 0, b"\xff" * 4) * 3)

    assert pair.kit.mux.send_credit == 2**31 - 1


def test_a_small_stream_waits_for_one_quantum_at_most() -> None:
    pair = MuxPair()
    bulk, *_ = pair.open_both()
    small, *_ = pair.open_both()
    pair.kit.links[0].room = 0
    bulk.write(bytes(WINDOW))
    small.write(bytes(SMALL_BYTES + 1))  # not so small that it needs no room

    # As much room as makes one turn each.
    written = pair.flush(pair.kit, room=QUANTUM_BYTES + SMALL_BYTES + 1 + 2 * HEADER_BYTES)

    found = sizes(written)
    assert found[small.id] == [SMALL_BYTES + 1]
    assert sum(found[bulk.id]) == QUANTUM_BYTES


def test_streams_share_a_link_evenly() -> None:
    pair = MuxPair()
    streams = [pair.open_both()[0] for _ in range(5)]
    pair.kit.links[0].room = 0
    for stream in streams:
        stream.write(bytes(WINDOW))

    sent: dict[int, int] = defaultdict(int)
    while pair.kit.links[0].has_more:
        for stream_id, pieces in sizes(pair.flush(pair.kit, room=QUANTUM_BYTES)).items():
            sent[stream_id] += sum(pieces)
        assert max(sent.values()) - min(sent[s.id] for s in streams) <= QUANTUM_BYTES

    assert set(sent.values()) == {WINDOW}


def test_a_link_writes_what_it_has_room_for_and_control_frames_always() -> None:
    pair = MuxPair()
    bulk, *_ = pair.open_both()
    pair.kit.links[0].room = 0
    bulk.write(bytes(WINDOW))
    pair.kit.links[0].send(frames.PING, 0, bytes(8))

    written = list(frames_of(pair.flush(pair.kit, room=0)))

    assert [kind for kind, _, _ in written] == [frames.PING]
    assert pair.kit.links[0].has_more


def test_a_link_asks_for_one_turn_per_tick() -> None:
    pair = MuxPair()
    link = pair.kit.links[0]
    before = pair.kit.schedules

    link.send(frames.PING, 0, bytes(8))
    link.send(frames.PING, 0, bytes(8))
    link.wake()
    assert pair.kit.schedules == before + 1
    pair.flush(pair.kit)
    link.wake()
    assert pair.kit.schedules == before + 2


def test_ids_of_different_links_may_come_out_of_order() -> None:
    pair = MuxPair(links=2)
    first, _ = pair.open(link=0)
    second, _ = pair.open(link=1)
    first.write(b"one")
    second.write(b"two")
    pair.flush(pair.kit)

    while pair.deliver(pair.driver, 1):
        pass
    while pair.deliver(pair.driver, 0):
        pass

    assert pair.driver.opened[first.id][1].data == b"one"
    assert pair.driver.opened[second.id][1].data == b"two"


@pytest.mark.parametrize("link", [0, 1], ids=["same link", "other link"])
def test_an_open_id_cannot_be_opened_again(link: int) -> None:
    pair = MuxPair(links=2)
    pair.open_both()

    with pytest.raises(RemoteProtocolError, match="STREAM_OPEN of id 2"):
        receive(pair.driver, serialize(frames.STREAM_OPEN, 2, OPEN), link)


def test_a_lost_link_takes_its_streams_and_no_others() -> None:
    pair = MuxPair(links=2)
    kept, kept_reader, *_ = pair.open_both(link=0)
    lost, lost_reader, *_ = pair.open_both(link=1)
    lost.write(bytes(4 * WINDOW))

    pair.kit.mux.detach(pair.kit.links[1], "cut")
    pair.kit.mux.detach(pair.kit.links[1], "cut")

    assert lost_reader.resets == [(Code.STREAM_CLOSED, "cut")]
    assert kept_reader.resets == []
    assert kept.is_open
    assert not pair.kit.links[1].has_more


def test_the_end_of_a_session_ends_every_stream_once() -> None:
    pair = MuxPair()
    readers = [pair.open_both()[1] for _ in range(3)]

    pair.kit.mux.close(Code.CANCEL, "over")
    pair.kit.mux.close(Code.CANCEL, "over")

    assert [reader.resets for reader in readers] == [[(Code.CANCEL, "over")]] * 3
    assert pair.kit.budget.committed_bytes == 0
    # Bytes that were under way when it ended are nobody's.
    receive(pair.kit, serialize(frames.DATA, 2, bytes(MAX_PAYLOAD_BYTES)) * 3)
    for _ in range(20):
        receive(pair.kit, serialize(frames.DATA, 2, bytes(MAX_PAYLOAD_BYTES)))


def test_the_end_of_one_stream_may_end_another() -> None:
    pair = MuxPair()
    first, *_ = pair.open_both()
    second, second_reader, *_ = pair.open_both()

    class Linked(Reader):
        def stream_reset(self, code: int, reason: str) -> None:
            super().stream_reset(code, reason)
            second.reset(Code.CANCEL)

    first.receiver = Linked()
    pair.kit.mux.close(Code.CANCEL, "over")

    assert first.receiver.resets == [(Code.CANCEL, "over")]
    assert second_reader.resets == []


def test_the_longest_stalled_stream_is_the_first() -> None:
    pair = MuxPair()
    streams = [pair.open_both() for _ in range(3)]
    for index in (1, 0, 2):
        ours, _, theirs, _ = streams[index]
        theirs.pause_reading()
        ours.write(b"x")
        pair.settle()

    assert list(pair.driver.mux.stalled_streams) == [streams[i][2] for i in (1, 0, 2)]


class Wire(RuleBasedStateMachine):
    """Any interleaving of writes, ends, resets, stalls, turns and deliveries on a pair of muxes."""

    @initialize(
        links=st.integers(1, 3),
        session_window=st.sampled_from([1000, 70_000, 16 * 1024 * 1024]),
        stream_window=st.sampled_from([1, 500, 20_000, 262_144]),
        budget=st.sampled_from([100_000, 64 * 1024 * 1024]),
    )
    def start(self, links: int, session_window: int, stream_window: int, budget: int) -> None:
        self.pair = MuxPair(
            links=links,
            session_window=session_window,
            stream_window=stream_window,
            first_window=stream_window,
            budget_bytes=budget,
        )
        self.streams: list[tuple[Stream, Reader]] = []
        self.written: dict[tuple[str, int], bytearray] = defaultdict(bytearray)
        self.ended: set[tuple[str, int]] = set()
        self.reset_ids: set[int] = set()
        self.count = 0

    def ends(self) -> list[tuple[str, Stream, Reader]]:
        ours = [("kit", stream, reader) for stream, reader in self.streams]
        theirs = [("driver", s, r) for s, r in self.pair.driver.opened.values()]
        return ours + theirs

    @rule(link=st.integers(0, 2))
    def open(self, link: int) -> None:
        if len(self.streams) < 6:
            self.streams.append(self.pair.open(link % len(self.pair.kit.links)))

    @rule(pick=st.integers(0, 100), size=st.integers(0, 100_000), pieces=st.integers(1, 4))
    def write(self, pick: int, size: int, pieces: int) -> None:
        for name, stream, _ in self.picked(pick):
            for _ in range(pieces):
                self.count += 1
                data = (self.count.to_bytes(4, "big") * (size // 4 + 1))[:size]
                if stream.is_open:
                    self.written[name, stream.id] += data
                stream.write(data)

    @rule(pick=st.integers(0, 100))
    def end(self, pick: int) -> None:
        for name, stream, _ in self.picked(pick):
            if stream.is_open:
                self.ended.add((name, stream.id))
            stream.write_eof()

    @rule(pick=st.integers(0, 100))
    def reset(self, pick: int) -> None:
        for _, stream, _ in self.picked(pick):
            self.reset_ids.add(stream.id)
            stream.reset(Code.CANCEL, "test")

    @rule(pick=st.integers(0, 100))
    def stall(self, pick: int) -> None:
        for _, stream, _ in self.picked(pick):
            stream.pause_reading()

    @rule(pick=st.integers(0, 100))
    def go_on(self, pick: int) -> None:
        for _, stream, _ in self.picked(pick):
            stream.resume_reading()

    @rule(is_kit=st.booleans(), room=st.sampled_from([0, 1, 5000, 262_144]))
    def take_turn(self, is_kit: bool, room: int) -> None:
        written = self.pair.flush(self.pair.kit if is_kit else self.pair.driver, room=room)
        for due in written:
            for message in due:
                assert len(message) <= MAX_MESSAGE_BYTES
                assert len(list(parse(message))) <= MAX_MESSAGE_FRAMES
        found = sizes(written)
        # A round gives nobody more than a quantum; bytes that had room at once came before it.
        assert all(size <= MAX_PAYLOAD_BYTES for pieces in found.values() for size in pieces)

    @rule(is_kit=st.booleans(), link=st.integers(0, 2))
    def deliver(self, is_kit: bool, link: int) -> None:
        side = self.pair.kit if is_kit else self.pair.driver
        self.pair.deliver(side, link % len(side.links))

    def picked(self, pick: int) -> list[tuple[str, Stream, Reader]]:
        ends = self.ends()
        return [ends[pick % len(ends)]] if ends else []

    @invariant()
    def credit_is_never_negative(self) -> None:
        for side in (self.pair.kit, self.pair.driver):
            assert side.mux.send_credit >= 0
            assert side.mux._receive_credit >= 0
            assert side.budget.held_bytes >= 0
        for _, stream, _ in self.ends():
            assert stream._send_credit >= 0
            assert stream.window.credit >= 0

    @invariant()
    def bytes_arrive_in_order_and_once(self) -> None:
        for name, stream, reader in self.ends():
            sender = "driver" if name == "kit" else "kit"
            assert self.written[sender, stream.id].startswith(reader.data)
            assert reader.eofs + len(reader.resets) <= 2
            if reader.eofs:
                assert reader.data == self.written[sender, stream.id]
                assert (sender, stream.id) in self.ended

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        pair.settle()
        for _, stream, _ in self.ends():
            stream.resume_reading()
        pair.settle()
        for name, stream, reader in self.ends():
            sender = "driver" if name == "kit" else "kit"
            if stream.id not in self.reset_ids:
                assert reader.data == self.written[sender, stream.id]
                assert reader.eofs == ((sender, stream.id) in self.ended)
        for _, stream, _ in self.ends():
            stream.write_eof()
        pair.settle()
        for side in (pair.kit, pair.driver):
            assert side.mux.open_streams == 0
            assert (side.budget.committed_bytes, side.budget.held_bytes) == (0, 0)
            assert not side.stalled
            assert not side.blocked
        # Every byte of session credit is with its sender, or not yet worth a frame.
        for one, other in ((pair.kit.mux, pair.driver.mux), (pair.driver.mux, pair.kit.mux)):
            assert one.session_window - one.send_credit == other._unacknowledged


TestWire = Wire.TestCase
TestWire.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)
