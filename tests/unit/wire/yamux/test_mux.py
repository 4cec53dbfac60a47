from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from helpers.pair import Reader
from helpers.yamux_pair import ROOM_BYTES, WINDOW, Frame, Side, YamuxPair, frames_of
from moleport_wire.errors import RemoteProtocolError, StreamBusy, TransportLost
from moleport_wire.hoody.frames import Code
from moleport_wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    MAX_BODY_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW_BYTES,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    GoAwayCode,
    serialize,
)
from moleport_wire.yamux.mux import (
    EARLY_FRAMES,
    MAX_STREAMS,
    MAX_UNACKNOWLEDGED,
    MAX_UNREAD_ANSWERS,
    MAX_WAITING,
    QUANTUM_BYTES,
    Mux,
)
from moleport_wire.yamux.streams import Stream

PREFACE = bytes(range(16))
CLIENT_LIMIT = 512
CLIENT_BACKLOG = 256


def pongs(side: Side) -> list[Frame]:
    return [frame for frame in side.frames() if frame.kind == PING]


def test_our_limits_are_below_those_of_the_stock_client() -> None:
    assert 2 * MAX_STREAMS <= CLIENT_LIMIT
    assert MAX_UNACKNOWLEDGED < CLIENT_BACKLOG


def test_the_reference_page_tells_our_limits() -> None:
    page = (Path(__file__).parents[4] / "docs" / "reference" / "yamux.md").read_text()
    told = [row.split("|")[2].strip() for row in page.split("## Bounds")[1].splitlines()[4:13]]

    assert told == [
        f"{MAX_STREAMS}",
        f"{MAX_UNACKNOWLEDGED}",
        f"{MAX_WAITING:,}",
        f"{WINDOW:,} bytes",
        f"up to {MAX_WINDOW_BYTES:,} bytes",
        f"{MAX_BODY_BYTES:,} bytes",
        f"{MAX_MESSAGE_BYTES:,} bytes",
        f"{MAX_UNREAD_ANSWERS}",
        f"{QUANTUM_BYTES:,} bytes",
    ]


@pytest.mark.parametrize(
    ("is_client", "expected"), [(True, [1, 3, 5]), (False, [2, 4, 6])], ids=["client", "server"]
)
def test_ids_rise_and_tell_who_opened(is_client: bool, expected: list[int]) -> None:
    side = Side(is_client=is_client)

    assert [side.open()[0].id for _ in expected] == expected


def test_ids_are_not_used_twice() -> None:
    side = Side()
    side.open()[0].reset(Code.CANCEL)
    side.open()
    side.mux.receive(serialize(DATA, RST, 3))

    assert side.open()[0].id == 5


def test_when_all_ids_are_used_the_connection_has_to_be_renewed() -> None:
    side = Side()
    side.mux._next_id = MAX_STREAM_ID

    assert side.open()[0].id == MAX_STREAM_ID
    with pytest.raises(RemoteProtocolError, match="used up"):
        side.open()


# What comes in, section by section of the protocol

STREAM_1 = [
    (DATA, ACK, 4, b"body"),
    (WINDOW_UPDATE, 0, 77, b""),
    (DATA, 0, 0, b""),
    (DATA, FIN, 3, b"end"),
]


@pytest.mark.parametrize("size", [1, 2, 5, 11, 12, 13, 17, 1000])
def test_frames_may_be_cut_anywhere_and_share_messages(size: int) -> None:
    side = Side()
    stream, reader = side.open()
    stream.write(bytes(WINDOW))
    while side.take():
        pass
    data = serialize(PING, SYN, 0, 9)
    data += b"".join(
        serialize(kind, flags, 1, length, body) for kind, flags, length, body in STREAM_1
    )
    data += serialize(PING, SYN, 0, 8)

    for position in range(0, len(data), size):
        side.mux.receive(data[position : position + size])

    assert (bytes(reader.data), reader.eofs) == (b"bodyend", 1)
    assert stream.is_acknowledged
    assert pongs(side) == [Frame(PING, ACK, 0, 9), Frame(PING, ACK, 0, 8)]


