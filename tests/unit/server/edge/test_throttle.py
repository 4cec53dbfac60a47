import asyncio

import pytest

from helpers.upstream import ScriptedStream
from helpers.waiting import until
from moleport_server.access.bounds import Bandwidth
from moleport_server.edge.throttle import ThrottledStream, throttled
from moleport_wire.hoody.frames import Payload

RATE = 1_000_000
BURST = RATE // 4


class Reader:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.is_paused = False

    def stream_data(self, data: Payload) -> None:
        self.told.append(bytes(data))

    def stream_eof(self) -> None:
        self.told.append("eof")

    def stream_reset(self, code: int, reason: str) -> None:
        self.told.append((code, reason))

    def stream_pause_writing(self) -> None:
        self.is_paused = True

    def stream_resume_writing(self) -> None:
        self.is_paused = False


class Below(ScriptedStream):
    """The stream of the agent."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(None, None, reader, "")  # type: ignore[arg-type]  # it is never parsed
        self.is_raw = True


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def below(reader: Reader) -> Below:
    return Below(reader)


def throttle(below: Below, rate: int = RATE) -> ThrottledStream:
    return ThrottledStream(below, Bandwidth(rate, asyncio.get_running_loop().time()))


async def test_bytes_pass_at_once_and_debt_stops_both_sides(below: Below, reader: Reader) -> None:
    throttle(below)

    below.send(b"x" * BURST)
    assert not below.is_reading_paused
    below.send(b"y" * 50_000)

    assert sum(len(part) for part in reader.told if isinstance(part, bytes)) == BURST + 50_000
    assert below.is_reading_paused
    assert reader.is_paused
    await until(lambda: not below.is_reading_paused and not reader.is_paused)


async def test_the_visitors_bytes_count_too(below: Below, reader: Reader) -> None:
    stream = throttle(below)

    stream.write(b"x" * (BURST + 50_000))

    assert len(below.written) == BURST + 50_000
    assert reader.is_paused
    await until(lambda: not reader.is_paused)


async def test_who_paused_by_itself_is_not_resumed_by_the_throttle(
    below: Below, reader: Reader
) -> None:
    stream = throttle(below)
    below.send(b"x" * (BURST + 50_000))
    stream.pause_reading()
    below.receiver.stream_pause_writing()

    await until(lambda: stream._timer is None)
    assert below.is_reading_paused
    assert reader.is_paused

    stream.resume_reading()
    below.receiver.stream_resume_writing()
    assert not below.is_reading_paused
    assert not reader.is_paused


async def test_nobody_is_resumed_while_the_token_is_in_debt(below: Below, reader: Reader) -> None:
    stream = throttle(below, rate=1)
    below.send(b"x" * 100_000)

    stream.resume_reading()
    below.receiver.stream_resume_writing()

    assert below.is_reading_paused
    assert reader.is_paused
    stream.reset(4)


async def test_streams_of_a_token_share_its_bandwidth(reader: Reader) -> None:
    bandwidth = Bandwidth(RATE, asyncio.get_running_loop().time())
    first, second = Below(reader), Below(reader)
    throttled(first, bandwidth)
    throttled(second, bandwidth)

    first.send(b"x" * (BURST + 100_000))
    second.send(b"y")

    assert first.is_reading_paused
    assert second.is_reading_paused
    await until(lambda: not first.is_reading_paused and not second.is_reading_paused)


async def test_ends_pass_and_leave_no_timer(below: Below, reader: Reader) -> None:
    stream = throttle(below, rate=1)
    below.send(b"x" * 100_000)

    below.send_eof()
    below.lose(7, "gone")

    assert reader.told[1:] == ["eof", (7, "gone")]
    assert stream._timer is None


async def test_a_throttle_is_put_on_once(below: Below) -> None:
    bandwidth = Bandwidth(RATE, 0.0)
    stream = throttled(below, bandwidth)

    assert throttled(stream, bandwidth) is stream
    assert (stream.is_open, stream.queued_bytes) == (True, 0)
    stream.write_eof()
    assert below.has_eof
    stream.reset(4, "done")
    assert below.reset_code == 4


async def test_without_a_rate_nothing_is_held_up(below: Below, reader: Reader) -> None:
    bandwidth = Bandwidth(1, asyncio.get_running_loop().time())
    throttled(below, bandwidth)
    bandwidth.rate = None

    below.send(b"x" * 10_000_000)

    assert not below.is_reading_paused
