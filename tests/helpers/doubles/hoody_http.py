"""Streams of EXPOSE in the hoody-tunnel double: requests, and upgrades that become raw bytes."""

import asyncio
import re
from collections import deque
from contextlib import suppress
from typing import Any

from helpers.doubles.events import say
from helpers.doubles.hoody_credit import GateClosed
from helpers.doubles.hoody_frames import MAX_PAYLOAD_BYTES, Frame, Type, json_frame
from helpers.doubles.hoody_hello import Generation
from helpers.doubles.hoody_local import Body, Connection, Head, LocalFailed, Service
from helpers.doubles.hoody_mischief import Response
from helpers.doubles.hoody_session import Session

OLD_BODY_BYTES = 64 * 2**20
EARLY_BYTES = 2**20
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
FORBIDDEN_IN_TARGET = re.compile(r"[\s\0]")
FORBIDDEN_IN_VALUE = re.compile(r"[\r\n\0]")
HOP_BY_HOP = ("connection", "upgrade", "keep-alive", "transfer-encoding", "te", "trailer")
DROPPED = frozenset(("host", *HOP_BY_HOP, "proxy-authenticate", "proxy-authorization"))
DROPPED_FROM_ANSWERS = frozenset(("keep-alive", "transfer-encoding", "connection", "upgrade"))


def open_http(
    session: Session, stream_id: int, head: dict[str, Any], service: Service, response: Response
) -> "Exchange | Upgrade | None":
    """Begin what a STREAM_OPEN of kind http asks for."""
    method, target = head.get("method"), head.get("target")
    if (
        not isinstance(method, str)
        or not TOKEN.fullmatch(method)
        or not isinstance(target, str)
        or not target
        or FORBIDDEN_IN_TARGET.search(target)
    ):
        say("violation", text=f"method {method!r} and target {target!r}")
        session.refuse(stream_id, "invalid-method-or-target")
        return None
    headers = []
    for name, value in head["headers"]:
        if TOKEN.fullmatch(name) and not FORBIDDEN_IN_VALUE.search(value):
            headers.append((name, value))
        else:
            say("violation", text=f"a header {name!r} that is dropped")
    kind = Upgrade if head.get("isUpgrade") else Exchange
    handler = kind(session, stream_id, method, target, headers, service, response)
    session.crew.start(handler.run())
    return handler


class _Stream:
    """What both kinds share: who they are, and the body that comes from the kit."""

    def __init__(
        self,
        session: Session,
        stream_id: int,
        method: str,
        target: str,
        headers: list[tuple[str, str]],
        service: Service,
        response: Response,
    ) -> None:
        self._session = session
        self._id = stream_id
        self._method = method
        self._target = target
        self._headers = headers
        self._service = service
        self._response = response
        self._connection: Connection | None = None
        self._is_reset = False

    def _is_old(self) -> bool:
        return self._session.generation is Generation.OLD

    def _send_head(self, head: Head, *, dropped: frozenset[str]) -> None:
        fields = {
            "status": head.status,
            "headers": [pair for pair in head.headers if pair[0].lower() not in dropped],
            "final": True,
        }
        before, spoiled = self._response.spoil(fields, self._id)
        for frame in before:
            self._session.send_on_stream(frame)
        if spoiled is not None:
            self._session.send_on_stream(json_frame(Type.STREAM_RESPONSE_HEAD, spoiled, self._id))

    def _end(self) -> None:
        self._session.send_on_stream(Frame(Type.EOF, self._id))
        self._session.finished(self._id)

    def abort(self) -> None:
        """Let go of everything without a word."""
        self._is_reset = True
        self._session.finished(self._id)
        if self._connection is not None:
            self._connection.abort()


