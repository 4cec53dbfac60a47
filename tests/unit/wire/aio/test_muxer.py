import asyncio
from typing import Any

import pytest

from helpers.loops import on_both_loops
from helpers.pair import MuxPair, Reader
from helpers.transport import (
    SECONDS,
    SUBPROTOCOL,
    Recorder,
    accepting,
    upgrading_server,
)
from helpers.yamux_pair import Side, frames_of
from moleport_wire.aio.muxer import LinkPort, YamuxPort
from moleport_wire.aio.websocket import connect
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import HEADER_BYTES, MAX_MESSAGE_BYTES, parse, serialize
from moleport_wire.hoody.messages import StreamOpen
from moleport_wire.hoody.mux import Mux
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.yamux import frames as yamux

ROOM = 64 * 1024
MIB = 1024 * 1024


class Wire:
    """A transport that keeps what is sent; `drain` plays the kernel."""

    def __init__(self) -> None:
        self.peer = ""
        self.awaits_pong = False
        self.sent: list[bytes] = []
        self.buffered_bytes = 0
        self.limit = 0
        self.is_endless = False
        self.port: LinkPort | YamuxPort | None = None

    def limit_buffer(self, limit_bytes: int) -> None:
        self.limit = limit_bytes

    def send(self, message: bytes) -> None:
        self.sent.append(message)
        if self.is_endless:
            return
        self.buffered_bytes += len(message)
        if self.port is not None and self.buffered_bytes >= self.limit:
            self.port.pause_writing()

    def ping(self) -> None:
        raise AssertionError("links do not ping by themselves")

    def close(self, code: int, reason: str) -> None:
        raise AssertionError("links do not close by themselves")

    def abort(self) -> None:
        raise AssertionError("links do not abort by themselves")

    def drain(self) -> None:
        self.buffered_bytes = 0
        assert self.port is not None
        self.port.resume_writing()

    def frames(self) -> list[tuple[int, int, int]]:
        return [
            (kind, stream_id, len(payload))
            for message in self.sent
            for kind, stream_id, payload in parse(message)
        ]


class Owner:
    """Owns links and muxes, and writes down what it hears."""

    def __init__(self) -> None:
        self.failures: list[RemoteProtocolError] = []
        self.losses: list[tuple[int | None, str]] = []

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        self.failures.append(error)

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        self.losses.append((close_code, reason))


class Rig:
    """A kit's mux with one link over a wire."""

    def __init__(self) -> None:
        self.pair = MuxPair()
        self.mux = self.pair.kit.mux
        self.owner = Owner()
        self.wire = Wire()
        self.port = LinkPort(self.mux, 0, self.wire, self.owner, room_bytes=ROOM)
        self.wire.port = self.port

    def open(self) -> tuple[Stream, Reader]:
        reader = Reader()
        return self.mux.open(self.port.link, reader, lambda window: b"{}"), reader

    @staticmethod
    async def tick() -> None:
        await asyncio.sleep(0)


async def test_frames_of_one_tick_leave_in_one_message() -> None:
    rig = Rig()
    first, _ = rig.open()
    second, _ = rig.open()
    first.write(b"one")
    second.write(b"two")
    second.write_eof()
    assert rig.wire.sent == []

    await rig.tick()

    assert len(rig.wire.sent) == 1
    assert [kind for kind, _, _ in rig.wire.frames()] == [
        frames.STREAM_OPEN,
        frames.STREAM_OPEN,
        frames.DATA,
        frames.DATA,
        frames.EOF,
    ]


async def test_the_transport_is_told_the_room_of_the_link() -> None:
    assert Rig().wire.limit == ROOM


async def test_a_full_transport_stops_bulk_and_not_control_frames() -> None:
    rig = Rig()
    bulk, reader = rig.open()
    for _ in range(8):
        bulk.write(bytes(32 * 1024))
    await rig.tick()
    before = len(rig.wire.sent)
    assert rig.wire.buffered_bytes <= ROOM + 32 * 1024 + 100
    assert reader.is_paused

    bulk.write(b"more")
    rig.port.link.send(frames.PING, 0, bytes(8))
    await rig.tick()

    assert [kind for m in rig.wire.sent[before:] for kind, _, _ in parse(m)] == [frames.PING]


async def test_a_transport_with_room_again_gets_the_rest() -> None:
    rig = Rig()
    bulk, reader = rig.open()
    for _ in range(8):
        bulk.write(bytes(30_000))

    for _ in range(20):
        await rig.tick()
        rig.wire.drain()
    await rig.tick()

    sent = sum(size for kind, _, size in rig.wire.frames() if kind == frames.DATA)
    assert sent == 240_000
    assert not reader.is_paused
    assert all(len(message) <= MAX_MESSAGE_BYTES for message in rig.wire.sent)


