"""The agents' side of a server on loopback, and a driver that speaks to it by another library.

Frames and messages come from `moleport_wire.hoody`, the WebSocket does not (see `frame_socket`).
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from websockets.asyncio.client import connect

from helpers.edge_rig import RegistryRig, registry_rig
from helpers.frame_socket import FrameSocket
from helpers.waiting import DEADLINE_SECONDS
from moleport_server.access.admission import PreAuthGate
from moleport_server.access.authentication import Authenticator
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.agents.flow import FlowWatch
from moleport_server.agents.hoody.door import CONNECT_PATH, HoodyDoor
from moleport_server.agents.hoody.login import AgentSessions
from moleport_server.agents.hoody.session import SessionSettings
from moleport_server.config.values import Endpoint
from moleport_server.domain.token import Credential, Grant, Limits, Token
from moleport_server.edge.front import Front, RestServer
from moleport_server.edge.plain_listener import listen
from moleport_server.listening import bind_listener
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.window import ReceiveBudget

ADMIN_SECRET = "admin-secret"
SECRET = "agent-secret"
HELLO = messages.Hello(
    version=messages.SUBPROTOCOL_V2, capabilities=(messages.CAPABILITY_MOLEPORT,), agent="test"
)


class Driver(FrameSocket):
    """One WebSocket of an agent; ends when its context does."""

    def __init__(self, port: int, **options: Any) -> None:
        super().__init__()
        self._port = port
        self._options = options

    async def __aenter__(self) -> Self:
        secret = self._options.get("secret", SECRET)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._socket = await connect(
            f"ws://127.0.0.1:{self._port}{CONNECT_PATH}{self._options.get('query', '')}",
            subprotocols=self._options.get("subprotocols", [messages.SUBPROTOCOL_V2]),
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=DEADLINE_SECONDS,
            close_timeout=DEADLINE_SECONDS,
            proxy=None,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.transport.abort()
        await self._socket.wait_closed()

    @property
    def subprotocol(self) -> str | None:
        return self._socket.subprotocol

    async def greet(self, **changes: Any) -> messages.HelloOk:
        """Say HELLO and return what was granted."""
        await self.send(frames.HELLO, replace(HELLO, **changes).encode())
        return messages.HelloOk.decode(await self.payload(frames.HELLO_OK))

    async def bind(self, ref: int = 1, kind: str = "http", **members: Any) -> messages.BindOk:
        """Ask for an address and return it."""
        request = messages.Bind(client_bind_ref=ref, kind=kind, **members)
        await self.send(frames.BIND, request.encode())
        return messages.BindOk.decode(await self.payload(frames.BIND_OK))


@dataclass(slots=True)
class AgentRig:
    """Everything that an agent meets."""

    base: RegistryRig
    agents: AgentSessions
    gate: PreAuthGate
    flow: FlowWatch
    front: Front
    rest: RestServer
    port: int

    def driver(self, **options: Any) -> Driver:
        return Driver(self.port, **options)

    async def issue(
        self,
        secret: str,
        *,
        token_id: str = "token-1",
        revision: int = 1,
        grant: Grant | None = None,
        limits: Limits | None = None,
        expires_at: float | None = None,
    ) -> None:
        """Create a token."""
        token = Token(
            id=token_id,
            label="laptop",
            grant=grant or Grant(),
            limits=limits or Limits(),
            created_at=0.0,
            expires_at=expires_at,
        )
        digest = hashlib.sha256(secret.encode()).hexdigest()
        await self.base.store.create_token(
            token, Credential(token_id=token_id, revision=revision, sha256=digest)
        )


@asynccontextmanager
async def agent_rig(
    *,
    registry: dict[str, Any] | None = None,
    gate: PreAuthGate | None = None,
    budget: ReceiveBudget | None = None,
    is_rest_open: bool = True,
    **settings: Any,
) -> AsyncIterator[AgentRig]:
    """Build a registry with a listener for agents; settings are those of `SessionSettings`."""
    gate = gate or PreAuthGate()
    async with registry_rig(**(registry or {})) as base:
        clock = base.clock
        limits = SessionSettings(**settings)
        flow = FlowWatch(
            budget or ReceiveBudget(1 << 28, limits.stream_window_bytes),
            monotonic=clock.monotonic,
            patience_seconds=60.0,
        )
        authenticator = Authenticator(
            base.store,
            clock,
            read_admin_token=lambda: ADMIN_SECRET,
            limiter=KeyedLimiter(1.0, 10, clock),
        )
        agents = AgentSessions(
            limits, base.registry, authenticator, flow=flow, tasks=base.tasks, clock=clock
        )

        async def hello(request: web.Request) -> web.Response:
            return web.Response(text=f"{request.method} {request.path} {await request.text()}")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", hello)
        runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await runner.setup()
        assert runner.server is not None
        doors = {CONNECT_PATH: HoodyDoor(agents)}
        front = Front(doors, gate, head_seconds=limits.first_frame_seconds)
        if is_rest_open:
            front.open_rest(runner.server)
        server = listen(bind_listener(Endpoint("127.0.0.1", 0)), front.connection)
        port = server.port
        rig = AgentRig(base, agents, gate, flow, front, runner.server, port)
        await rig.issue(SECRET)
        try:
            yield rig
        finally:
            base.registry.close("the test is over")
            server.close()
            front.close()
            await runner.cleanup()


def goaway(code: int = Code.NONE, message: str = "bye") -> bytes:
    return messages.GoAway(code=code, message=message).encode()
