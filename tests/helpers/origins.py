"""Local services behind tunnels: small, real, and able to behave badly on purpose.

`WebOrigin` is an aiohttp application whose answers a test releases step by step. `RawOrigin` speaks
HTTP by hand, for what a decent server would never do. `EchoOrigin` is a TCP service.
"""

import asyncio
import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aiohttp import WSMsgType, web

from moleport_wire.aio.tasks import TaskOwner

PATTERN = bytes(range(256)) * 256
"""64 KiB that no byte order or offset error leaves as they are."""
GATE_SECONDS = 60.0


def pattern_hash(size: int) -> str:
    """Return the SHA-256 of `size` bytes of the pattern."""
    digest = hashlib.sha256()
    for start in range(0, size, len(PATTERN)):
        digest.update(PATTERN[: size - start])
    return digest.hexdigest()


class WebOrigin:
    """An HTTP service."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        """Requests by method and path."""
        self.hosts: list[str] = []
        self.aborted: Counter[str] = Counter()
        """Requests whose client left before they ended, by path."""
        self.arrived = asyncio.Semaphore(0)
        """Released by each request that waits at the gate."""
        self.gate = asyncio.Event()
        """Opens `/gated` and `/half`."""
        self.uploaded: asyncio.Queue[bytes] = asyncio.Queue()
        """Pieces of the body of `/upload` as they come; an empty one is its end."""
        self.news: asyncio.Queue[str | None] = asyncio.Queue()
        """What `/events` sends next; None ends it."""
        self.abort_seen = asyncio.Event()
        self._runner: web.AppRunner
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 40, middlewares=[self._count])
        app.add_routes(
            [
                web.get("/", self._hello),
                web.get("/size/{size}", self._size),
                web.get("/headers", self._headers),
                web.get("/gated", self._gated),
                web.get("/endless", self._endless),
                web.get("/half", self._half),
                web.get("/events", self._events),
                web.get("/socket", self._socket),
                web.post("/upload", self._upload),
                web.put("/hash", self._hash),
                web.post("/hash", self._hash),
                web.post("/echo", self._echo),
            ]
        )
        self._runner = web.AppRunner(
            app, access_log=None, handle_signals=False, handler_cancellation=True,
            shutdown_timeout=0.5,
        )  # fmt: skip
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.gate.set()
        await self._runner.cleanup()

    @web.middleware
    async def _count(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.seen[f"{request.method} {request.path}"] += 1
        try:
            return await handler(request)
        except (asyncio.CancelledError, ConnectionError):
            self.aborted[request.path] += 1
            self.abort_seen.set()
            raise

    async def _hello(self, request: web.Request) -> web.Response:
        return web.Response(text=f"hello {request.query_string}")

    async def _headers(self, request: web.Request) -> web.Response:
        self.hosts.append(request.headers["Host"])
        return web.json_response({name.lower(): value for name, value in request.headers.items()})

    async def _size(self, request: web.Request) -> web.StreamResponse:
        left = int(request.match_info["size"])
        response = web.StreamResponse(headers={"Content-Length": str(left)})
        await response.prepare(request)
        while left and request.method != "HEAD":
            await response.write(PATTERN[:left])
            left -= min(left, len(PATTERN))
        return response

    async def _gated(self, request: web.Request) -> web.Response:
        self.arrived.release()
        async with asyncio.timeout(GATE_SECONDS):
            await self.gate.wait()
        return web.Response(text="through the gate")

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(PATTERN)

    async def _half(self, request: web.Request) -> web.StreamResponse:
        """Promise more than is sent, then vanish."""
        if "chunked" in request.query:
            response = web.StreamResponse()
        else:
            response = web.StreamResponse(headers={"Content-Length": "1000000"})
        await response.prepare(request)
        await response.write(PATTERN[:1000])
        async with asyncio.timeout(GATE_SECONDS):
            await self.gate.wait()
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        async with asyncio.timeout(GATE_SECONDS):
            while (text := await self.news.get()) is not None:
                await response.write(f"data: {text}\n\n".encode())
        return response

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("chat",), max_msg_size=0)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(message.data)
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        return socket

    async def _upload(self, request: web.Request) -> web.Response:
        async for piece in request.content.iter_any():
            self.uploaded.put_nowait(piece)
        self.uploaded.put_nowait(b"")
        return web.Response(text="uploaded")

    async def _hash(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
        return web.json_response({"sha256": digest.hexdigest(), "bytes": size})

    async def _echo(self, request: web.Request) -> web.Response:
        return web.Response(body=await request.read())


Answerer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawOrigin:
    """A TCP service whose connections run one coroutine each; the socket is closed after it."""

    def __init__(self, serve: Answerer) -> None:
        self._serve = serve
        self._tasks = TaskOwner()
        self._server: asyncio.Server
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._tasks.aclose()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.start(self._run(reader, writer), "serve a connection")

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and the end after the end."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


class GrudgingOrigin:
    """Answers HTTP and closes idle connections just when the next request comes.

    `serve` is for `RawOrigin`. Every connection takes `requests_each` requests; the one after them is
    read, and instead of an answer the connection ends: this is what a visitor meets when the service's
    idle timeout fires while a request is on its way.
    """

    def __init__(self, *, requests_each: int = 1, runs_before_close: bool = False) -> None:
        self._requests_each = requests_each
        self._runs_before_close = runs_before_close
        self.runs: Counter[str] = Counter()
        """How often each request was acted on, by its `X-Number`."""
        self.hangups = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self._requests_each):
            number = await self._read(reader)
            if number is None:
                return
            self.runs[number] += 1
            body = json.dumps({"number": number}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        number = await self._read(reader)
        if number is not None:
            self.hangups += 1
            if self._runs_before_close:
                self.runs[number] += 1

    async def _read(self, reader: asyncio.StreamReader) -> str | None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length:
            await reader.readexactly(int(length[1]))
        elif re.search(rb"(?i)transfer-encoding: chunked", head):
            await reader.readuntil(b"\r\n0\r\n\r\n")
        number = re.search(rb"(?i)x-number: (\w+)", head)
        return number[1].decode() if number else ""