class Exchange(_Stream):
    """A request and its answer over a pooled connection."""

    def __init__(self, *stream: Any) -> None:
        super().__init__(*stream)
        self._body: deque[bytes | None] = deque()
        self._early = 0
        self._more = asyncio.Event()
        self._is_connected = False

    @property
    def _has_body(self) -> bool:
        return self._method not in {"GET", "HEAD"}

    async def run(self) -> None:
        """Serve it."""
        if not self._has_body and any(
            name.lower() == "content-length" for name, _ in self._headers
        ):
            say("violation", text=f"content-length on {self._method}: the service waits for ever")
        try:
            self._connection = await self._service.acquire()
        except LocalFailed:
            self._fail()
            return
        try:
            if self._is_reset:  # while it connected
                self._connection.abort()
                raise LocalFailed
            async with asyncio.TaskGroup() as both:
                uploading = both.create_task(self._upload(self._connection))
                await self._answer(self._connection)
                uploading.cancel()
        except* (LocalFailed, OSError):
            self._fail()
        except* GateClosed:
            self._session.finished(self._id)
        finally:
            self._service.release(self._connection)

    def _fail(self) -> None:
        if self._id in self._session.streams:
            self._session.refuse(self._id, "local connect failed")

    # The request

    def _request_head(self) -> bytes:
        dropped = DROPPED | {"content-length"} if self._has_body else DROPPED
        lines = [
            f"{self._method} {self._target} HTTP/1.1",
            f"Host: {self._service.host}:{self._service.port}",
            *(f"{name}: {value}" for name, value in self._headers if name.lower() not in dropped),
            *(["Transfer-Encoding: chunked"] if self._has_body else []),
        ]
        return "\r\n".join([*lines, "", ""]).encode()

    async def _upload(self, connection: Connection) -> None:
        connection.writer.write(self._request_head())
        self._is_connected = True
        while self._has_body:
            while not self._body:
                self._more.clear()
                await self._more.wait()
            piece = self._body.popleft()
            if piece is None:
                connection.writer.write(b"0\r\n\r\n")
                continue  # a second end would corrupt the connection: the drivers do not guard it
            connection.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            with suppress(OSError):  # whether the service still answers, `_answer` finds out
                await connection.writer.drain()
            if self._early >= len(piece):
                self._early -= len(piece)  # credited when it came
            else:
                self._session.credit(self._id, len(piece))

    def data(self, data: bytes) -> None:
        if not self._has_body or self._is_reset:
            self._session.credit(self._id, len(data))
            return
        if not data:
            return
        if not self._is_connected:
            self._early += len(data)
            if self._early > EARLY_BYTES:
                self._session.credit_session(len(data))
                self._session.refuse(self._id, "early-buffer-overflow")
                return
            self._session.credit(self._id, len(data))
        self._body.append(data)
        self._more.set()

    def eof(self) -> None:
        if self._has_body:
            if None in self._body:
                say("violation", text=f"two EOFs on stream {self._id}")
            self._body.append(None)
            self._more.set()

    def reset(self) -> None:
        if not self._is_old():
            self.abort()
        elif self._has_body:
            self._is_reset = True
            if self._connection is not None:
                self._connection.abort()  # which ends in a RESET of our own
        # An old driver goes on with a GET and answers it as if nothing had happened.

    # The answer

    async def _answer(self, connection: Connection) -> None:
        head = await connection.read_head()
        if self._is_old():
            await self._answer_at_once(connection, head)
        else:
            await self._stream_answer(connection, head)

    async def _answer_at_once(self, connection: Connection, head: Head) -> None:
        # The old driver does not know that answers to HEAD, 204 and 304 have no body.
        body = Body(connection, head, is_empty=False)
        whole = bytearray()
        while piece := await body.read(MAX_PAYLOAD_BYTES):
            whole += piece
            if len(whole) > OLD_BODY_BYTES:
                connection.abort()
                self._session.refuse(self._id, "response too large")
                return
        self._send_head(head, dropped=DROPPED_FROM_ANSWERS)
        for start in range(0, len(whole), MAX_PAYLOAD_BYTES):
            await self._send(bytes(whole[start : start + MAX_PAYLOAD_BYTES]))
        self._end()

    async def _stream_answer(self, connection: Connection, head: Head) -> None:
        is_empty = self._method == "HEAD" or head.status in {204, 304}
        body = Body(connection, head, is_empty=is_empty)
        self._send_head(head, dropped=DROPPED_FROM_ANSWERS)
        sent = 0
        while piece := await body.read(MAX_PAYLOAD_BYTES - sent % MAX_PAYLOAD_BYTES):
            await self._send(piece)
            sent += len(piece)
        if not self._is_reset:
            self._end()

    async def _send(self, piece: bytes) -> None:
        await self._response.before_data(self._session, self._id)
        await self._session.send_data(self._id, piece)


class Upgrade(_Stream):
    """An upgrade: a connection of its own, and raw bytes once the local service has answered."""

    _is_raw = False

    async def run(self) -> None:
        """Serve it."""
        if any(name != "host" and name.lower() == "host" for name, _ in self._headers):
            say("violation", text="a capital Host gives the local service two of them")
        try:
            self._connection = await self._service.acquire(fresh=True)
        except LocalFailed:
            self._session.refuse(self._id, "local connect failed")
            return
        try:
            await self._relay(self._connection)
        except (LocalFailed, OSError) as error:
            if self._id in self._session.streams:
                reason = str(error) if "too large" in str(error) else "local connect failed"
                self._session.refuse(self._id, reason)
        except GateClosed:
            self._session.finished(self._id)
        finally:
            self._service.release(self._connection)

    async def _relay(self, connection: Connection) -> None:
        fields = {name: value for name, value in self._headers if name.lower() != "connection"}
        fields["host"] = f"{self._service.host}:{self._service.port}"
        fields["Connection"] = "Upgrade"
        lines = [f"{self._method} {self._target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        connection.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = await connection.read_head()
        self._send_head(head, dropped=frozenset(("keep-alive", "transfer-encoding")))
        self._is_raw = True
        while piece := await connection.reader.read(MAX_PAYLOAD_BYTES):
            await self._session.send_data(self._id, piece)
        if not self._is_reset or self._is_old():
            self._end()

    def data(self, data: bytes) -> None:
        if not self._is_raw or self._connection is None:
            say("violation", text=f"data on stream {self._id} before the answer is lost")
            self._session.credit_session(len(data))
            return
        self._connection.writer.write(data)
        self._session.crew.start(self._credit_when_taken(len(data)))

    async def _credit_when_taken(self, size: int) -> None:
        assert self._connection is not None
        with suppress(OSError):
            await self._connection.writer.drain()
        self._session.credit(self._id, size)

    def eof(self) -> None:
        if self._is_raw and self._connection is not None:
            with suppress(OSError):
                self._connection.writer.write_eof()

    def reset(self) -> None:
        if self._is_old():
            self._is_reset = True
            self.eof()
        else:
            self.abort()
