"""Visitors that hide nothing: no silent retries, no pools, every request accounted for.

HTTP libraries repeat requests on lost connections by themselves, which would make a tunnel look better
than it is. `Visitor` therefore speaks HTTP/1.1 by hand over one connection, `Load` runs many of them at
a fixed rate and keeps what happened to each request.
"""

import asyncio
import contextlib
import itertools
import re
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

REQUEST_SECONDS = 30.0
LONGEST_AFTER_RETURN_SECONDS = 0.3
"""How long a request may still wait once its agent has its tunnel back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete response."""

    status: int
    head: str
    body: bytes

    def header(self, name: str) -> str | None:
        found = re.search(rf"(?im)^{re.escape(name)}:[ \t]*(.*?)\r?$", self.head)
        return found[1] if found else None


class Truncated(Exception):
    """The connection ended before the response did."""

    def __init__(self, received: bytes) -> None:
        super().__init__(f"the connection ended after {len(received)} bytes: {received[:200]!r}")
        self.received = received


class Visitor:
    """One connection to an edge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls, port: int, *, tls: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> Self:
        async with asyncio.timeout(REQUEST_SECONDS):
            return cls(
                *await asyncio.open_connection(
                    "127.0.0.1", port, ssl=tls, server_hostname=server_name
                )
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(20):
                await self.writer.wait_closed()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(
        self, host: str, path: str = "/", *, method: str = "GET", extra: str = "", body: bytes = b""
    ) -> Answer:
        """Send one request and read its answer.

        Raises:
            Truncated: the connection ended within the answer or before it.
        """
        self.send(
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{extra}"
            f"{f'Content-Length: {len(body)}' + chr(13) + chr(10) if body else ''}\r\n".encode()
            + body
        )
        return await self.read_answer(is_head=method == "HEAD")

    async def read_answer(
        self, *, is_head: bool = False, seconds: float = REQUEST_SECONDS
    ) -> Answer:
        """Read one response, interim ones skipped."""
        received = b""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    received = await self.reader.readuntil(b"\r\n\r\n")
                    head = received.decode("latin-1")
                    status = int(head.split(" ", 2)[1])
                    if status >= 200 or status == 101:
                        break
                return Answer(status, head, await self._body(head, status, is_head=is_head))
        except asyncio.IncompleteReadError as error:
            raise Truncated(received + error.partial) from error
        except ConnectionError as error:
            raise Truncated(received) from error

    async def _body(self, head: str, status: int, *, is_head: bool) -> bytes:
        if is_head or status in (101, 204, 304):
            return b""
        if re.search(r"(?im)^transfer-encoding: *chunked\r?$", head):
            body = b""
            while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            while await self.reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return body
        length = re.search(r"(?im)^content-length: *(\d+)\r?$", head)
        if length:
            return await self.reader.readexactly(int(length[1]))
        return await self.reader.read()

    async def read_to_end(self, *, seconds: float = REQUEST_SECONDS) -> bytes:
        """Read until the connection ends; a reset counts as an end."""
        received = b""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                while data := await self.reader.read(65_536):
                    received += data
        return received


@dataclass(frozen=True, slots=True)
class Attempt:
    """What happened to one request."""

    began: datetime
    ended: datetime
    status: int = 0
    """0: no complete answer. -1: one that looked complete, and was not what it had to be."""
    problem: str = ""
    had_begun: bool = False
    """Whether bytes of the answer had arrived when it failed."""

    @property
    def seconds(self) -> float:
        return (self.ended - self.began).total_seconds()


@dataclass(slots=True)
class Load:
    """Idempotent requests at a steady rate over several connections."""

    port: int
    host: str
    path: str = "/"
    connections: int = 16
    per_second: float = 200.0
    body: bytes | None = None
    """What each answer has to be, if that is known."""
    attempts: list[Attempt] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Send requests while the context lasts; what is under way at its end still finishes."""
        async with asyncio.TaskGroup() as visitors:
            for number in range(self.connections):
                visitors.create_task(self._visit(number))
            try:
                yield self
            finally:
                self._stop.set()

    async def wait_successes(self, count: int, *, seconds: float = REQUEST_SECONDS) -> None:
        """Wait for so many more successful answers."""
        wanted = self.successes + count
        try:
            async with asyncio.timeout(seconds):
                while self.successes < wanted:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(
                f"{self.successes} of {wanted} answers in {seconds} s; {self.failures()[:3]}"
            ) from None

    @property
    def successes(self) -> int:
        return sum(1 for attempt in self.attempts if attempt.status == 200)

    def failures(self, *, since: datetime | None = None) -> list[Attempt]:
        """Return requests, begun at or after `since`, that got no complete 200."""
        return [
            attempt
            for attempt in self.attempts
            if attempt.status != 200 and (since is None or attempt.began >= since)
        ]

    def check_waits_ended_soon_after(self, returned: datetime) -> None:
        """Fail if a request that waited for the agent's return was answered late.

        What an ordinary request needs on this machine right now is granted on top: while other
        programs have the cores, everything takes longer, not only the end of a wait.
        """
        waited = [a for a in self.attempts if a.began < returned < a.ended]
        ordinary = max((a.seconds for a in self.attempts if a.began >= returned), default=0.0)
        late = sorted((a.ended - returned).total_seconds() for a in waited)
        assert not late or late[-1] <= LONGEST_AFTER_RETURN_SECONDS + ordinary, (
            late[-5:],
            ordinary,
        )

    async def _visit(self, number: int) -> None:
        interval = self.connections / self.per_second
        loop = asyncio.get_running_loop()
        due = loop.time() + interval * number / self.connections
        visitor: Visitor | None = None
        while not await self._is_stopped_before(due):
            due = max(due + interval, loop.time())
            began = datetime.now(UTC)
            try:
                if visitor is None:
                    visitor = await Visitor.connect(self.port)
                answer = await visitor.get(self.host, self.path)
            except (OSError, Truncated, TimeoutError) as error:
                begun = isinstance(error, Truncated) and bool(error.received)
                self.attempts.append(
                    Attempt(began, datetime.now(UTC), 0, repr(error), had_begun=begun)
                )
                if visitor is not None:
                    await visitor.aclose()
                visitor = None
                continue
            problem = answer.header("X-Moleport-Error") or ""
            status = answer.status
            if status == 200 and self.body is not None and answer.body != self.body:
                status, problem = -1, f"a wrong answer of {len(answer.body)} bytes"
            self.attempts.append(Attempt(began, datetime.now(UTC), status, problem))
            if answer.header("Connection") == "close":
                await visitor.aclose()
                visitor = None
        if visitor is not None:
            await visitor.aclose()

    async def _is_stopped_before(self, moment: float) -> bool:
        """Pace: wait for the moment unless the load ends before it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(moment):
                await self._stop.wait()
        return self._stop.is_set()


@dataclass(slots=True)
class Gap:
    """Visitors who try again and again while a server is replaced: when nobody got an answer.

    Each tries a connection of its own and does not wait long: one whose first packet is lost would sit
    for seconds while others are served.
    """

    port: int
    host: str
    every_seconds: float = 0.1
    patience_seconds: float = 1.0
    answered: list[float] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[Self]:
        """Try while the context lasts."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as visitors:
            visitors.create_task(self._try_until(stop))
            try:
                yield self
            finally:
                stop.set()

    @property
    def seconds(self) -> float:
        """The longest time between two answers."""
        return max(after - before for before, after in itertools.pairwise(self.answered))

    async def _try_until(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            with contextlib.suppress(OSError, Truncated, TimeoutError):
                async with (
                    asyncio.timeout(self.patience_seconds),
                    await Visitor.connect(self.port) as visitor,
                ):
                    if (await visitor.get(self.host)).status == 200:
                        self.answered.append(loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.every_seconds):
                    await stop.wait()


def raw_connection(port: int, *, receive_bytes: int | None = None) -> socket.socket:
    """Open a non-blocking socket, with a small receive buffer if asked for."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.settimeout(REQUEST_SECONDS)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock
