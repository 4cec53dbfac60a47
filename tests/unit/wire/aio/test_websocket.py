import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import aiofastnet
import pytest
import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as library_connect
from websockets.asyncio.server import ServerConnection, serve

from helpers.certificates import TestAuthority
from helpers.loops import on_both_loops
from helpers.transport import (
    SECONDS,
    SUBPROTOCOL,
    UPGRADE_HEAD,
    RawClient,
    Recorder,
    accepting,
    upgrading_server,
)
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.aio.websocket import (
    CLOSE_SECONDS,
    UpgradeAnswer,
    UpgradeRefused,
    connect,
    feed,
    server_protocol,
)
from moleport_wire.hoody.frames import MAX_MESSAGE_BYTES

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LARGEST = bytes(range(256)) * 1024


@asynccontextmanager
async def library_client(port: int) -> AsyncIterator[ClientConnection]:
    async with library_connect(
        f"ws://127.0.0.1:{port}/x",
        subprotocols=[websockets.Subprotocol(SUBPROTOCOL)],
        proxy=None,
        open_timeout=SECONDS,
        close_timeout=SECONDS,
    ) as client:
        yield client


@asynccontextmanager
async def library_server(handler: Any, **options: Any) -> AsyncIterator[str]:
    options.setdefault("subprotocols", [websockets.Subprotocol(SUBPROTOCOL)])
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/x"


async def dial(recorder: Recorder, url: str, **options: Any) -> MessageTransport:
    await connect(
        recorder,
        url,
        subprotocol=SUBPROTOCOL,
        headers={"Authorization": "Bearer t"},
        ssl_context=None,
        timeout_seconds=options.pop("timeout_seconds", SECONDS),
        **options,
    )
    return recorder.opened.result()


@on_both_loops
async def test_a_server_and_an_independent_client_exchange_messages() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port, library_client(port) as client:
        transport = await recorder.transport()

        await client.send(LARGEST)
        assert await recorder.message() == LARGEST
        transport.send(LARGEST)
        assert await client.recv() == LARGEST

        assert len(LARGEST) == MAX_MESSAGE_BYTES
        assert client.subprotocol == SUBPROTOCOL
        assert transport.peer == "{}:{}".format(*client.local_address[:2])
        assert transport.buffered_bytes == 0


@on_both_loops
async def test_a_client_and_an_independent_server_exchange_messages() -> None:
    seen: list[Any] = []

    async def echo(connection: ServerConnection) -> None:
        seen.append(connection.request.headers["Authorization"] if connection.request else None)
        async for message in connection:
            await connection.send(message)

    recorder = Recorder()
    async with library_server(echo) as url:
        transport = await dial(recorder, url)
        transport.send(b"hello")

        assert await recorder.message() == b"hello"
        assert seen == ["Bearer t"]
        transport.close(1000, "done")
        assert (await recorder.end())[0] == 1000


@on_both_loops
async def test_fragments_are_joined_and_pings_may_come_between() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.send(BINARY, b"one ", fin=False)
        client.send(PING, b"nonce")
        client.send(CONTINUATION, b"", fin=False)
        client.send(CONTINUATION, b"two ", fin=False)
        client.send(CONTINUATION, b"three")
        client.send(BINARY, b"whole")

        assert await recorder.message() == b"one two three"
        assert await recorder.message() == b"whole"
        assert await client.receive() == (PONG, b"nonce")
        await client.aclose()


@on_both_loops
async def test_fragments_of_an_independent_client_are_joined() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port, library_client(port) as client:
        await client.send([LARGEST[:100_000], LARGEST[100_000:200_000], LARGEST[200_000:]])

        assert await recorder.message() == LARGEST


@on_both_loops
async def test_text_is_ignored_whole_and_in_fragments() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.send(TEXT, b"hello")
        client.send(TEXT, b"hel", fin=False)
        client.send(CONTINUATION, b"lo")
        client.send(BINARY, b"\0")

        assert await recorder.message() == b"\0"
        await client.aclose()


@on_both_loops
async def test_each_text_is_told_to_who_wants_to_know() -> None:
    recorder = Recorder()
    texts: list[None] = []
    answer = UpgradeAnswer(
        receiver=recorder, subprotocol=SUBPROTOCOL, on_text=lambda: texts.append(None)
    )
    async with upgrading_server(lambda _upgrade: answer) as port:
        client = await RawClient.connect(port)
        client.send(TEXT, b"hello")
        client.send(TEXT, b"hel", fin=False)
        client.send(CONTINUATION, b"lo")
        client.send(BINARY, b"\0")

        assert await recorder.message() == b"\0"
        assert len(texts) == 2
        await client.aclose()


