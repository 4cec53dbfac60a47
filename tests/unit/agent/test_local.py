"""Local services: real sockets of every kind behind streams of a server that the test plays."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from helpers.certificates import TestAuthority
from helpers.tunnel_server import SHOP, Connection, RunningAgent, running_agent, tunnel_server
from moleport_agent.events import TunnelOpened, UpstreamFailed
from moleport_agent.settings import Target, TunnelSettings
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code
from moleport_wire.proxy_protocol import parse

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer everything in capitals once the question has ended."""
    question = await reader.read()
    writer.write(question.upper())
    await writer.drain()
    writer.close()


async def echo_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one line; TLS has no half close to wait for."""
    line = await reader.readline()
    writer.write(line.upper())
    await writer.drain()
    writer.close()


@asynccontextmanager
async def local_service(serve: Serve = echo, **options: Any) -> AsyncIterator[Target]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield Target(text=str(port), port=port)


@asynccontextmanager
async def exposed(target: Target, **changes: Any) -> AsyncIterator[tuple[Connection, RunningAgent]]:
    """Run an agent with one tunnel to the target and let the server give it an address."""
    tunnel: TunnelSettings = replace(SHOP, target=target, **changes)
    async with tunnel_server() as server, running_agent(server, tunnel) as agent:
        connection = await server.accept()
        await connection.serve_shop()
        await agent.event(TunnelOpened)
        yield connection, agent


async def until_eof(connection: Connection) -> bytes:
    data = b""
    while True:
        kind, _, payload = await connection.frame(frames.DATA, frames.EOF, frames.RESET)
        if kind != frames.DATA:
            assert kind == frames.EOF
            return data
        data += payload


async def test_bytes_pass_both_ways_with_half_close() -> None:
    async with local_service() as target, exposed(target) as (connection, _):
        await connection.open_stream(2)
        await connection.send(frames.DATA, b"question ", 2)
        await connection.send(frames.DATA, b"of many parts", 2)
        await connection.send(frames.EOF, b"", 2)

        assert await until_eof(connection) == b"QUESTION OF MANY PARTS"


async def test_streams_do_not_disturb_each_other() -> None:
    async with local_service() as target, exposed(target) as (connection, _):
        for stream in (2, 3, 4):
            await connection.open_stream(stream)
            await connection.send(frames.DATA, b"x" * stream, stream)
        answers = {}
        for stream in (4, 2, 3):
            await connection.send(frames.EOF, b"", stream)
            _, answered, payload = await connection.frame(frames.DATA)
            answers[answered] = payload

        assert answers == {2: b"XX", 3: b"XXX", 4: b"XXXX"}


async def end_streams_before_they_are_connected_and_use_the_next() -> None:
    async with local_service() as target, exposed(target) as (connection, _):
        opening = messages.StreamOpen(bind_id=1, peer="", window=1 << 18).encode()
        for stream in range(2, 8):  # opened and reset in one message
            await connection._socket.send(
                frames.serialize(frames.STREAM_OPEN, stream, opening)
                + frames.serialize(frames.RESET, stream, int(Code.CANCEL).to_bytes(2, "big"))
            )
        await connection.open_stream(8)
        await connection.send(frames.DATA, b"heard", 8)
        await connection.send(frames.EOF, b"", 8)

        async with asyncio.timeout(10):
            assert await until_eof(connection) == b"HEARD"


def test_streams_that_end_before_they_are_connected_leave_the_next_ones_alone() -> None:
    # On the agent's own loop, whose transports leave a reader behind otherwise.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(end_streams_before_they_are_connected_and_use_the_next())


async def test_a_service_that_is_not_there_refuses_the_stream() -> None:
    async with local_service() as target:
        pass
    async with exposed(target) as (connection, agent):
        await connection.open_stream(2)
        await connection.send(frames.DATA, b"early", 2)

        _, stream, payload = await connection.frame(frames.RESET)

        assert (stream, int.from_bytes(payload[:2], "big")) == (2, Code.REFUSED)
        failed = await agent.event(UpstreamFailed)
        assert (failed.name, failed.target) == ("shop", target.text)
        assert failed.reason


async def test_a_service_that_hangs_up_resets_nothing_that_ended_well() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 ready")
        await writer.drain()
        writer.close()

    async with local_service(greet) as target, exposed(target) as (connection, _):
        await connection.open_stream(2)

        assert await until_eof(connection) == b"220 ready"


async def test_a_service_that_breaks_off_resets_the_stream() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with local_service(break_off) as target, exposed(target) as (connection, _):
        await connection.open_stream(2)
        await connection.send(frames.DATA, b"x", 2)

        assert (await connection.frame(frames.RESET, frames.EOF))[0] == frames.RESET


async def test_a_reset_stream_aborts_the_connection_of_the_service() -> None:
    ends: asyncio.Queue[Exception | bytes] = asyncio.Queue()

    async def note_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ends.put_nowait(await reader.readexactly(1))
            ends.put_nowait(await reader.read())
        except ConnectionError as error:
            ends.put_nowait(error)
        finally:
            writer.close()

    async with local_service(note_end) as target, exposed(target) as (connection, _):
        await connection.open_stream(2)
        await connection.send(frames.DATA, b"x", 2)
        async with asyncio.timeout(20):
            assert await ends.get() == b"x"

        await connection.send(frames.RESET, int(Code.CANCEL).to_bytes(2, "big"), 2)

        async with asyncio.timeout(20):
            assert isinstance(await ends.get(), ConnectionResetError)


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("peer", "host"),
    [("192.0.2.9:4000", "192.0.2.9"), ("[2001:db8::9]:4000", "2001:db8::9"), ("", None)],
    ids=["IPv4", "IPv6", "unknown"],
)
async def test_a_service_that_asks_for_it_learns_first_who_the_visitor_is(
    version: str, peer: str, host: str | None
) -> None:
    heads: asyncio.Queue[bytes] = asyncio.Queue()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.put_nowait(await reader.read())
        writer.close()

    async with (
        local_service(keep) as target,
        exposed(target, proxy_protocol=version) as (connection, _),
    ):
        await connection.open_stream(2, peer=peer)
        await connection.send(frames.DATA, b"hello", 2)
        await connection.send(frames.EOF, b"", 2)
        async with asyncio.timeout(20):
            data = await heads.get()

        parsed = parse(data)
        assert parsed is not None
        assert (None if parsed.source is None else parsed.source.host) == host
        assert data[parsed.consumed :] == b"hello"


async def test_a_unix_socket_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with (
        await asyncio.start_unix_server(echo, path),
        exposed(Target(text=f"unix:{path}", unix_path=path)) as (connection, _),
    ):
        await connection.open_stream(2)
        await connection.send(frames.DATA, b"hello", 2)
        await connection.send(frames.EOF, b"", 2)

        assert await until_eof(connection) == b"HELLO"


def tls_server(authority: TestAuthority, *names: str) -> ssl.SSLContext:
    files = authority.write("service", *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate_file, files.key_file)
    return context


@pytest.mark.parametrize("trust", ["ca file", "not verified"])
async def test_a_service_with_tls_is_a_target(tmp_path: Path, trust: str) -> None:
    authority = TestAuthority(tmp_path)
    context = tls_server(authority, "service.test")
    ca_file = tmp_path / "ca.pem"
    authority._ca.cert_pem.write_to_path(str(ca_file))
    changes: dict[str, dict[str, Any]] = {
        "ca file": {"ca_file": ca_file},
        "not verified": {"verify": False},
    }
    async with local_service(echo_line, ssl=context) as plain:
        target = replace(plain, tls=True, server_name="service.test")
        target = replace(target, **changes[trust])
        async with exposed(target) as (connection, _):
            await connection.open_stream(2)
            await connection.send(frames.DATA, b"hello\n", 2)

            assert await connection.payload(frames.DATA) == b"HELLO\n"


async def test_a_certificate_that_is_not_trusted_refuses_the_stream(tmp_path: Path) -> None:
    context = tls_server(TestAuthority(tmp_path), "service.test")
    async with (
        local_service(echo_line, ssl=context) as plain,
        exposed(replace(plain, tls=True, server_name="service.test")) as (connection, agent),
    ):
        await connection.open_stream(2)

        payload = await connection.payload(frames.RESET)

        assert int.from_bytes(payload[:2], "big") == Code.REFUSED
        failed = await agent.event(UpstreamFailed)
        assert failed.reason.startswith("its certificate is not trusted: ")
        assert failed.reason.endswith("; name its CA as upstream_ca")


async def test_a_visitor_that_left_before_the_service_answered_leaves_no_connection() -> None:
    async with local_service() as target, exposed(target) as (connection, _):
        await connection.open_stream(2)
        await connection.send(frames.RESET, int(Code.CANCEL).to_bytes(2, "big"), 2)
        await connection.open_stream(3)
        await connection.send(frames.EOF, b"", 3)

        kind, stream, _ = await connection.frame(frames.EOF)
        assert (kind, stream) == (frames.EOF, 3)