async def test_a_transport_that_takes_everything_is_fed_tick_by_tick() -> None:
    rig = Rig()
    rig.wire.is_endless = True
    bulk, _ = rig.open()
    for _ in range(8):
        bulk.write(bytes(30_000))

    for _ in range(20):
        await rig.tick()

    assert sum(size for kind, _, size in rig.wire.frames() if kind == frames.DATA) == 240_000


async def test_a_broken_rule_is_told_to_the_owner() -> None:
    rig = Rig()

    rig.port.message_received(serialize(frames.DATA, 99, b"x"))

    assert [error.reason for error in rig.owner.failures] == [
        "frame for stream 99, which was never opened"
    ]


async def test_a_lost_link_is_told_once_and_writes_nothing_more() -> None:
    rig = Rig()
    stream, _ = rig.open()
    rig.port.transport_lost(1006, "gone")
    rig.port.transport_lost(1006, "again")
    rig.port.message_received(serialize(frames.DATA, 99, b"x"))
    stream.write(b"x")
    await rig.tick()

    assert rig.owner.losses == [(1006, "gone")]
    assert rig.owner.failures == []
    assert rig.wire.sent == []


async def test_a_detached_link_is_silent_and_its_loss_is_no_news() -> None:
    rig = Rig()
    rig.open()
    rig.port.detach()
    await rig.tick()
    rig.port.transport_lost(None, "gone")

    assert rig.wire.sent == []
    assert rig.owner.losses == []


class Driver(Recorder):
    """The far end over a real connection: accepts streams, and takes bytes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: dict[int, tuple[Stream, Reader]] = {}
        self.mux = Mux(
            self,
            ReceiveBudget(64 * MIB, 256 * 1024),
            stream_window=256 * 1024,
            session_window=16 * MIB,
            opens=False,
        )
        self.stalls: set[int] = set()
        self.port: LinkPort

    def transport_opened(self, transport: Any) -> None:
        self.port = LinkPort(self.mux, 0, transport, Owner())
        self.mux.attach(self.port.link)
        super().transport_opened(transport)

    def message_received(self, message: bytes) -> None:
        self.port.message_received(message)

    def pause_writing(self) -> None:
        self.port.pause_writing()

    def resume_writing(self) -> None:
        self.port.resume_writing()

    def control_received(self, link: Any, frame_type: int, payload: Any) -> None:
        raise AssertionError(frame_type)

    def stream_opened(self, link: Any, stream_id: int, payload: Any) -> None:
        reader = Reader()
        window = StreamOpen.decode(payload).window
        stream = self.mux.accept(link, stream_id, reader, window)
        self.streams[stream_id] = (stream, reader)
        if stream_id in self.stalls:
            stream.pause_reading()

    def stream_stalled(self, stream: Stream) -> None:
        """Tests look at the streams themselves."""

    stream_drained = stream_blocked = stream_unblocked = stream_stalled


class Kit(Driver):
    """The near end: opens streams."""

    def __init__(self) -> None:
        super().__init__()
        self.mux = Mux(
            self,
            ReceiveBudget(64 * MIB, 256 * 1024),
            stream_window=256 * 1024,
            session_window=16 * MIB,
            opens=True,
        )

    def open(self) -> tuple[Stream, Reader]:
        reader = Reader()
        stream = self.mux.open(
            self.port.link,
            reader,
            lambda window: StreamOpen(bind_id=1, peer="", window=window).encode(),
        )
        return stream, reader


async def dial(driver: Driver, port: int) -> None:
    await connect(
        driver,
        f"ws://127.0.0.1:{port}/x",
        subprotocol=SUBPROTOCOL,
        headers={},
        ssl_context=None,
        timeout_seconds=SECONDS,
    )


async def pump(stream: Stream, reader: Reader, data: bytes) -> None:
    """Write as a socket would: not while paused."""
    view = memoryview(data)
    async with asyncio.timeout(SECONDS):
        while view:
            if not reader.is_paused:
                stream.write(bytes(view[:65536]))
                view = view[65536:]
            await asyncio.sleep(0)
    stream.write_eof()


async def until(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


@on_both_loops
async def test_bulk_crosses_a_real_connection_in_both_directions() -> None:
    kit, driver = Kit(), Driver()
    data = bytes(range(256)) * 16 * 1024
    async with upgrading_server(accepting(kit)) as port:
        await dial(driver, port)
        await kit.transport()
        ours, our_reader = kit.open()
        await until(lambda: driver.streams)
        theirs, their_reader = driver.streams[ours.id]
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(ours, our_reader, data))
            group.create_task(pump(theirs, their_reader, data))
        await until(lambda: our_reader.eofs and their_reader.eofs)

        assert our_reader.data == their_reader.data == data
        assert kit.mux.open_streams == driver.mux.open_streams == 0
        driver.opened.result().close(1000, "")
        await kit.end()


@pytest.mark.parametrize("room", [16 * 1024, 256 * 1024], ids=["16 KiB", "256 KiB"])
@on_both_loops
async def test_a_peer_that_stops_reading_bounds_the_buffer_and_resumes(room: int) -> None:
    kit, driver = Kit(), Driver()
    async with upgrading_server(accepting(kit)) as port:
        await dial(driver, port)
        transport = await kit.transport()
        kit.port = LinkPort(kit.mux, 0, transport, Owner(), room_bytes=room)
        kit.mux.links[:] = [kit.port.link]
        far: Any = driver.opened.result()
        socket = far._ws.underlying_transport
        socket.pause_reading()
        streams = [kit.open() for _ in range(40)]
        for stream, _ in streams:
            for _ in range(4):
                stream.write(bytes(64 * 1024))
            stream.write_eof()
        await until(lambda: transport.buffered_bytes >= room)
        # One turn of one stream may come on top, never more.
        assert transport.buffered_bytes <= room + MAX_MESSAGE_BYTES + 64 * HEADER_BYTES
        assert kit.port.link.has_more

        socket.resume_reading()
        await until(lambda: sum(reader.eofs for _, reader in driver.streams.values()) == 40)

        assert {len(reader.data) for _, reader in driver.streams.values()} == {256 * 1024}
        driver.opened.result().close(1000, "")
        await kit.end()


@on_both_loops
async def test_stalled_streams_do_not_delay_the_others() -> None:
    kit, driver = Kit(), Driver()
    async with upgrading_server(accepting(kit)) as port:
        await dial(driver, port)
        await kit.transport()
        stalled = [kit.open()[0] for _ in range(20)]
        driver.stalls = {stream.id for stream in stalled}
        for stream in stalled:
            stream.write(bytes(MIB))
        lively, lively_reader = kit.open()
        await pump(lively, lively_reader, bytes(MIB))
        await until(lambda: driver.streams[lively.id][1].eofs)

        assert len(driver.streams[lively.id][1].data) == MIB
        for stream in stalled:
            assert len(driver.streams[stream.id][1].data) <= 256 * 1024
        assert driver.mux._budget.held_bytes <= 20 * 256 * 1024
        driver.opened.result().close(1000, "")
        await kit.end()


class YamuxSide(Side):
    """Owns a yamux connection over a wire, and writes down what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[RemoteProtocolError] = []
        self.losses: list[tuple[int | None, str]] = []
        self.wire = Wire()
        self.port = YamuxPort(self.wire, self, self.budget, room_bytes=ROOM)
        self.wire.port = self.port
        self.mux = self.port.mux

    def yamux_failed(self, port: YamuxPort, error: RemoteProtocolError) -> None:
        assert port is self.port
        self.failures.append(error)

    def yamux_lost(self, port: YamuxPort, close_code: int | None, reason: str) -> None:
        assert port is self.port
        self.losses.append((close_code, reason))


async def test_a_yamux_stream_and_its_first_bytes_leave_in_one_message() -> None:
    side = YamuxSide()
    stream, _ = side.open(b"0123456789abcdef")
    stream.write(b"GET / HTTP/1.1\r\n\r\n")
    assert side.wire.sent == []

    await Rig.tick()

    assert [len(frames_of([message])) for message in side.wire.sent] == [2]


async def test_yamux_bulk_waits_while_the_transport_is_full_and_answers_do_not() -> None:
    side = YamuxSide()
    stream, _ = side.open()
    stream.write(bytes(3 * ROOM))
    await Rig.tick()
    sent = len(side.wire.sent)
    assert side.wire.buffered_bytes < 2 * ROOM

    side.port.message_received(yamux.serialize(yamux.PING, yamux.SYN, 0, 7))
    await Rig.tick()

    assert side.wire.sent[sent:] == [yamux.serialize(yamux.PING, yamux.ACK, 0, 7)]
    while side.wire.buffered_bytes:
        side.wire.drain()
        await Rig.tick()
    assert sum(frame.length for frame in frames_of(side.wire.sent) if frame.kind == 0) == 3 * ROOM


async def test_a_broken_yamux_rule_is_reported_once_and_nothing_is_read_after_the_loss() -> None:
    side = YamuxSide()
    _, reader = side.open()

    side.port.message_received(yamux.serialize(9, 0, 0))
    side.port.transport_lost(None, "aborted")
    side.port.transport_lost(None, "again")
    side.port.message_received(yamux.serialize(yamux.DATA, 0, 1, body=b"late"))

    assert [error.code for error in side.failures] == [yamux.GoAwayCode.PROTOCOL_ERROR]
    assert side.losses == [(None, "aborted")]
    assert reader.data == b""


async def test_a_detached_yamux_connection_writes_no_more() -> None:
    side = YamuxSide()
    side.open()

    side.port.detach()
    await Rig.tick()

    assert side.wire.sent == []


async def test_many_yamux_frames_in_one_tick_are_written_early() -> None:
    side = YamuxSide()
    for _ in range(100):
        side.open()

    assert len(side.wire.sent) == 3
