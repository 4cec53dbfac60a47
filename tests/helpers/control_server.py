"""A control listener for tests of clients: a real aiohttp server in a thread of its own.

Blocking clients (httpx, the doctor's sockets) need a server that runs beside them. It answers what a
test scripts, records what came, and greets WebSocket upgrades like the tunnel server.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
START_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class ControlServer:
    """Serves scripted answers on loopback while its context lasts."""

    context: ssl.SSLContext | None = None
    routes: dict[tuple[str, str], Handler] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    port: int = 0
    _loop: asyncio.AbstractEventLoop | None = None
    _stop: asyncio.Event | None = None
    _thread: threading.Thread | None = None
    _ready: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        scheme = "http" if self.context is None else "https"
        host = "127.0.0.1" if self.context is None else "localhost"
        return f"{scheme}://{host}:{self.port}"

    def answer(
        self,
        method: str,
        path: str,
        value: Any,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Script a JSON answer."""

        async def handler(_request: web.Request) -> web.StreamResponse:
            if value is None:
                return web.Response(status=status, headers=headers)
            return web.json_response(value, status=status, headers=headers)

        self.routes[(method, path)] = handler

    def healthy(self) -> None:
        """Script what every tunnel server answers."""
        self.answer("GET", "/api/status", {"ok": True, "active_sessions": 1, "active_tunnels": 2})
        self.answer("GET", "/api/tunnels", [])
        self.routes[("GET", "/api/v1/tunnel/connect")] = accept_websocket
        self.routes[("GET", "/api/events")] = stream_events([": hello\n\n"])

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError("the control server did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join(START_SECONDS)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(lambda _loop, _context: None)
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        runner = web.AppRunner(
            app,
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.1,
        )
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        site = web.SockSite(runner, listening, ssl_context=self.context)
        await site.start()
        self._ready.set()
        async with asyncio.timeout(60):
            await self._stop.wait()
        # A connection that was just accepted is known to nobody yet, and one that was just closed
        # ends in a callback: both are queued, and the loop must not end before them.
        await site.stop()
        await _settle()
        await runner.cleanup()
        await _settle()

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(
            Seen(
                request.method,
                request.path,
                dict(request.query),
                {name.lower(): value for name, value in request.headers.items()},
                await request.read(),
            )
        )
        handler = self.routes.get((request.method, request.path))
        if handler is None:
            return web.json_response({"error": "not found"}, status=404)
        return await handler(request)


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def accept_websocket(request: web.Request) -> web.StreamResponse:
    """Accept an upgrade as the tunnel server does, and wait for the peer to leave."""
    upgraded = web.WebSocketResponse(protocols=("hoody-tunnel.v2",))
    await upgraded.prepare(request)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await upgraded.receive()
    await upgraded.close()
    return upgraded


def stream_events(chunks: list[str], *, then_wait: bool = True) -> Handler:
    """Script an event stream; with `then_wait` it stays open until the client leaves."""

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk.encode())
        if then_wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(10):
                    await asyncio.Event().wait()
        return response

    return handler
