"""The second yamux, against itself and against bytes written by hand."""

import asyncio
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.doubles.naive_yamux import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    INITIAL_WINDOW,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    Quirks,
    Stream,
    StreamReset,
    Yamux,
    YamuxClosed,
)


class Sent:
    """What one end emitted, as frames."""

    def __init__(self) -> None:
        self.data = b""

    def __call__(self, data: bytes) -> None:
        self.data += data

    async def room(self) -> None:
        pass

    def take(self) -> list[tuple[int, int, int, int, bytes]]:
        frames = []
        while self.data:
            _, kind, flags, stream_id, length = HEADER.unpack_from(self.data)
            body_length = length if kind == DATA else 0
            frames.append((kind, flags, stream_id, length, self.data[12 : 12 + body_length]))
            self.data = self.data[12 + body_length :]
        return frames


def server(
    quirks: Quirks | None = None,
) -> tuple[Yamux, Sent, list[Stream]]:
    sent = Sent()
    accepted: list[Stream] = []
    yamux = Yamux(sent, sent.room, is_client=False, accepted=accepted.append, quirks=quirks)
    return yamux, sent, accepted


def frame(kind: int, flags: int, stream_id: int, length: int = 0, body: bytes = b"") -> bytes:
    return HEADER.pack(0, kind, flags, stream_id, length or len(body)) + body


async def test_a_stream_is_acknowledged_by_the_first_frame_that_goes_back() -> None:
    yamux, sent, accepted = server()
    yamux.feed(frame(DATA, SYN, 1, body=b"hello"))

    assert sent.take() == []
    assert await accepted[0].read() == b"hello"
    await accepted[0].write(b"yes")
    await accepted[0].write(b"more")
    assert sent.take() == [(DATA, ACK, 1, 3, b"yes"), (DATA, 0, 1, 4, b"more")]


async def test_credit_comes_when_half_the_window_is_consumed() -> None:
    yamux, sent, accepted = server()
    half = INITIAL_WINDOW // 2
    yamux.feed(frame(DATA, SYN, 1, body=bytes(half - 1)))
    await accepted[0].read(half)
    assert sent.take() == []

    yamux.feed(frame(DATA, 0, 1, body=b"!"))
    await accepted[0].read()

    assert sent.take() == [(WINDOW_UPDATE, ACK, 1, half, b"")]


@pytest.mark.parametrize(
    ("finished_by_us", "finished_by_peer", "expected"),
    [
        pytest.param(False, False, [(DATA, ACK | RST, 1, 0, b"")], id="open"),
        pytest.param(False, True, [(DATA, ACK | FIN, 1, 0, b"")], id="finished-by-the-peer"),
        pytest.param(True, False, [], id="finished-by-us"),
        pytest.param(True, True, [], id="over"),
    ],
)
async def test_what_a_drop_says_depends_on_the_state(
    finished_by_us: bool,
    finished_by_peer: bool,
    expected: list[tuple[int, int, int, int, bytes]],
) -> None:
    yamux, sent, accepted = server()
    yamux.feed(frame(DATA, SYN, 1, body=b"x"))
    if finished_by_us:
        accepted[0].finish()
    if finished_by_peer:
        yamux.feed(frame(DATA, FIN, 1))
    sent.take()

    accepted[0].drop()

    assert sent.take() == expected
    assert yamux.streams == {}


async def test_pings_are_answered_with_their_nonce() -> None:
    yamux, sent, _ = server()

    yamux.feed(frame(PING, SYN, 0, 4711))

    assert sent.take() == [(PING, ACK, 0, 4711, b"")]


async def test_a_measured_round_trip_makes_windows_grow() -> None:
    yamux, sent, accepted = server()
    yamux.ping()
    [(_, _, _, nonce, _)] = sent.take()
    yamux.feed(frame(PING, ACK, 0, nonce))
    yamux.rtt = 10.0  # far slower than this test

    yamux.feed(frame(DATA, SYN, 1, body=bytes(INITIAL_WINDOW)))
    await accepted[0].read(INITIAL_WINDOW)

    assert sent.take() == [(WINDOW_UPDATE, ACK, 1, 2 * INITIAL_WINDOW, b"")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(bytes([1]) + bytes(11), None, id="version"),
        pytest.param(bytes([0, 4]) + bytes(10), None, id="type"),
        pytest.param(HEADER.pack(0, DATA, 0, 1, 2**20 + 1), None, id="body-over-1-MiB"),
        pytest.param(frame(DATA, SYN, 2), 1, id="even-stream"),
        pytest.param(frame(DATA, SYN, 0), 1, id="stream-0"),
        pytest.param(frame(DATA, SYN, 1) * 2, 1, id="live-stream-again"),
        pytest.param(frame(PING, ACK, 0, 9), 1, id="unasked-pong"),
        pytest.param(frame(DATA, SYN, 1, body=bytes(INITIAL_WINDOW + 1)), 1, id="too-big-a-start"),
        pytest.param(
            frame(DATA, SYN, 1, body=bytes(INITIAL_WINDOW)) + frame(DATA, 0, 1, body=b"!"),
            1,
            id="over-the-window",
        ),
    ],
)
async def test_violations_end_the_connection(data: bytes, code: int | None) -> None:
    yamux, sent, _ = server()

    with pytest.raises(YamuxClosed) as closed:
        yamux.feed(data)

    assert (closed.value.code, closed.value.by_peer) == (code, False)
    goaways = [length for kind, _, _, length, _ in sent.take() if kind == GO_AWAY]
    assert goaways == ([] if code is None else [code])


