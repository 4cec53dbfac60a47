"""Our mux against a second implementation, written from another description by other hands."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from helpers.doubles.naive_yamux import Quirks, StreamReset, Yamux, YamuxClosed
from helpers.doubles.naive_yamux import Stream as NaiveStream
from helpers.pair import Reader
from helpers.yamux_pair import Side
from moleport_wire.hoody.frames import Code
from moleport_wire.yamux.mux import MAX_STREAMS, MAX_UNACKNOWLEDGED

MIB = 1024 * 1024
SECONDS = 20.0
PREFACE = bytes(range(16))


class Waiting(Reader):
    """A receiver that can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = asyncio.Event()

    def stream_eof(self) -> None:
        super().stream_eof()
        self.is_over.set()

    def stream_reset(self, code: int, reason: str) -> None:
        super().stream_reset(code, reason)
        self.is_over.set()

    async def over(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self.is_over.wait()


@dataclass
class Rig:
    """Our side as the client, theirs as the server, and the event loop between them."""

    ours: Side
    theirs: Yamux = field(init=False)
    failure: YamuxClosed | None = None

    def flush(self) -> None:
        for message in self.ours.take():
            self._deliver(message)
        if self.ours.mux.has_more:
            self.ours.mux.wake()

    def _deliver(self, message: bytes) -> None:
        try:
            self.theirs.feed(message)
        except YamuxClosed as error:
            self.failure = self.failure or error

    def open(self) -> tuple[Waiting, Callable[[bytes], None]]:
        reader = Waiting()
        stream = self.ours.mux.open(reader, lambda: PREFACE)
        return reader, stream.write


Serve = Callable[[NaiveStream], Awaitable[None]]


@asynccontextmanager
async def rig(serve: Serve, quirks: Quirks | None = None) -> AsyncIterator[Rig]:
    loop = asyncio.get_running_loop()
    made = Rig(Side())

    def schedule() -> None:
        loop.call_soon(made.flush)

    def emit(data: bytes) -> None:
        loop.call_soon(made.ours.mux.receive, data)

    made.ours.mux._schedule = schedule
    async with asyncio.TaskGroup() as tasks:
        serving: set[asyncio.Task[None]] = set()

        async def guarded(stream: NaiveStream) -> None:
            try:
                await serve(stream)
            except StreamReset:
                stream.drop()

        def accepted(stream: NaiveStream) -> None:
            serving.add(tasks.create_task(guarded(stream)))

        async def room() -> None:
            await asyncio.sleep(0)

        made.theirs = Yamux(
            emit,
            room,
            is_client=False,
            accepted=accepted,
            quirks=quirks,
        )
        made.theirs.ping()
        yield made
        for task in serving:
            task.cancel()
    assert made.failure is None
    assert made.theirs.counts.violations == []


async def read_exactly(stream: NaiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.read(size - len(data))
        assert piece
        data += piece
    return data


async def echo(stream: NaiveStream) -> None:
    assert await read_exactly(stream, 16) == PREFACE
    while data := await stream.read():
        await stream.write(data)
    stream.finish()


async def refuse(stream: NaiveStream) -> None:
    stream.drop()


async def stay_silent(stream: NaiveStream) -> None:
    await stream.read()
    await asyncio.Event().wait()


@pytest.mark.parametrize("size", [0, 1, 100, 3 * MIB])
async def test_what_is_echoed_is_what_was_sent(size: int) -> None:
    async with rig(echo) as made:
        reader = Waiting()
        stream = made.ours.mux.open(reader, lambda: PREFACE)
        data = bytes(n % 251 for n in range(1000)) * (size // 1000 + 1)
        stream.write(data[:size])
        stream.write_eof()
        await reader.over()

        assert reader.data == data[:size]
        assert reader.resets == []
        assert made.ours.mux.open_streams == 0
        assert made.theirs.rtt is not None


async def test_many_streams_at_once_are_served_below_the_limits_of_the_peer() -> None:
    count = 2 * MAX_STREAMS

    async with rig(echo) as made:
        readers = []
        for number in range(count):
            reader = Waiting()
            stream = made.ours.mux.open(reader, lambda: PREFACE)
            stream.write(b"%d" % number)
            stream.write_eof()
            readers.append(reader)
        for reader in readers:
            await reader.over()

        assert [bytes(reader.data) for reader in readers] == [b"%d" % n for n in range(count)]
        assert made.theirs.counts.most_open <= MAX_STREAMS
        assert made.theirs.counts.most_unacknowledged <= MAX_UNACKNOWLEDGED


async def test_a_peer_that_never_acknowledges_is_not_flooded() -> None:
    async with rig(stay_silent) as made:
        for _ in range(MAX_STREAMS):
            made.open()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert made.theirs.counts.opened == MAX_UNACKNOWLEDGED
        assert len(made.ours.mux.waiting_streams) == MAX_STREAMS - MAX_UNACKNOWLEDGED


async def test_a_dropped_stream_is_a_refusal() -> None:
    async with rig(refuse) as made:
        reader, _ = made.open()
        await reader.over()

        assert [code for code, _ in reader.resets] == [Code.REFUSED]


async def test_bursts_of_aborts_leave_the_connection_alive() -> None:
    async with rig(stay_silent) as made:
        for _ in range(5):
            streams = [made.ours.mux.open(Waiting(), lambda: PREFACE) for _ in range(MAX_STREAMS)]
            await asyncio.sleep(0)
            for stream in streams:
                stream.reset(Code.CANCEL, "the visitor went away")
        async with asyncio.timeout(SECONDS):
            while made.ours.mux.open_streams or made.theirs.streams:
                await asyncio.sleep(0)

        assert made.ours.goaways == []
        assert made.ours.budget.committed_bytes == 0


async def test_a_peer_without_credit_stops_one_stream_and_no_other() -> None:
    async with rig(echo, Quirks(grants=False)) as made:
        stuck, write = made.open()
        write(bytes(MIB))
        quick = Waiting()
        stream = made.ours.mux.open(quick, lambda: PREFACE)
        stream.write(b"quick")
        stream.write_eof()
        await quick.over()

        assert quick.data == b"quick"
        assert not stuck.is_over.is_set()
        assert len(made.ours.blocked) == 1
        made.ours.mux.close(Code.STREAM_CLOSED, "over")