def test_large_bodies_are_handed_on_without_a_copy() -> None:
    side = Side()
    stream, _ = side.open()
    taken: list[bytes | memoryview] = []

    class Keeps(Reader):
        def stream_data(self, data: bytes | memoryview) -> None:
            taken.append(data)

    stream.receiver = Keeps()
    message = bytes(8000)
    side.mux.receive(serialize(DATA, ACK, 1, 16_000))
    side.mux.receive(message)
    framed = bytes(8000) + serialize(DATA, 0, 1, body=bytes(5000))
    side.mux.receive(framed)

    assert taken[0] is message
    assert [isinstance(piece, memoryview) and piece.obj is framed for piece in taken[1:]] == [
        True,
        True,
    ]


PINGED = [
    pytest.param(serialize(PING, SYN, 0, 0), [0], id="nonce 0"),
    pytest.param(serialize(PING, SYN, 0, 0xFFFFFFFF), [0xFFFFFFFF], id="largest nonce"),
    pytest.param(serialize(PING, SYN, 0, 5) * 2, [5, 5], id="the same twice"),
    pytest.param(serialize(PING, ACK, 0, 5), [], id="an answer nobody asked for"),
    pytest.param(serialize(PING, 0, 0, 5), [], id="neither question nor answer"),
]


@pytest.mark.parametrize(("data", "nonces"), PINGED)
def test_each_ping_is_answered_exactly_once(data: bytes, nonces: list[int]) -> None:
    side = Side()

    side.mux.receive(data)

    assert pongs(side) == [Frame(PING, ACK, 0, nonce) for nonce in nonces]
    assert side.frames() == []


def test_a_peer_that_asks_and_never_reads_is_stopped() -> None:
    side = Side()
    ping = serialize(PING, SYN, 0, 1)
    side.mux.receive(ping * MAX_UNREAD_ANSWERS)
    side.take(room=0)

    assert side.fails(ping).code == GoAwayCode.PROTOCOL_ERROR


def test_a_peer_that_reads_may_ask_again() -> None:
    side = Side()
    ping = serialize(PING, SYN, 0, 1)

    for _ in range(3):
        side.mux.receive(ping * MAX_UNREAD_ANSWERS)
        assert len(pongs(side)) == MAX_UNREAD_ANSWERS


@pytest.mark.parametrize("code", [0, 1, 2, 99])
def test_any_goaway_ends_the_connection_and_what_follows_is_ignored(code: int) -> None:
    side = Side()
    _, reader = side.open()
    side.take()

    side.mux.receive(serialize(GO_AWAY, 0, 0, code) + serialize(DATA, 0, 1, body=b"late"))
    side.mux.receive(b"\xff" * 20)
    with pytest.raises(TransportLost):
        side.open()

    assert side.goaways == [code]
    assert reader.data == b""
    assert side.frames() == []