@pytest.mark.parametrize(
    ("kind", "code"),
    [pytest.param(DATA, 2, id="data"), pytest.param(WINDOW_UPDATE, 1, id="credit")],
)
async def test_one_stream_too_many_ends_the_connection(kind: int, code: int) -> None:
    yamux, _, accepted = server()
    for number in range(256):
        yamux.feed(frame(DATA, SYN, 2 * number + 1, body=b"x"))
        if number < 255:
            accepted[number].finish()  # acknowledged, and still counted as open
    assert yamux.unacknowledged == 1
    for number in range(256, 511):
        yamux.feed(frame(DATA, SYN, 2 * number + 1, body=b"x"))
    assert yamux.unacknowledged == 256

    with pytest.raises(YamuxClosed) as closed:
        yamux.feed(frame(kind, SYN, 1_023))

    assert closed.value.code == code


async def test_frames_of_streams_that_are_gone_are_ignored() -> None:
    yamux, sent, _ = server()

    yamux.feed(frame(DATA, 0, 7, body=b"x") + frame(WINDOW_UPDATE, 0, 7, 5) + frame(DATA, RST, 7))

    assert sent.take() == []


async def test_data_after_a_fin_is_ignored() -> None:
    yamux, _, accepted = server()

    yamux.feed(frame(DATA, SYN | FIN, 1, body=b"all") + frame(DATA, 0, 1, body=b"late"))

    assert [await accepted[0].read(), await accepted[0].read()] == [b"all", b""]


async def test_a_reset_throws_away_what_was_buffered() -> None:
    yamux, _, accepted = server()
    yamux.feed(frame(DATA, SYN, 1, body=b"x") + frame(DATA, RST, 1))

    with pytest.raises(StreamReset):
        await accepted[0].read()


async def test_goaway_ends_running_streams_at_once() -> None:
    yamux, _, accepted = server()
    yamux.feed(frame(DATA, SYN, 1, body=b"x"))

    with pytest.raises(YamuxClosed) as closed:
        yamux.feed(frame(GO_AWAY, 0, 0, 0))

    assert closed.value.by_peer
    with pytest.raises(StreamReset):
        await accepted[0].read()


class Wire:
    """Two ends joined; bytes are delivered in pieces of given sizes."""

    def __init__(self, cuts: list[int]) -> None:
        self._cuts = deque(cuts)
        self._queues: list[bytearray] = [bytearray(), bytearray()]
        self.accepted: list[Stream] = []
        self.client = Yamux(
            self._queues[1].extend, self._room, is_client=True, accepted=self.accepted.append
        )
        self.server = Yamux(
            self._queues[0].extend, self._room, is_client=False, accepted=self.accepted.append
        )

    async def _room(self) -> None:
        await asyncio.sleep(0)

    async def carry(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            for end, queue in ((self.client, self._queues[0]), (self.server, self._queues[1])):
                size = self._cuts[0] if self._cuts else 65_536
                self._cuts.rotate()
                if queue:
                    end.feed(bytes(queue[:size]))
                    del queue[:size]
            await asyncio.sleep(0)


@settings(deadline=None, max_examples=20)
@example(sizes=[0, 1, 17], cuts=[1])
@given(
    sizes=st.lists(st.integers(0, 400_000), min_size=1, max_size=4),
    cuts=st.lists(st.integers(5_000, 200_000), max_size=5),
)
async def test_echoed_streams_come_back_whole(sizes: list[int], cuts: list[int]) -> None:
    wire = Wire(cuts)
    wire.client.ping()
    echoes: list[bytes] = [b""] * len(sizes)

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)
        stream.finish()

    async def visit(index: int, size: int) -> None:
        stream = wire.client.open()
        payload = bytes([index + 1]) * size

        async def send() -> None:
            await stream.write(b"!" + payload)
            stream.finish()

        async with asyncio.TaskGroup() as both:
            both.create_task(send())
            while data := await stream.read():
                echoes[index] += data
        assert echoes[index] == b"!" + payload

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        visits = [group.create_task(visit(*each)) for each in enumerate(sizes)]
        carrying = group.create_task(wire.carry(lambda: all(each.done() for each in visits)))
        served = 0
        while not carrying.done():
            for stream in wire.accepted[served:]:
                group.create_task(echo(stream))
            served = len(wire.accepted)
            await asyncio.sleep(0)

    assert [len(each) - 1 for each in echoes] == sizes
    assert wire.client.streams == {}
