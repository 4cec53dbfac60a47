"""Both generations of the hoody-tunnel double against a small kit that a test plays by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from helpers.doubles.hoody_frames import (
    PATH,
    V1,
    V2,
    Frame,
    Type,
    decode,
    json_frame,
    reset,
    window,
)
from helpers.doubles.process import Double, start_double
from helpers.origins import RawOrigin, WebOrigin
from helpers.processes import PATIENCE_SECONDS

GET = {"kind": "http", "method": "GET", "target": "/", "headers": [], "isUpgrade": False}


class Kit:
    """Answers HELLO and BIND; a test does the rest through `tell` and `next`."""

    def __init__(self) -> None:
        self.hello: dict[str, Any] = {"sessionId": "S-1"}
        self.after_hello: list[Frame] = []
        self.refusal: tuple[Frame | None, int, str] | None = None
        self.sockets: list[ServerConnection] = []
        self.said: asyncio.Queue[tuple[int, Frame]] = asyncio.Queue()
        self.port = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Kit":
        server = await self._stack.enter_async_context(
            serve(
                self._serve,
                "127.0.0.1",
                0,
                subprotocols=[Subprotocol(V1), Subprotocol(V2)],
                ping_interval=None,
                close_timeout=1,
            )
        )
        self.port = server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    async def _serve(self, connection: ServerConnection) -> None:
        index = len(self.sockets)
        self.sockets.append(connection)
        try:
            async for message in connection:
                assert isinstance(message, bytes)
                for frame in decode(message):
                    await self._receive(frame, index)
        except ConnectionClosed:
            return

    async def _receive(self, frame: Frame, index: int) -> None:
        match frame.type:
            case Type.HELLO if self.refusal is not None:
                goaway, code, reason = self.refusal
                if goaway is not None:
                    await self.tell(goaway)
                await self.sockets[0].close(code, reason)
            case Type.HELLO:
                await self.tell(json_frame(Type.HELLO_OK, self.hello), *self.after_hello)
            case Type.JOIN:
                await self.tell(json_frame(Type.JOIN_OK, {}), index=index)
            case Type.BIND:
                asked = frame.json()
                answer = {"bindId": 1, "containerPort": 20_000, "publicUrl": None}
                fields = {"clientBindRef": asked["clientBindRef"], **answer}
                await self.tell(json_frame(Type.BIND_OK, fields))
            case Type.UNBIND:
                await self.tell(json_frame(Type.UNBIND_OK, frame.json()))
        self.said.put_nowait((index, frame))

    async def tell(self, *frames: Frame, index: int = 0) -> None:
        await self.sockets[index].send(b"".join(frame.encode() for frame in frames))

    async def next(self, *types: Type) -> tuple[int, Frame]:
        """Return the next frame of one of the types, and the socket it came on."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                index, frame = await self.said.get()
                if frame.type in types:
                    return index, frame


@pytest.fixture
async def kit() -> AsyncIterator[Kit]:
    async with Kit() as kit:
        yield kit


@pytest.fixture
async def stack(kit: Kit) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def origin() -> AsyncIterator[WebOrigin]:
    async with WebOrigin() as origin:
        yield origin


async def start(stack: AsyncExitStack, kit: Kit, generation: str, *options: str) -> Double:
    return await start_double(
        stack,
        "hoody_client",
        *("--url", f"ws://127.0.0.1:{kit.port}{PATH}", "--generation", generation, *options),
    )


def expose(port: int) -> tuple[str, str]:
    return "--expose", f"0:127.0.0.1:{port}"


@pytest.mark.parametrize("generation", ["old", "new"])
async def test_a_request_is_answered(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin, generation: str
) -> None:
    client = await start(stack, kit, generation, *expose(origin.port))
    await client.wait_event("bound")

    await kit.tell(json_frame(Type.STREAM_OPEN, GET, 2))

    _, head = await kit.next(Type.STREAM_RESPONSE_HEAD)
    assert (head.json()["status"], head.json()["final"]) == (200, True)
    _, data = await kit.next(Type.DATA)
    assert data.payload.startswith(b"hello")
    await kit.next(Type.EOF)
    assert client.violations == []


