"""The rustunnel double against a small server that answers by the book, or on purpose not."""

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from helpers.certificates import TestAuthority
from helpers.doubles.naive_yamux import Stream, Yamux
from helpers.doubles.process import Double, start_double
from helpers.origins import WebOrigin
from helpers.processes import PATIENCE_SECONDS, moment

Script = Callable[["StandIn", ServerConnection], Awaitable[None]]


async def by_the_book(server: "StandIn", control: ServerConnection) -> None:
    """Accept the token and each tunnel, then answer pings."""
    async for message in control:
        assert isinstance(message, bytes)
        frame = json.loads(message)
        match frame["type"]:
            case "auth":
                await server.tell(control, "auth_ok", **server.greeting)
            case "register_tunnel":
                await server.tell(
                    control,
                    "tunnel_registered",
                    request_id=frame["request_id"],
                    tunnel_id=str(uuid.uuid4()),
                    public_url="http://demo.example.com",
                    assigned_port=None,
                )
            case "ping":
                await server.tell(control, "pong", timestamp=frame["timestamp"])
        server.received.append(frame)


class StandIn:
    """A rustunnel server of a few lines: no limits, no routing, one session at a time."""

    def __init__(self, directory: Path) -> None:
        self.script: Script = by_the_book
        self.session_id = str(uuid.uuid4())
        self.received: list[dict[str, object]] = []
        self.refuses_data = False
        self.control: ServerConnection
        self.data: ServerConnection
        self.yamux: Yamux
        self.attached = asyncio.Event()
        self.port = 0
        self._directory = directory
        self._stack = AsyncExitStack()

    @property
    def greeting(self) -> dict[str, str]:
        return {"session_id": self.session_id, "server_version": "0.3.6"}

    async def tell(self, control: ServerConnection, kind: str, **fields: object) -> None:
        await control.send(json.dumps({"type": kind, **fields}).encode())

    async def __aenter__(self) -> "StandIn":
        files = TestAuthority(self._directory).write("server", "localhost")
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(files.certificate_file, files.key_file)
        server = await self._stack.enter_async_context(
            serve(
                self._serve,
                "127.0.0.1",
                0,
                ssl=tls,
                compression=None,
                ping_interval=None,
                process_request=self._admit,
            )
        )
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/_data/") and self.refuses_data:
            return connection.respond(404, "no such session")
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        try:
            if connection.request.path == "/_control":
                self.control = connection
                await self.script(self, connection)
            else:
                await self._serve_data(connection)
        except ConnectionClosed:
            return

    async def _serve_data(self, connection: ServerConnection) -> None:
        out: asyncio.Queue[bytes] = asyncio.Queue()

        async def room() -> None:
            pass

        async def send() -> None:
            while True:
                await connection.send(await out.get())

        self.data = connection
        self.yamux = Yamux(out.put_nowait, room, is_client=True, accepted=lambda _: None)
        self.attached.set()
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(send())
            async for message in connection:
                assert isinstance(message, bytes)
                self.yamux.feed(message)
            sending.cancel()

    async def visit(self, request: bytes, *, announce_first: bool = True) -> tuple[Stream, bytes]:
        """Send a request through the client and return the first bytes of the answer."""
        conn_id = uuid.uuid4()
        announcement = {
            "conn_id": str(conn_id),
            "client_addr": "192.0.2.1:1",
            "protocol": "http",
        }
        if announce_first:
            await self.tell(self.control, "new_connection", **announcement)
        stream = self.yamux.open()
        await stream.write(conn_id.bytes + request)
        if not announce_first:
            await self.tell(self.control, "new_connection", **announcement)
        async with asyncio.timeout(PATIENCE_SECONDS):
            return stream, await stream.read()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[StandIn]:
    async with StandIn(tmp_path) as server:
        yield server


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def origin() -> AsyncIterator[WebOrigin]:
    async with WebOrigin() as origin:
        yield origin


async def start(
    stack: AsyncExitStack, server: StandIn, *options: str, port: int = 9, release: str = "0.3.6"
) -> Double:
    return await start_double(
        stack,
        "rustunnel_client",
        *("--server", f"localhost:{server.port}", "--connect", "127.0.0.1", "--insecure"),
        *("--release", release, "--tunnel", f"http:127.0.0.1:{port}:demo", *options),
    )


@pytest.mark.parametrize("announce_first", [True, False], ids=["announced", "stream-first"])
async def test_a_request_reaches_the_local_service(
    stack: AsyncExitStack, server: StandIn, origin: WebOrigin, announce_first: bool
) -> None:
    client = await start(stack, server, port=origin.port)
    await client.wait_event("attached")

    _, answer = await server.visit(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", announce_first=announce_first
    )

    assert answer.startswith(b"HTTP/1.1 200")
    assert client.violations == []
    assert server.received[1]["subdomain"] == "demo"


async def test_a_closed_local_port_resets_the_stream(
    stack: AsyncExitStack, server: StandIn
) -> None:
    client = await start(stack, server)
    await client.wait_event("attached")

    with pytest.raises(Exception, match="stream 1"):
        await server.visit(b"GET / HTTP/1.1\r\n\r\n")


async def refuse(server: StandIn, control: ServerConnection) -> None:
    await control.recv()
    await server.tell(control, "auth_error", message="invalid token")


async def refuse_name(server: StandIn, control: ServerConnection) -> None:
    await control.recv()
    await server.tell(control, "auth_ok", **server.greeting)
    frame = json.loads(await control.recv())
    await server.tell(
        control,
        "tunnel_error",
        request_id=frame["request_id"],
        message="tunnel error: subdomain 'demo' is already in use",
    )
    await control.wait_closed()


async def refuse_oauth(server: StandIn, control: ServerConnection) -> None:
    await control.recv()
    await server.tell(control, "auth_ok", **server.greeting)
    frame = json.loads(await control.recv())
    await server.tell(
        control,
        "tunnel_error",
        request_id=frame["request_id"],
        message="tunnel error: subdomain 'oauth-demo' is already in use",
    )
    await control.wait_closed()


async def ping_too_early(server: StandIn, control: ServerConnection) -> None:
    await control.recv()
    await control.ping()
    await control.wait_closed()


@pytest.mark.parametrize(
    ("script", "release", "exit_code"),
    [
        pytest.param(refuse, "0.3.6", 0, id="auth-error-0.3.6"),
        pytest.param(refuse, "0.8.0", 1, id="auth-error-0.8.0"),
        pytest.param(refuse_name, "0.3.6", None, id="name-taken-0.3.6"),
        pytest.param(refuse_name, "0.8.0", None, id="name-taken-0.8.0"),
        pytest.param(refuse_name, "0.8.2", 1, id="name-taken-0.8.2"),
        pytest.param(refuse_oauth, "0.3.6", 0, id="the-word-0.3.6"),
        pytest.param(refuse_oauth, "0.8.0", None, id="the-word-0.8.0"),
        pytest.param(ping_too_early, "0.3.6", None, id="ping-in-the-quiet"),
    ],
)
async def test_each_release_decides_by_its_own_rule(
    stack: AsyncExitStack, server: StandIn, script: Script, release: str, exit_code: int | None
) -> None:
    server.script = script
    client = await start(stack, server, release=release)

    error = await client.wait_event("error")

    assert error["fatal"] is (exit_code is not None)
    if exit_code is None:
        assert (await client.wait_event("reconnecting"))["seconds"] == 1.0
    else:
        assert await client.wait_exit() == exit_code


async def test_it_comes_back_after_exactly_one_second(
    stack: AsyncExitStack, server: StandIn
) -> None:
    client = await start(stack, server)
    await client.wait_event("attached")
    server.control.transport.abort()

    _, again = await client.wait_events("connecting", 2)

    waited = moment(again) - moment(client.events("control_closed")[0])
    # The next step would be two seconds.
    assert 1.0 <= waited.total_seconds() < 2.0


async def test_an_orderly_close_ends_it_for_good(stack: AsyncExitStack, server: StandIn) -> None:
    client = await start(stack, server)
    await client.wait_event("attached")

    await server.control.close()

    assert await client.wait_exit() == 0


@pytest.mark.parametrize(("release", "event"), [("0.3.6", "reconnecting"), ("0.4.10", "attached")])
async def test_a_lost_data_channel_is_attached_again_since_0_4_10(
    stack: AsyncExitStack, server: StandIn, release: str, event: str
) -> None:
    client = await start(stack, server, release=release)
    await client.wait_event("attached")
    await server.attached.wait()
    since = len(client.lines)

    server.data.transport.abort()

    await client.wait_event(event, since=since)


async def test_without_its_data_channel_an_old_client_is_a_zombie(
    stack: AsyncExitStack, server: StandIn
) -> None:
    server.refuses_data = True

    client = await start(stack, server)

    assert (await client.wait_event("data_refused"))["status"] == 404
    await client.wait_event("zombie")


async def test_ctrl_c_says_close_and_ends(stack: AsyncExitStack, server: StandIn) -> None:
    client = await start(stack, server)
    await client.wait_event("attached")

    client.command("interrupt")

    assert await client.wait_exit() == 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        await server.control.wait_closed()
    assert server.control.close_code == 1005


async def test_a_vanished_client_leaves_no_goodbye(stack: AsyncExitStack, server: StandIn) -> None:
    client = await start(stack, server, "--vanish-at", "attached")

    assert await client.wait_exit() == 9
    async with asyncio.timeout(PATIENCE_SECONDS):
        await server.control.wait_closed()
    assert server.control.close_code == 1006
