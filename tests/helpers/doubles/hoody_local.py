"""HTTP/1.1 towards the local service, as naively as the drivers speak it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

MAX_SOCKETS = 256
SOCKET_SECONDS = 5.0
READ_BYTES = 65_536

Headers = list[tuple[str, str]]


class LocalFailed(Exception):
    """The local service could not be reached, or broke off."""


@dataclass(slots=True)
class Head:
    """The head of an answer."""

    status: int
    headers: Headers

    def first(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)

    @property
    def is_chunked(self) -> bool:
        return "chunked" in (self.first("transfer-encoding") or "").lower()

    @property
    def length(self) -> int | None:
        value = self.first("content-length")
        return int(value) if value is not None else None


@dataclass(slots=True)
class Connection:
    """A connection to the local service."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    is_reusable: bool = False

    async def read_head(self) -> Head:
        """Read the head of the answer; interim answers are swallowed.

        Raises:
            LocalFailed: The connection ended first, or what came is no head.
        """
        while True:
            try:
                raw = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = raw.decode("latin-1").split("\r\n")[:-2]
                head = Head(int(first.split()[1]), [])
                for line in lines:
                    name, _, value = line.partition(":")
                    head.headers.append((name, value.strip()))
            except (OSError, ValueError, asyncio.IncompleteReadError) as error:
                raise LocalFailed(str(error)) from error
            except asyncio.LimitOverrunError as error:
                raise LocalFailed("response headers too large") from error
            if head.status >= 200 or head.status == 101:
                return head

    def has_ended(self) -> bool:
        return self.reader.at_eof() or self.writer.is_closing()

    def abort(self) -> None:
        self.writer.transport.abort()


class Body:
    """The body of an answer, piece by piece."""

    def __init__(self, connection: Connection, head: Head, *, is_empty: bool) -> None:
        self._connection = connection
        self._is_chunked = head.is_chunked and not is_empty
        self._left = 0 if is_empty else (None if self._is_chunked else head.length)
        self._is_over = self._left == 0
        keeps = (head.first("connection") or "").lower() != "close"
        self._may_be_reused = keeps and (self._is_chunked or self._left is not None)
        self._piece = b""

    async def read(self, limit: int) -> bytes:
        """Return at most `limit` bytes, none at the end.

        Raises:
            LocalFailed: The service broke off.
        """
        if self._is_over:
            self._connection.is_reusable = self._may_be_reused
            return b""
        try:
            if self._is_chunked:
                return await self._read_chunked(limit)
            data = await self._connection.reader.read(
                limit if self._left is None else min(limit, self._left)
            )
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            raise LocalFailed(str(error)) from error
        if self._left is None:
            self._is_over = not data
            return data
        if not data:
            raise LocalFailed("the body is shorter than its length")
        self._left -= len(data)
        self._is_over = self._left == 0
        return data

    async def _read_chunked(self, limit: int) -> bytes:
        reader = self._connection.reader
        if not self._piece:
            size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if size == 0:
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass  # trailers are thrown away
                self._is_over = True
                return await self.read(limit)
            self._piece = (await reader.readexactly(size + 2))[:-2]
        data, self._piece = self._piece[:limit], self._piece[limit:]
        return data


@dataclass(slots=True)
class Service:
    """A local HTTP service, with the connections that are kept for the next request."""

    host: str
    port: int
    _idle: list[Connection] = field(default_factory=list)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_SOCKETS))

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """Return a connection, an older one if there is one.

        Raises:
            LocalFailed: Nobody listens, or 256 connections are busy for five seconds.
        """
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise LocalFailed("too many local connections") from None
        while self._idle and not fresh:
            connection = self._idle.pop()
            if not connection.has_ended():
                connection.is_reusable = False
                return connection
        try:
            async with asyncio.timeout(SOCKET_SECONDS):
                return Connection(*await asyncio.open_connection(self.host, self.port))
        except BaseException as error:
            self._places.release()
            if isinstance(error, OSError):  # TimeoutError is one
                raise LocalFailed(str(error)) from error
            raise

    def release(self, connection: Connection) -> None:
        """Take a connection back: to keep if its answer was read to the end, else to drop."""
        self._places.release()
        if connection.is_reusable and not connection.has_ended():
            self._idle.append(connection)
        else:
            with suppress(OSError):
                connection.writer.close()