@pytest.mark.parametrize(
    ("generation", "sends_auth"), [pytest.param("old", True), pytest.param("new", False)]
)
async def test_only_the_old_one_puts_its_token_into_hello(
    stack: AsyncExitStack, kit: Kit, generation: str, sends_auth: bool
) -> None:
    await start(stack, kit, generation)

    _, hello = await kit.next(Type.HELLO)

    assert ("auth" in hello.json()) is sends_auth
    assert hello.json()["version"] == V1


@pytest.mark.parametrize(("eof", "socket"), [(False, 1), (True, 0)], ids=["without", "with"])
async def test_an_eof_of_the_kit_moves_the_answer_to_the_primary(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin, eof: bool, socket: int
) -> None:
    kit.hello["joinTickets"] = [{"index": 1, "nonce": "n", "expiresMs": 1_000}]
    client = await start(stack, kit, "new", "--sockets", "2", *expose(origin.port))
    await client.wait_event("bound")

    end = [Frame(Type.EOF, 2)] if eof else []
    await kit.tell(json_frame(Type.STREAM_OPEN, GET, 2), *end, index=1)

    assert (await kit.next(Type.STREAM_RESPONSE_HEAD))[0] == socket


async def test_the_old_one_sends_nothing_before_a_body_is_complete(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin
) -> None:
    client = await start(stack, kit, "old", *expose(origin.port))
    await client.wait_event("bound")
    await kit.tell(json_frame(Type.STREAM_OPEN, {**GET, "target": "/events"}, 2))
    await kit.tell(json_frame(Type.STREAM_OPEN, GET, 4))

    origin.news.put_nowait("half")
    _, first = await kit.next(Type.STREAM_RESPONSE_HEAD)
    origin.news.put_nowait(None)
    _, second = await kit.next(Type.STREAM_RESPONSE_HEAD)

    assert (first.stream_id, second.stream_id) == (4, 2)


async def test_the_new_one_streams(stack: AsyncExitStack, kit: Kit, origin: WebOrigin) -> None:
    client = await start(stack, kit, "new", *expose(origin.port))
    await client.wait_event("bound")

    await kit.tell(json_frame(Type.STREAM_OPEN, {**GET, "target": "/events"}, 2))

    await kit.next(Type.STREAM_RESPONSE_HEAD)
    origin.news.put_nowait("half")
    assert (await kit.next(Type.DATA))[1].payload == b"data: half\n\n"


@pytest.mark.parametrize(("generation", "is_lost"), [("old", True), ("new", False)])
async def test_a_stream_right_behind_hello_ok_is_lost_on_the_old_one(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin, generation: str, is_lost: bool
) -> None:
    kit.hello |= {
        "resumed": True,
        "resumedBinds": [{"bindId": 1, "kind": "http", "mode": "expose", "containerPort": 20_000}],
    }
    kit.after_hello = [json_frame(Type.STREAM_OPEN, GET, 2)]
    client = await start(stack, kit, generation, "--resume", "S-1", *expose(origin.port))
    await client.wait_event("connected")

    stats = await client.ask("stats", answer="stats")

    assert stats["lost_streams"] == int(is_lost)


@pytest.mark.parametrize(
    ("generation", "refusal", "code"),
    [
        pytest.param("old", (None, 1013, "session limit"), "CLOSED", id="old"),
        pytest.param("new", (None, 1013, "session limit"), "SESSION_LIMIT", id="limit"),
        pytest.param("new", (None, 1008, ""), "RESUME_EXPIRED", id="resume-by-code"),
        pytest.param("new", (None, 1002, "why"), "REFUSED", id="reason"),
        pytest.param("new", (None, 1002, ""), "CLOSED_BEFORE_HELLO", id="bare"),
        pytest.param(
            "new",
            (json_frame(Type.GOAWAY, {"code": 14, "message": "full"}), 1002, ""),
            "SESSION_LIMIT",
            id="goaway-14",
        ),
        pytest.param(
            "new",
            (json_frame(Type.GOAWAY, {"code": 6, "message": "resume grace expired"}), 1002, ""),
            "RESUME_EXPIRED",
            id="goaway-resume",
        ),
    ],
)
async def test_refusals_are_read_as_each_generation_does(
    stack: AsyncExitStack,
    kit: Kit,
    generation: str,
    refusal: tuple[Frame | None, int, str],
    code: str,
) -> None:
    kit.refusal = refusal

    client = await start(stack, kit, generation, "--resume", "S-1")

    assert (await client.wait_event("refused"))["code"] == code
    assert await client.wait_exit() == 1


@pytest.mark.parametrize(("generation", "unbinds"), [("old", False), ("new", True)])
async def test_a_clean_close_has_no_code(
    stack: AsyncExitStack, kit: Kit, generation: str, unbinds: bool
) -> None:
    client = await start(stack, kit, generation, *expose(9))
    await client.wait_event("bound")

    client.command("close")

    assert await client.wait_exit() == 0
    assert kit.sockets[0].close_code == 1005
    said = [kit.said.get_nowait()[1].type for _ in range(kit.said.qsize())]
    assert (Type.UNBIND in said) is unbinds


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(window(0, 0), id="window-0"),
        pytest.param(json_frame(Type.GOAWAY, {"code": 0, "message": ""}), id="goaway"),
    ],
)
async def test_it_closes_at_once_over(stack: AsyncExitStack, kit: Kit, wrong: Frame) -> None:
    client = await start(stack, kit, "new", *expose(9))
    await client.wait_event("bound")

    await kit.tell(wrong)

    await client.wait_event("session_lost")
    assert kit.sockets[0].close_code == 1005


async def test_a_bad_message_is_lost_in_silence(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin
) -> None:
    client = await start(stack, kit, "new", *expose(origin.port))
    await client.wait_event("bound")

    await kit.tell(json_frame(Type.STREAM_OPEN, GET, 2), Frame(0x11, 0))
    await kit.tell(json_frame(Type.STREAM_OPEN, GET, 4))

    assert (await kit.next(Type.STREAM_RESPONSE_HEAD))[1].stream_id == 4
    assert client.violations == ["a message was thrown away: frame type 0x11"]


@pytest.mark.parametrize(("generation", "frames"), [("old", []), ("new", [Type.DATA, Type.EOF])])
async def test_an_early_eof_of_tcp_loses_all_on_the_old_one(
    stack: AsyncExitStack, kit: Kit, generation: str, frames: list[Type]
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    service = await asyncio.start_server(answer, "127.0.0.1", 0)
    stack.callback(service.close)
    port = service.sockets[0].getsockname()[1]
    client = await start(stack, kit, generation, "--pull", f"0:127.0.0.1:{port}")
    await client.wait_event("bound")

    await kit.tell(
        json_frame(Type.STREAM_OPEN, {"kind": "tcp"}, 2),
        Frame(Type.DATA, 2, b"ping"),
        Frame(Type.EOF, 2),
    )

    assert [(await kit.next(Type.DATA, Type.EOF))[1].type for _ in frames] == frames
    stats = await client.ask("stats", answer="stats")
    assert stats["open_streams"] == 0


@pytest.mark.parametrize(("generation", "answers"), [("old", True), ("new", False)])
async def test_only_the_old_one_answers_a_get_that_was_reset(
    stack: AsyncExitStack, kit: Kit, origin: WebOrigin, generation: str, answers: bool
) -> None:
    client = await start(stack, kit, generation, *expose(origin.port))
    await client.wait_event("bound")
    await kit.tell(json_frame(Type.STREAM_OPEN, {**GET, "target": "/gated"}, 2))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await origin.arrived.acquire()

    await kit.tell(reset(2, 7, ""))
    await client.wait_event("reset")
    origin.gate.set()
    await kit.tell(json_frame(Type.STREAM_OPEN, {**GET, "target": "/headers"}, 4))

    ids = {(await kit.next(Type.STREAM_RESPONSE_HEAD))[1].stream_id for _ in range(1 + answers)}
    assert ids == ({2, 4} if answers else {4})


async def test_head_hangs_on_the_old_one_until_the_service_closes(
    stack: AsyncExitStack, kit: Kit
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")

    async with RawOrigin(answer) as service:
        client = await start(stack, kit, "old", *expose(service.port))
        await client.wait_event("bound")

        await kit.tell(json_frame(Type.STREAM_OPEN, {**GET, "method": "HEAD"}, 2))

        _, said = await kit.next(Type.STREAM_RESPONSE_HEAD, Type.RESET)
        assert said.payload[2:] == b"local connect failed"