@on_both_loops
async def test_fragments_beyond_the_limit_of_a_message_close_with_1009() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.send(BINARY, LARGEST, fin=False)
        client.send(CONTINUATION, b"x", fin=False)
        client.send(CONTINUATION, b"y")

        opcode, payload = await client.receive()
        assert (opcode, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
        client.send(CLOSE, payload[:2])
        assert await recorder.end() == (1009, "")
        assert recorder.messages.empty()
        await client.aclose()


@on_both_loops
async def test_fragments_beyond_the_limit_drop_those_who_must_not_be_closed() -> None:
    recorder = Recorder()
    answer = UpgradeAnswer(receiver=recorder, subprotocol=SUBPROTOCOL, drops_faults=True)
    async with upgrading_server(lambda _: answer) as port:
        client = await RawClient.connect(port)
        client.send(BINARY, LARGEST, fin=False)
        client.send(CONTINUATION, b"x")

        assert await recorder.end() == (None, "connection lost")
        with suppress(ConnectionError):
            assert await client.receive_end() == b""
        with suppress(ConnectionError):
            await client.aclose()


@on_both_loops
async def test_one_frame_beyond_the_limit_ends_the_connection() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.send(BINARY, LARGEST + b"x")

        opcode, payload = await client.receive()
        assert (opcode, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
        assert await client.receive_end() == b""
        assert (await recorder.end())[0] is None
        await client.aclose()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        pytest.param(b"", (1005, ""), id="no code"),
        pytest.param(b"\x03\xe8", (1000, ""), id="1000"),
        pytest.param(b"\x03\xe9going", (1001, "going"), id="1001 with a reason"),
        pytest.param(b"\x0f\xa0", (4000, ""), id="own code"),
    ],
)
@on_both_loops
async def test_the_close_code_of_the_peer_is_told(
    payload: bytes, expected: tuple[int, str]
) -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.send(CLOSE, payload)

        assert await client.receive() == (CLOSE, payload[:2])
        assert await client.receive_end() == b""
        assert await recorder.end() == expected
        await client.aclose()


@on_both_loops
async def test_a_connection_that_breaks_has_no_close_code() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        transport = await recorder.transport()
        client.writer.transport.abort()

        assert await recorder.end() == (None, "connection lost")
        # Whoever still holds the transport may go on calling it.
        transport.send(b"x")
        transport.ping()
        transport.limit_buffer(1000)
        transport.close(1000, "")
        transport.abort()
        assert transport.buffered_bytes == 0


@on_both_loops
async def test_a_close_says_its_code_and_as_much_of_its_reason_as_fits() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port, library_client(port) as client:
        transport = await recorder.transport()
        transport.send(b"last")
        transport.close(1008, "é" * 100)
        transport.close(1000, "again")
        transport.send(b"ignored")

        assert await client.recv() == b"last"
        with pytest.raises(websockets.ConnectionClosedError):
            await client.recv()
        assert (client.close_code, client.close_reason) == (1008, "é" * 61)
        assert (await recorder.end())[0] == 1008


@on_both_loops
async def test_a_peer_that_does_not_answer_a_close_is_dropped() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        transport = await recorder.transport()
        started = asyncio.get_running_loop().time()
        transport.close(1000, "bye")

        assert await recorder.end() == (None, "connection lost")
        assert asyncio.get_running_loop().time() - started >= CLOSE_SECONDS * 0.9
        await client.aclose()


@on_both_loops
async def test_a_peer_that_reads_a_close_late_still_finds_an_orderly_end(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    files = authority.write("server", "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate_file, files.key_file)
    recorder = Recorder()

    def connect_late(port: int) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
        return authority.client().wrap_socket(
            plain, server_hostname="localhost", suppress_ragged_eofs=False
        )

    def read_to_end(client: ssl.SSLSocket) -> bytes:
        received = b""
        while piece := client.recv(4096):  # raises when TLS's goodbye is missing
            received += piece
        return received

    async with upgrading_server(accepting(recorder), tls=tls) as port:
        with await asyncio.to_thread(connect_late, port) as client:
            await asyncio.to_thread(client.sendall, UPGRADE_HEAD)
            transport = await recorder.transport()
            transport.close(1000, "bye")
            await recorder.end()

            received = await asyncio.to_thread(read_to_end, client)

    assert received.endswith((1000).to_bytes(2, "big") + b"bye")


@on_both_loops
async def test_a_ping_is_answered_and_an_abort_is_at_once() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        transport = await recorder.transport()
        transport.ping()
        assert (await client.receive())[0] == PING
        transport.abort()
        transport.ping()

        assert await recorder.end() == (None, "connection lost")
        await client.aclose()


@on_both_loops
async def test_a_slow_peer_pauses_writing_exactly_at_the_limit() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a stream's transport
        transport = await recorder.transport()
        limit = 50_000
        transport.limit_buffer(limit)
        for _ in range(5000):
            assert recorder.paused.is_set() == (transport.buffered_bytes >= limit)
            if recorder.paused.is_set():
                break
            transport.send(bytes(10_000))
            await asyncio.sleep(0)
        assert recorder.paused.is_set()

        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        async with asyncio.timeout(SECONDS):
            while not recorder.resumed.is_set():
                assert await client.reader.read(1 << 20)
        assert transport.buffered_bytes < limit
        await client.aclose()


@on_both_loops
async def test_a_refusal_has_a_status_headers_and_a_body() -> None:
    asked: list[tuple[str, list[str]]] = []

    def refuse(upgrade: Any) -> UpgradeAnswer:
        asked.append((upgrade.path, upgrade.subprotocols))
        return UpgradeAnswer(status=400, body=b'{"error":"no"}', headers={"X-Versions": "v1"})

    recorder = Recorder()
    async with upgrading_server(refuse) as port:
        with pytest.raises(UpgradeRefused) as caught:
            await dial(recorder, f"ws://127.0.0.1:{port}/x?y=1")

    error = caught.value
    assert (error.status, error.body) == (400, '{"error":"no"}')
    assert {k.lower(): v for k, v in error.headers.items()}["x-versions"] == "v1"
    assert str(error) == 'HTTP 400: {"error":"no"}'
    assert asked == [("/x?y=1", [SUBPROTOCOL])]
    assert not recorder.opened.done()


def test_a_refusal_without_a_body_is_its_status() -> None:
    assert str(UpgradeRefused(503, "", {})) == "HTTP 503"


@on_both_loops
async def test_an_independent_client_sees_the_refusal() -> None:
    answer = UpgradeAnswer(status=403, body=b'{"error":"no"}')
    async with upgrading_server(lambda _: answer) as port:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with library_client(port):
                pass

    assert caught.value.response.status_code == 403
    assert caught.value.response.body == b'{"error":"no"}'


@on_both_loops
async def test_a_server_that_does_not_name_the_subprotocol_is_refused() -> None:
    async def wait(connection: ServerConnection) -> None:
        await connection.wait_closed()

    recorder = Recorder()
    async with library_server(wait, subprotocols=None) as url:
        with pytest.raises(ConnectionError, match=f"does not speak {SUBPROTOCOL}"):
            await dial(recorder, url)
        await recorder.end()


@on_both_loops
async def test_what_is_not_http_is_no_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises((OSError, UpgradeRefused)):
        await dial(Recorder(), f"ws://127.0.0.1:{port}/x")
    server.close()


@pytest.mark.parametrize(
    ("proxy", "reason"),
    [
        pytest.param("http://127.0.0.1:{port}", "proxy refused", id="refusing"),
        pytest.param("gopher://127.0.0.1:{port}", "not a usable address", id="unknown scheme"),
    ],
)
@on_both_loops
async def test_a_proxy_that_does_not_help_is_no_connection(proxy: str, reason: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    with pytest.raises(ConnectionError, match=reason):
        await dial(Recorder(), "ws://192.0.2.1/x", proxy=proxy.format(port=port))
    server.close()


@on_both_loops
async def test_nobody_there_is_no_connection() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=r"refused|Connect"):
            await dial(Recorder(), f"ws://127.0.0.1:{unused.getsockname()[1]}/x")


@on_both_loops
async def test_a_certificate_that_is_not_trusted_stays_what_it_is(tmp_path: Path) -> None:
    files = TestAuthority(tmp_path).write("server", "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate_file, files.key_file)

    async with upgrading_server(accepting(Recorder()), tls=tls) as port:
        with pytest.raises(ssl.SSLCertVerificationError) as refusal:
            await connect(
                Recorder(),
                f"wss://127.0.0.1:{port}/x",
                subprotocol="test",
                headers={},
                ssl_context=ssl.create_default_context(),
                timeout_seconds=SECONDS,
            )

    assert refusal.value.verify_message


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Accepts and says nothing; tells when somebody asked, and when they hung up."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # On a busy machine a client may give up before it has asked.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", asked, ended
    finally:
        server.close()


@on_both_loops
async def test_a_server_that_does_not_answer_costs_the_timeout_and_no_socket() -> None:
    async with silent_server() as (url, _, ended):
        with pytest.raises(TimeoutError):
            await dial(Recorder(), url, timeout_seconds=0.3)

        async with asyncio.timeout(SECONDS):
            await ended.wait()


@on_both_loops
async def test_a_cancelled_dial_leaves_no_connection() -> None:
    recorder = Recorder()
    async with silent_server() as (url, asked, ended):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(dial(recorder, url, timeout_seconds=1.0))
            async with asyncio.timeout(SECONDS):
                await asked.wait()
            task.cancel()

        async with asyncio.timeout(SECONDS):
            await ended.wait()
    assert not recorder.opened.done()


@on_both_loops
async def test_an_answer_to_a_cancelled_dial_is_hung_up() -> None:
    held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked, ended = asyncio.Event(), asyncio.Event()

    async def answer_late(connection: ServerConnection, _: Any) -> None:
        asked.set()
        await held

    async def wait(connection: ServerConnection) -> None:
        await connection.wait_closed()
        ended.set()

    recorder = Recorder()
    async with library_server(wait, process_request=answer_late) as url:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(dial(recorder, url))
            async with asyncio.timeout(SECONDS):
                await asked.wait()
            task.cancel()
        held.set_result(None)

        async with asyncio.timeout(SECONDS):
            await ended.wait()
    assert not recorder.opened.done()
    assert not recorder.lost.done()


@on_both_loops
@pytest.mark.parametrize(("drops", "closing"), [(True, []), (False, [1002])])
async def test_who_breaks_the_rules_is_told_so_unless_a_close_would_mean_something_else(
    drops: bool, closing: list[int]
) -> None:
    recorder = Recorder()

    def decide(_: Any) -> UpgradeAnswer:
        return UpgradeAnswer(receiver=recorder, subprotocol=SUBPROTOCOL, drops_faults=drops)

    async with upgrading_server(decide) as port:
        client = await RawClient.connect(port)
        client.send(0x3, b"no such opcode")

        received = b""
        with suppress(ConnectionError):
            received = await client.receive_end()
        with suppress(ConnectionError):
            await client.aclose()
    assert [int.from_bytes(received[2:4], "big")] * bool(received) == closing
    await recorder.end()


@on_both_loops
async def test_a_bug_of_the_receiver_drops_those_who_must_not_be_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Recorder):
        def message_received(self, message: bytes) -> None:
            raise ValueError("a bug")

    recorder = Broken()
    answer = UpgradeAnswer(receiver=recorder, subprotocol=SUBPROTOCOL, drops_faults=True)
    async with upgrading_server(lambda _: answer) as port:
        client = await RawClient.connect(port)
        client.send(BINARY, b"x")

        with suppress(ConnectionError):
            assert await client.receive_end() == b""
        assert await recorder.end() == (None, "connection lost")
        with suppress(ConnectionError):
            await client.aclose()
    assert "a bug" in caplog.text


@on_both_loops
async def test_a_ping_waits_for_its_answer() -> None:
    recorder = Recorder()
    async with upgrading_server(accepting(recorder)) as port:
        client = await RawClient.connect(port)
        transport = await recorder.transport()
        before = transport.awaits_pong
        transport.ping()
        assert (before, transport.awaits_pong) == (False, True)

        opcode, payload = await client.receive()
        assert opcode == PING
        client.send(PONG, payload)
        client.send(BINARY, b"after it")
        assert await recorder.message() == b"after it"
        assert not transport.awaits_pong
        await client.aclose()


@on_both_loops
async def test_a_client_that_does_not_finish_its_upgrade_is_dropped() -> None:
    async with upgrading_server(accepting(Recorder()), handshake_seconds=0.05) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /x HTTP/1.1\r\nUpgrade: webs")

        async with asyncio.timeout(SECONDS):
            assert await reader.read() == b""
        writer.close()


class Handover(asyncio.Protocol):
    """Reads a head and everything behind it, then hands the connection over, as the front does."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        protocol = server_protocol(accepting(self._recorder), handshake_seconds=SECONDS)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        feed(protocol, data)


@on_both_loops
async def test_a_connection_that_somebody_began_to_read_can_be_taken_over() -> None:
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    server = await aiofastnet.create_server(loop, lambda: Handover(recorder), "127.0.0.1", 0)
    async with library_client(server.sockets[0].getsockname()[1]) as client:
        await client.send(b"hello")
        assert await recorder.message() == b"hello"
        (await recorder.transport()).send(b"back")
        assert await client.recv() == b"back"
    server.close()
