import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aiofastnet
import pytest
import trustme
import uvloop

from helpers.loops import on_both_loops
from helpers.pair import MuxPair
from moleport_wire.aio.sockets import ReadBuffer, abort_with_reset
from moleport_wire.aio.splice import WRITE_BUFFER_BYTES, Splice
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import HIGH_WATER_BYTES

SECONDS = 20.0
WINDOW = 256 * 1024
BULK = bytes(range(256)) * 32 * 1024  # 8 MiB

Service = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.001)


class Rig:
    """A visitor's stream at the kit (`ours`), spliced at the driver with a local service."""

    def __init__(self, preface: bytes | None = None) -> None:
        self.pair = MuxPair()
        self.pair.run_on(asyncio.get_running_loop())
        self.ours, self.reader, self.theirs, _ = self.pair.open_both()
        self.endings: list[str] = []
        self.counts = [0, 0]
        self.splice = Splice(
            ReadBuffer(),
            lambda _, reason: self.endings.append(reason),
            self.count,
            None if preface is None else lambda _: preface,
        )
        self.theirs.receiver = self.splice
        self.splice.attach(self.theirs)

    def count(self, to_socket: int, from_socket: int) -> None:
        self.counts[0] += to_socket
        self.counts[1] += from_socket

    async def connect(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        async with asyncio.timeout(SECONDS):
            await aiofastnet.create_connection(
                asyncio.get_running_loop(),
                self.splice.protocol,
                "127.0.0.1",
                port,
                ssl=tls,
                server_hostname="localhost" if tls is not None else None,
            )


@asynccontextmanager
async def serving(service: Service, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a local service; what it raises fails the test, and it ends before the test does."""
    tasks: list[asyncio.Task[Any]] = []

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            async with asyncio.timeout(SECONDS):
                await service(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(run, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=SECONDS)
    for task in tasks:
        task.result()


@on_both_loops
async def test_both_directions_flow_and_end_by_themselves() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"question"
        writer.write(b"answer")

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        rig.ours.write(b"question")
        rig.ours.write_eof()
        await until(lambda: rig.endings)

    assert (bytes(rig.reader.data), rig.reader.eofs) == (b"answer", 1)
    assert rig.reader.resets == []
    assert rig.endings == [""]
    assert rig.counts == [8, 6]
    assert rig.pair.driver.mux.open_streams == 0


@on_both_loops
async def test_a_service_may_end_its_direction_first() -> None:
    heard: list[bytes] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"greeting")
        writer.write_eof()
        heard.append(await reader.read())

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        await until(lambda: rig.reader.eofs)
        rig.ours.write(b"late")
        rig.ours.write_eof()
        await until(lambda: rig.endings)

    assert heard == [b"late"]
    assert rig.reader.data == b"greeting"
    assert rig.endings == [""]


@on_both_loops
async def test_what_comes_before_the_connection_is_kept_behind_the_preface() -> None:
    heard: list[bytes] = []

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read())

    rig = Rig(preface=b"PROXY UNKNOWN\r\n")
    rig.ours.write(BULK[: WINDOW + 1])
    rig.ours.write_eof()
    rig.pair.settle()
    # No credit without a connection: one window is all that can wait here.
    assert rig.counts[0] == WINDOW
    async with serving(service) as port:
        await rig.connect(port)
        await until(lambda: rig.endings)

    assert heard == [b"PROXY UNKNOWN\r\n" + BULK[: WINDOW + 1]]


@on_both_loops
async def test_a_reset_stream_aborts_the_socket() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read()

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        rig.ours.reset(Code.CANCEL, "visitor left")
        await until(lambda: rig.endings)

    assert rig.endings == ["visitor left"]


@on_both_loops
async def test_a_broken_socket_resets_the_stream() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.transport.abort()

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        rig.ours.write(BULK[:WINDOW])
        await until(lambda: rig.endings)

    await until(lambda: rig.reader.resets)
    assert [code for code, _ in rig.reader.resets] == [Code.CANCEL]
    assert rig.endings == ["connection lost"]


@on_both_loops
async def test_ending_it_breaks_both_sides_once() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read()

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        assert rig.splice.transport is not None
        rig.splice.end(Code.INTERNAL, "over")
        rig.splice.end(Code.INTERNAL, "again")
        await until(lambda: rig.reader.resets)

    assert rig.endings == ["over"]
    assert rig.reader.resets == [(Code.INTERNAL, "over")]


@on_both_loops
async def test_a_connection_that_comes_too_late_is_dropped() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            assert await reader.read() == b""

    rig = Rig()
    rig.ours.write(b"unheard")
    rig.pair.settle()
    rig.ours.reset(Code.CANCEL, "visitor left")
    rig.pair.settle()
    async with serving(service) as port:
        await rig.connect(port)

    assert rig.endings == ["visitor left"]


@on_both_loops
async def test_a_service_that_does_not_read_stops_credit_and_loses_nothing() -> None:
    may_read = asyncio.Event()
    heard = bytearray()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
        await may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard.extend(await reader.read())

    rig = Rig()
    async with serving(service) as port:
        await rig.connect(port)
        rig.ours.write(BULK)
        rig.ours.write(BULK)
        rig.ours.write_eof()
        await until(lambda: rig.theirs.is_reading_paused)
        assert rig.splice.transport is not None
        # What was read beyond the mark is one window at most, however long it lasts.
        waiting = rig.splice.transport.get_write_buffer_size()
        assert waiting <= WRITE_BUFFER_BYTES + rig.theirs.window.size
        assert rig.ours.queued_bytes > 0
        assert rig.theirs in rig.pair.driver.stalled
        may_read.set()
        await until(lambda: rig.endings)

    assert bytes(heard) == BULK + BULK
    assert rig.endings == [""]


@on_both_loops
async def test_a_visitor_that_does_not_read_stops_the_service_and_loses_nothing() -> None:
    sent = asyncio.Event()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BULK)
        writer.write_eof()
        sent.set()
        await reader.read()

    rig = Rig()
    rig.ours.pause_reading()
    async with serving(service) as port:
        await rig.connect(port)
        await until(lambda: rig.theirs.queued_bytes > HIGH_WATER_BYTES)
        await sent.wait()
        # One read may come on top of the mark.
        assert rig.theirs.queued_bytes <= HIGH_WATER_BYTES + WINDOW
        assert len(rig.reader.data) == WINDOW
        rig.ours.resume_reading()
        await until(lambda: rig.reader.eofs)
        rig.ours.write_eof()
        await until(lambda: rig.endings)

    assert bytes(rig.reader.data) == BULK


@on_both_loops
async def test_a_splice_without_a_stream_reads_nothing_until_it_is_attached() -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"greeting")
        assert await reader.read() == b""

    rig = Rig()
    endings: list[str] = []
    splice = Splice(ReadBuffer(), lambda _, reason: endings.append(reason))
    async with serving(service) as port:
        await aiofastnet.create_connection(
            asyncio.get_running_loop(), splice.protocol, "127.0.0.1", port
        )
        rig.theirs.receiver = splice
        splice.attach(rig.theirs)
        await until(lambda: rig.reader.data)
        rig.ours.write_eof()
        await until(lambda: endings)

    assert rig.reader.data == b"greeting"


@on_both_loops
async def test_a_socket_that_is_full_from_the_beginning_stops_credit() -> None:
    preface = BULK * 2  # more than the kernel takes
    may_read = asyncio.Event()
    heard = bytearray()

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
        await may_read.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        heard.extend(await reader.read())

    rig = Rig(preface)
    rig.ours.write(BULK)
    rig.ours.write_eof()
    async with serving(service) as port:
        await rig.connect(port)
        rig.pair.settle()
        assert rig.theirs.is_reading_paused
        assert rig.counts[0] == WINDOW
        may_read.set()
        await until(lambda: rig.endings)

    assert bytes(heard) == preface + BULK


@pytest.mark.parametrize("is_ended_by_us", [False, True], ids=["by the service", "by us"])
@on_both_loops
async def test_a_connection_without_a_stream_may_end(is_ended_by_us: bool) -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not is_ended_by_us:
            abort_with_reset(cast("asyncio.Transport", writer.transport))
        with suppress(ConnectionResetError):
            await reader.read()

    endings: list[str] = []
    splice = Splice(ReadBuffer(), lambda _, reason: endings.append(reason))
    async with serving(service) as port:
        transport, _ = await aiofastnet.create_connection(
            asyncio.get_running_loop(), splice.protocol, "127.0.0.1", port
        )
        if is_ended_by_us:
            splice.end(Code.CANCEL, "nobody wants it")
        else:
            transport.resume_reading()
        await until(lambda: endings)

    assert endings == ["nobody wants it" if is_ended_by_us else "connection lost"]


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


@pytest.mark.parametrize("is_answered", [False, True], ids=["visitor ends", "visitor goes on"])
@on_both_loops
async def test_a_tls_service_that_closes_loses_nothing_of_what_it_sent(
    tls: tuple[ssl.SSLContext, ssl.SSLContext], is_answered: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BULK)

    rig = Rig()
    rig.ours.pause_reading()
    async with serving(service, tls[0]) as port:
        await rig.connect(port, tls[1])
        await until(lambda: rig.theirs.queued_bytes > HIGH_WATER_BYTES)
        rig.ours.resume_reading()
        await until(lambda: rig.reader.eofs)
        await until(lambda: rig.splice.transport is None)
        if is_answered:
            rig.ours.write(b"anybody there?")
        else:
            rig.ours.write_eof()
        await until(lambda: rig.endings)

    assert bytes(rig.reader.data) == BULK
    rig.pair.settle()
    assert rig.reader.resets == ([(Code.CANCEL, "connection closed")] if is_answered else [])
    assert caplog.messages == []


@on_both_loops
async def test_a_tls_service_that_closes_while_the_visitor_does_not_read_loses_nothing(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    size = WINDOW + HIGH_WATER_BYTES // 2  # all of it is read, not all of it has credit

    async def service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BULK[:size])

    rig = Rig()
    rig.ours.pause_reading()
    async with serving(service, tls[0]) as port:
        await rig.connect(port, tls[1])
        await until(lambda: rig.splice.transport is None)
        rig.ours.write(b"dropped, for it cannot be told before the rest is out")
        rig.pair.settle()
        assert rig.endings == []
        rig.ours.resume_reading()
        await until(lambda: rig.reader.eofs)
        rig.ours.write_eof()
        await until(lambda: rig.endings)

    assert bytes(rig.reader.data) == BULK[:size]
    assert rig.reader.resets == []


@pytest.mark.parametrize("is_early", [True, False], ids=["before its socket", "at its socket"])
def test_the_next_connection_is_heard_after_a_splice_ended_at_once(is_early: bool) -> None:
    # On the server's own loop, whose transports leave a reader behind otherwise.
    class Refusing(Splice):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            if is_early:
                self.end(Code.CANCEL, "no")
            self._adopt(transport)
            self.end(Code.CANCEL, "no")
            self._settle()

    class Listening(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            heard.set()

    heard = asyncio.Event()

    async def drop_two_and_take_the_next() -> None:
        loop = asyncio.get_running_loop()
        coming = iter((Refusing, Refusing, None))

        def make() -> asyncio.BaseProtocol:
            refusing = next(coming)
            if refusing is None:
                return Listening()
            return refusing(ReadBuffer(), lambda _, __: None).protocol()

        server = await aiofastnet.create_server(loop, make, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        async with asyncio.timeout(5):
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*address)
                with suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            _, writer = await asyncio.open_connection(*address)
            writer.write(b"hello")
            await heard.wait()
        writer.close()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(drop_two_and_take_the_next())