VIOLATIONS = [
    pytest.param(b"\1" + serialize(PING, SYN, 0)[1:], "version 1", id="other version"),
    pytest.param(serialize(4, 0, 0), "type 4", id="unknown type"),
    pytest.param(serialize(PING, SYN, 1), "on stream 1", id="PING on a stream"),
    pytest.param(serialize(GO_AWAY, 0, 3), "on stream 3", id="GO_AWAY on a stream"),
    pytest.param(serialize(DATA, 0, 0, body=b"x"), "stream 0", id="DATA without a stream"),
    pytest.param(serialize(WINDOW_UPDATE, 0, 0, 1), "stream 0", id="credit without a stream"),
    pytest.param(serialize(DATA, SYN, 0), "stream 0", id="SYN without a stream"),
    pytest.param(serialize(DATA, SYN, 1), "stream 1", id="SYN for a live stream of ours"),
    pytest.param(serialize(DATA, SYN, 7), "stream 7", id="SYN with our parity"),
    pytest.param(serialize(DATA, ACK, 1, WINDOW + 1), "window", id="more than the window"),
    pytest.param(
        serialize(DATA, ACK, 1, body=bytes(WINDOW // 2 - 1))
        + serialize(DATA, 0, 1, WINDOW // 2 + 2),
        "window",
        id="more than the rest of the window",
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\n", "version 72", id="another protocol"),
]


@pytest.mark.parametrize(("data", "reason"), VIOLATIONS)
@pytest.mark.parametrize("is_cut", [False, True], ids=["whole", "byte by byte"])
def test_what_breaks_the_rules_ends_the_connection(data: bytes, reason: str, is_cut: bool) -> None:
    side = Side()
    side.open()
    side.take()
    pieces = [data[n : n + 1] for n in range(len(data))] if is_cut else [data]

    with pytest.raises(RemoteProtocolError, match=reason):
        list(map(side.mux.receive, pieces))

    assert all(frame.kind != GO_AWAY for frame in side.frames())


IGNORED = [
    pytest.param(serialize(DATA, 0, 9, body=b"late"), id="bytes"),
    pytest.param(serialize(DATA, FIN, 9), id="end"),
    pytest.param(serialize(DATA, RST, 9), id="reset"),
    pytest.param(serialize(DATA, ACK, 9), id="acknowledgement"),
    pytest.param(serialize(WINDOW_UPDATE, 0, 9, 5), id="credit"),
    pytest.param(serialize(WINDOW_UPDATE, RST, 9, 5), id="credit with reset"),
    pytest.param(serialize(DATA, 0, 9, body=bytes(3 * WINDOW)), id="more than a window"),
]


@pytest.mark.parametrize("data", IGNORED)
def test_frames_for_streams_that_are_not_there_are_ignored(data: bytes) -> None:
    side = Side()
    _, reader = side.open()
    side.take()

    side.mux.receive(data + serialize(DATA, ACK, 1, body=b"heard"))

    assert reader.data == b"heard"
    assert side.frames() == []


# Streams of the peer


def test_a_server_takes_odd_streams_with_their_first_bytes() -> None:
    side = Side(is_client=False)

    side.mux.receive(serialize(DATA, SYN | FIN, 1, body=b"all"))

    _, reader = side.opened[1]
    assert (bytes(reader.data), reader.eofs) == (b"all", 1)


def test_credit_that_opens_a_stream_comes_on_top_of_the_first_window() -> None:
    side = Side(is_client=False)
    side.mux.receive(serialize(WINDOW_UPDATE, SYN, 1, 1000))
    stream, _ = side.opened[1]

    stream.write(bytes(2 * WINDOW))
    sent = 0
    while frames := side.frames():
        sent += sum(frame.length for frame in frames)

    assert sent == WINDOW + 1000


def test_a_refused_stream_is_reset_and_its_bytes_are_dropped() -> None:
    side = Side(is_client=False, refuses=True)

    side.mux.receive(serialize(DATA, SYN, 1, body=b"body") + serialize(WINDOW_UPDATE, SYN, 3, 9))

    assert side.frames() == [Frame(DATA, RST, 1, 0), Frame(DATA, RST, 3, 0)]
    assert side.mux.open_streams == 0


def test_a_peer_that_wants_refusals_and_never_reads_is_stopped() -> None:
    side = Side(is_client=False, refuses=True)

    for number in range(MAX_UNREAD_ANSWERS):
        side.mux.receive(serialize(DATA, SYN, 2 * number + 1))

    assert side.fails(serialize(DATA, SYN, 2 * MAX_UNREAD_ANSWERS + 1)).code == 1


@pytest.mark.parametrize("stream_id", [1, 3], ids=["finished", "lower than the last"])
def test_ids_of_the_peer_only_rise(stream_id: int) -> None:
    side = Side(is_client=False)
    side.mux.receive(serialize(DATA, SYN, 1) + serialize(DATA, RST, 1) + serialize(DATA, SYN, 5))

    side.fails(serialize(DATA, SYN, stream_id))


def test_one_stream_of_the_peer_too_many_ends_the_connection() -> None:
    side = Side(is_client=False, limits={"max_streams": 2})
    side.mux.receive(serialize(DATA, SYN, 1) + serialize(DATA, SYN, 3))

    assert side.fails(serialize(DATA, SYN, 5)).code == GoAwayCode.INTERNAL_ERROR


def test_streams_of_the_peer_need_no_place_of_ours() -> None:
    side = Side(is_client=False)
    for number in range(MAX_STREAMS):
        side.mux.receive(serialize(DATA, SYN, 2 * number + 1))
        side.opened[2 * number + 1][0].reset(Code.CANCEL)

    assert all(frame.kind == DATA for frame in side.frames())
    assert not side.open()[0].is_waiting


# Places


def test_streams_above_the_backlog_wait_until_one_is_acknowledged() -> None:
    side = Side(limits={"max_unacknowledged": 2})
    streams = [side.open()[0] for _ in range(4)]
    assert [stream.is_waiting for stream in streams] == [False, False, True, True]
    assert list(side.mux.waiting_streams) == streams[2:]
    assert side.mux.open_streams == 4

    side.mux.receive(serialize(WINDOW_UPDATE, ACK, 1, 0))
    side.mux.receive(serialize(WINDOW_UPDATE, ACK, 1, 0))

    assert [stream.id for stream in streams] == [1, 3, 5, 0]
    side.mux.receive(serialize(DATA, RST, 3))
    assert [stream.id for stream in streams] == [1, 3, 5, 7]
    assert [frame.stream_id for frame in side.frames()] == [1, 3, 5, 7]


def test_a_new_stream_does_not_pass_those_that_wait() -> None:
    side = Side(limits={"max_streams": 1})
    side.open()
    second, _ = side.open()
    side.mux.receive(serialize(DATA, RST, 1))
    third, _ = side.open()

    assert (second.id, third.is_waiting) == (3, True)


def test_more_than_may_wait_are_refused() -> None:
    side = Side(limits={"max_streams": 1, "max_waiting": 2})
    for _ in range(3):
        side.open()

    with pytest.raises(StreamBusy, match="2 streams wait"):
        side.open()
    assert side.budget.committed_bytes == WINDOW


def test_a_stream_takes_its_window_from_the_budget_of_all_only_once_it_is_open() -> None:
    side = Side(limits={"max_streams": 1})
    first, second, third = (side.open()[0] for _ in range(3))
    second.reset(Code.CANCEL)
    assert side.budget.committed_bytes == WINDOW

    side.mux.receive(serialize(DATA, RST, first.id))
    assert not third.is_waiting
    assert side.budget.committed_bytes == WINDOW
    # The peer may use it up, and not more.
    side.mux.receive(serialize(DATA, ACK, third.id, body=bytes(WINDOW // 2 - 1)))
    assert third.window.credit == WINDOW // 2 + 1

    third.reset(Code.CANCEL)
    assert side.budget.committed_bytes == 0


def test_the_place_of_a_stream_that_we_reset_is_free_once_the_peer_answered_a_ping() -> None:
    side = Side(limits={"max_streams": 4})
    streams = [side.open()[0] for _ in range(4)]
    for stream in streams:
        stream.reset(Code.CANCEL)
    side.frames()
    new = [side.open()[0] for _ in range(4)]
    assert all(stream.is_waiting for stream in new)

    # The first reset asked already; what was reset after that is covered by the next question.
    side.mux.receive(serialize(PING, ACK, 0, 1))
    assert [stream.is_waiting for stream in new] == [False, True, True, True]
    assert Frame(PING, SYN, 0, 2) in side.frames()
    side.mux.receive(serialize(PING, ACK, 0, 1))
    assert new[1].is_waiting
    side.mux.receive(serialize(PING, ACK, 0, 2))

    assert not any(stream.is_waiting for stream in new)


def test_the_place_of_a_stream_that_the_peer_reset_is_free_at_once() -> None:
    side = Side(limits={"max_streams": 1})
    side.open()
    side.take()

    side.mux.receive(serialize(DATA, RST, 1))

    assert not side.open()[0].is_waiting
    assert all(frame.kind == DATA for frame in side.frames())


@pytest.mark.parametrize("is_ours_first", [True, False], ids=["ours first", "theirs first"])
def test_of_two_ends_the_one_that_the_peer_has_yet_to_hear_keeps_the_place(
    is_ours_first: bool,
) -> None:
    side = Side(limits={"max_streams": 1})
    stream, _ = side.open()
    if is_ours_first:
        stream.write_eof()
    side.mux.receive(serialize(DATA, ACK | FIN, 1))
    stream.write_eof()

    assert side.open()[0].is_waiting is not is_ours_first


def test_few_ends_ask_for_nothing() -> None:
    side = Side()

    for _ in range(MAX_STREAMS // 4 - 1):
        side.open()[0].reset(Code.CANCEL)
    assert pongs(side) == []
    side.open()[0].reset(Code.CANCEL)

    assert pongs(side) == [Frame(PING, SYN, 0, 1)]


def test_bursts_of_aborts_and_requests_never_show_the_peer_too_many_streams() -> None:
    side = Side()
    held: set[int] = set()
    ended: set[int] = set()
    most = 0

    def answer() -> bytes:
        """A peer that forgets an ended stream as late as it may: when it answers a ping."""
        nonlocal most
        answers = b""
        for frame in side.frames():
            if frame.flags & SYN and frame.kind == DATA:
                held.add(frame.stream_id)
                most = max(most, len(held))
            elif frame.flags & RST:
                ended.add(frame.stream_id)
            elif frame.kind == PING:
                answers += serialize(PING, ACK, 0, frame.length)
                held.difference_update(ended)
        return answers

    for _ in range(5):
        streams = [side.open()[0] for _ in range(2 * MAX_STREAMS)]
        answers = answer()
        for stream in streams:
            stream.reset(Code.CANCEL)
        answers += answer()
        while answers:
            side.mux.receive(answers)
            answers = answer()

    assert most <= MAX_STREAMS
    assert held <= ended
    assert side.mux.open_streams == 0


# Writing


def test_the_owner_is_asked_for_one_turn_per_tick() -> None:
    side = Side()
    stream, _ = side.open()
    stream.write(b"one")
    stream.write(b"two")
    side.mux.receive(serialize(PING, SYN, 0, 1))
    assert side.schedules == 1

    side.take()
    stream.write(b"three")

    assert side.schedules == 2


def test_much_in_one_tick_is_offered_early() -> None:
    side = Side()
    early: list[int] = []

    def write_early() -> None:
        early.append(len(mux.batch.take()))

    mux = Mux(side, side.budget, side.schedule, write_early)
    for _ in range(EARLY_FRAMES + 1):
        mux.open(Reader())

    assert early == [1]
    assert mux.batch.frames == 1


def test_without_room_only_small_frames_leave() -> None:
    side = Side()
    stream, _ = side.open()
    side.take()
    side.mux.room = 0

    stream.write(b"bulk")
    side.mux.receive(serialize(PING, SYN, 0, 1))

    assert side.frames(room=0) == [Frame(PING, ACK, 0, 1)]
    assert side.mux.has_more
    assert side.frames() == [Frame(DATA, 0, 1, 4, b"bulk")]
    assert not side.mux.has_more


def test_streams_take_turns() -> None:
    side = Side()
    streams = [side.open()[0] for _ in range(3)]
    side.take()
    side.mux.room = 0
    for stream in streams:
        stream.write(bytes(2 * QUANTUM_BYTES))

    turns = [(frame.stream_id, frame.length) for frame in side.frames()]

    assert turns == [(stream_id, QUANTUM_BYTES) for stream_id in (1, 3, 5)] * 2


def test_a_turn_is_spread_over_many_small_writes_and_bounded_by_room() -> None:
    side = Side()
    stream, _ = side.open()
    side.take()
    side.mux.room = 0
    for _ in range(100):
        stream.write(bytes(1000))

    sent = sum(frame.length for frame in side.frames(room=1))

    assert sent == QUANTUM_BYTES


def test_a_small_answer_waits_for_one_quantum_of_its_neighbour_at_most() -> None:
    side = Side()
    bulk, small = side.open()[0], side.open()[0]
    side.take()
    side.mux.room = 0
    bulk.write(bytes(WINDOW // 2))
    small.write(b"answer")

    frames = side.frames()
    position = next(n for n, frame in enumerate(frames) if frame.stream_id == small.id)

    assert sum(frame.length for frame in frames[:position]) <= QUANTUM_BYTES


# The end


def test_closing_ends_every_stream_without_a_word() -> None:
    side = Side(limits={"max_streams": 2})
    readers = [side.open()[1] for _ in range(3)]
    next(iter(side.mux._streams.values())).write(bytes(2 * WINDOW))
    side.take()

    side.mux.close(Code.STREAM_CLOSED, "the client is gone")
    side.mux.close(Code.STREAM_CLOSED, "again")

    assert [reader.resets for reader in readers] == [
        [(Code.STREAM_CLOSED, "the client is gone")]
    ] * 3
    assert (side.mux.open_streams, side.budget.committed_bytes) == (0, 0)
    assert side.blocked == side.stalled == set()
    assert side.frames() == []
    with pytest.raises(TransportLost):
        side.open()


def test_a_receiver_that_opens_another_stream_at_the_end_is_told() -> None:
    side = Side()
    told: list[str] = []

    class Retries(Reader):
        def stream_reset(self, code: int, reason: str) -> None:
            with pytest.raises(TransportLost) as caught:
                side.open()
            told.append(str(caught.value))

    side.mux.open(Retries())

    side.mux.close(Code.STREAM_CLOSED, "gone")

    assert told == ["the data channel is gone"]


def test_the_end_of_one_stream_may_end_another() -> None:
    side = Side()
    first, _ = side.open()
    second, second_reader = side.open()

    class Linked(Reader):
        def stream_reset(self, code: int, reason: str) -> None:
            super().stream_reset(code, reason)
            second.reset(Code.CANCEL)

    first.receiver = Linked()
    side.mux.close(Code.STREAM_CLOSED, "over")

    assert first.receiver.resets == [(Code.STREAM_CLOSED, "over")]
    assert second_reader.resets == []
    assert side.budget.committed_bytes == 0


def test_room_is_what_the_port_says() -> None:
    side = Side()
    stream, _ = side.open()

    stream.write(bytes(1000))

    assert side.mux.room == ROOM_BYTES - 1000 - 2 * 12


# Two ends back to back


class Wire(RuleBasedStateMachine):
    """Any interleaving of writes, ends, resets, stalls, turns and cuts between a client and a server."""

    @initialize(
        max_streams=st.integers(1, 4),
        max_unacknowledged=st.integers(1, 4),
        budget=st.sampled_from([100_000, 64 * 1024 * 1024]),
    )
    def start(self, max_streams: int, max_unacknowledged: int, budget: int) -> None:
        self.pair = YamuxPair(
            max_streams=max_streams, max_unacknowledged=max_unacknowledged, max_waiting=3
        )
        self.max_streams = max_streams
        for side in (self.pair.client, self.pair.server):
            side.budget.limit_bytes = budget
        self.streams: list[tuple[Stream, Reader]] = []
        self.written: defaultdict[Stream, bytearray] = defaultdict(bytearray)
        self.ended: set[Stream] = set()
        self.reset: set[Stream] = set()
        self.count = 0

    def ends(self) -> list[tuple[Stream, Reader]]:
        return [*self.streams, *self.pair.server.opened.values()]

    def picked(self, pick: int) -> list[Stream]:
        ends = self.ends()
        return [ends[pick % len(ends)][0]] if ends else []

    def peer_of(self, stream: Stream) -> Stream | None:
        """The other end, None while it has not heard of the stream."""
        if any(stream is ours for ours, _ in self.streams):
            return self.pair.server.opened.get(stream.id, (None,))[0]
        return next(ours for ours, _ in self.streams if ours.id == stream.id)

    @rule()
    def open(self) -> None:
        if len(self.streams) < 8 and len(self.pair.client.mux.waiting_streams) < 3:
            stream, reader = self.pair.client.open(PREFACE)
            self.written[stream] += PREFACE
            self.streams.append((stream, reader))

    @rule(pick=st.integers(0, 100), size=st.integers(0, 100_000), pieces=st.integers(1, 4))
    def write(self, pick: int, size: int, pieces: int) -> None:
        for stream in self.picked(pick):
            for _ in range(pieces):
                self.count += 1
                data = (self.count.to_bytes(4, "big") * (size // 4 + 1))[:size]
                if stream.is_open:
                    self.written[stream] += data
                stream.write(data)

    @rule(pick=st.integers(0, 100))
    def end(self, pick: int) -> None:
        for stream in self.picked(pick):
            if stream.is_open:
                self.ended.add(stream)
            stream.write_eof()

    @rule(pick=st.integers(0, 100))
    def abandon(self, pick: int) -> None:
        for stream in self.picked(pick):
            self.reset.add(stream)
            stream.reset(Code.CANCEL, "test")

    @rule(pick=st.integers(0, 100))
    def stall(self, pick: int) -> None:
        for stream in self.picked(pick):
            stream.pause_reading()

    @rule(pick=st.integers(0, 100))
    def go_on(self, pick: int) -> None:
        for stream in self.picked(pick):
            stream.resume_reading()

    @rule(is_client=st.booleans(), room=st.sampled_from([0, 1, 5000, 262_144]))
    def take_turn(self, is_client: bool, room: int) -> None:
        side = self.pair.client if is_client else self.pair.server
        for message in self.pair.flush(side, room):
            assert len(message) <= MAX_MESSAGE_BYTES
            assert all(
                frame.length <= MAX_BODY_BYTES for frame in frames_of([message]) if frame.body
            )

    @rule(is_client=st.booleans(), size=st.none() | st.integers(1, 40))
    def deliver(self, is_client: bool, size: int | None) -> None:
        self.pair.deliver(self.pair.client if is_client else self.pair.server, size)

    @invariant()
    def credit_is_never_negative(self) -> None:
        for side in (self.pair.client, self.pair.server):
            assert side.budget.held_bytes >= 0
        for stream, _ in self.ends():
            assert stream._send_credit >= 0
            assert stream.window.credit >= 0

    @invariant()
    def windows_are_those_of_open_streams(self) -> None:
        opened = [stream for stream, _ in self.pair.server.opened.values()]
        for side, streams in (
            (self.pair.client, [stream for stream, _ in self.streams]),
            (self.pair.server, opened),
        ):
            assert side.budget.committed_bytes == sum(stream.window.size for stream in streams)
        for stream, _ in self.streams:
            assert (stream.window.size > 0) == (stream.id in self.pair.client.mux._streams)

    @invariant()
    def places_are_kept(self) -> None:
        mux = self.pair.client.mux
        assert len(mux._streams) + mux._leaving <= self.max_streams
        assert mux._unacknowledged == sum(not s.is_acknowledged for s in mux._streams.values())
        assert self.pair.server.mux.open_streams <= self.max_streams

    @invariant()
    def bytes_arrive_in_order_and_once(self) -> None:
        for stream, reader in self.ends():
            peer = self.peer_of(stream)
            written = self.written[peer] if peer else b""
            assert written.startswith(reader.data)
            assert reader.eofs + len(reader.resets) <= 2
            if reader.eofs:
                assert reader.data == written
                assert peer in self.ended

    def teardown(self) -> None:
        if not hasattr(self, "pair"):
            return
        pair = self.pair
        for _ in range(len(self.streams) + 1):
            pair.settle()
            for stream, _ in self.ends():
                stream.resume_reading()
            pair.settle()
            for stream, _ in self.ends():
                if stream.is_open:
                    self.ended.add(stream)
                stream.write_eof()
        pair.settle()
        for side in (pair.client, pair.server):
            assert side.mux.open_streams == 0
            assert (side.budget.committed_bytes, side.budget.held_bytes) == (0, 0)
            assert not side.stalled
            assert not side.blocked
        for stream, reader in self.ends():
            peer = self.peer_of(stream)
            if stream in self.reset or peer in self.reset:
                continue
            assert peer is not None
            assert (reader.data, reader.eofs, reader.resets) == (self.written[peer], 1, [])
        assert pair.client.mux._unacknowledged == 0


TestWire = Wire.TestCase
TestWire.settings = settings(
    max_examples=80, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow]
)


@settings(max_examples=200)
@given(
    data=st.lists(
        st.binary(max_size=30)
        | st.builds(
            serialize,
            st.integers(0, 4),
            st.integers(0, 17),
            st.sampled_from([0, 1, 2, 3, 4, 5, MAX_STREAM_ID]),
            st.sampled_from([0, 1, 17, WINDOW, WINDOW + 1, MAX_STREAM_ID]),
        ),
        max_size=12,
    ).map(b"".join),
    size=st.integers(1, 50),
    is_client=st.booleans(),
)
def test_no_bytes_raise_anything_but_the_error_of_the_peer(
    data: bytes, size: int, is_client: bool
) -> None:
    side = Side(is_client=is_client)
    stream, _ = side.open()
    stream.pause_reading()
    stream.write(bytes(2 * WINDOW))

    with suppress(RemoteProtocolError):
        for position in range(0, len(data), size):
            side.mux.receive(data[position : position + size])
            frames_of(side.mux.take(100))

    assert side.budget.held_bytes <= WINDOW * (1 + len(side.opened))
    side.mux.close(Code.PROTOCOL_ERROR, "garbage")
    assert (side.budget.committed_bytes, side.budget.held_bytes) == (0, 0)
