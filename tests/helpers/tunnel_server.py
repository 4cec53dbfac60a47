"""A tunnel server that a test plays, and an agent that runs against it."""

from __future__ import annotations

import asyncio
import http
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from helpers.frame_socket import FrameSocket
from helpers.waiting import DEADLINE_SECONDS, until
from moleport_agent.agent import run_agent
from moleport_agent.events import AgentEvent
from moleport_agent.settings import AgentSettings, Secret, ServerSettings, Target, TunnelSettings
from moleport_wire.hoody import frames, messages

SHOP = TunnelSettings(name="shop", protocol="http", target=Target(text="3000", port=3000))


class Connection(FrameSocket):
    """One connection of the agent, at the server."""

    def __init__(self, socket: ServerConnection) -> None:
        super().__init__()
        self._socket = socket
        assert socket.request is not None
        self.token = socket.request.headers.get("Authorization", "").removeprefix("Bearer ")

    async def hello(self) -> messages.Hello:
        return messages.Hello.decode(await self.payload(frames.HELLO))

    async def grant(self, session_id: str = "S-1", **members: Any) -> None:
        """Answer HELLO."""
        values: dict[str, Any] = {
            "stream_window": 262_144,
            "session_window": 1 << 24,
            "capabilities": (messages.CAPABILITY_MOLEPORT,),
        }
        hello = messages.HelloOk(session_id=session_id, **(values | members))
        await self.send(frames.HELLO_OK, hello.encode())

    async def bind(self) -> messages.Bind:
        return messages.Bind.decode(await self.payload(frames.BIND))

    async def give(
        self, bind: messages.Bind, bind_id: int = 1, url: str = "https://shop.test"
    ) -> None:
        """Answer BIND."""
        answer = messages.BindOk(
            client_bind_ref=bind.client_bind_ref, bind_id=bind_id, public_url=url
        )
        await self.send(frames.BIND_OK, answer.encode())

    async def refuse(self, bind: messages.Bind, code: str, *, is_final: bool) -> None:
        refusal = messages.BindErr(
            client_bind_ref=bind.client_bind_ref, code=code, message="no", is_final=is_final
        )
        await self.send(frames.BIND_ERR, refusal.encode())

    async def open_stream(self, stream_id: int, *, bind_id: int = 1, peer: str = "") -> None:
        opened = messages.StreamOpen(bind_id=bind_id, peer=peer, window=262_144)
        await self.send(frames.STREAM_OPEN, opened.encode(), stream_id)

    async def serve_shop(self, **members: Any) -> messages.Bind:
        """Do what a server does when an agent with one tunnel comes."""
        await self.hello()
        await self.grant(**members)
        bind = await self.bind()
        await self.give(bind)
        return bind


@dataclass(slots=True)
class TunnelServer:
    """Accepts agents; each connection waits for the test to `accept` it."""

    port: int = 0
    refuse_with: int | None = None
    """A status for upgrades, instead of 101."""
    refused: int = 0
    _arrived: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    _is_over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def accept(self) -> Connection:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._arrived.get()

    def check(self, socket: ServerConnection, request: Request) -> Response | None:
        if self.refuse_with is None:
            return None
        self.refused += 1
        status = http.HTTPStatus(self.refuse_with)
        return socket.respond(status, '{"error": "no"}')

    async def handle(self, socket: ServerConnection) -> None:
        self._arrived.put_nowait(Connection(socket))
        await self._is_over.wait()


@asynccontextmanager
async def tunnel_server() -> AsyncIterator[TunnelServer]:
    server = TunnelServer()
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        subprotocols=[messages.SUBPROTOCOL_V2],  # type: ignore[list-item]  # a NewType of str
        process_request=server.check,
        compression=None,
        ping_interval=None,
        close_timeout=0.1,
    ) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        try:
            yield server
        finally:
            server._is_over.set()


@dataclass(slots=True)
class RunningAgent:
    """An agent at work."""

    task: asyncio.Task[int]
    stop: asyncio.Event
    events: list[AgentEvent]

    async def event(self, kind: type[AgentEvent], *, number: int = 1) -> Any:
        """Wait for the n-th event of a kind."""

        def found() -> list[AgentEvent]:
            return [event for event in self.events if isinstance(event, kind)]

        await until(lambda: len(found()) >= number)
        return found()[number - 1]

    async def exit_code(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.task


@asynccontextmanager
async def running_agent(
    server: TunnelServer,
    *tunnels: TunnelSettings,
    read_token: Callable[[], Secret] = lambda: Secret("token-1"),
    **settings: Any,
) -> AsyncIterator[RunningAgent]:
    """Run an agent; it is stopped when the context ends."""
    values: dict[str, Any] = {
        "server": ServerSettings(url=server.url, read_token=read_token),
        "tunnels": tunnels or (SHOP,),
        "backoff_first_seconds": 0.01,
        "backoff_limit_seconds": 0.02,
    }
    stop = asyncio.Event()
    events: list[AgentEvent] = []
    async with asyncio.TaskGroup() as group:
        work = run_agent(AgentSettings(**(values | settings)), events.append, stop=stop)
        task = group.create_task(work)
        try:
            yield RunningAgent(task, stop, events)
        finally:
            stop.set()
            server._is_over.set()
