"""Accepts TLS connections and tells their protocol which server name was asked for.

For each connection: admission, the PROXY header if one is expected, a look at the ClientHello
without taking it from the socket, the certificate for its name, the handshake; one deadline covers
all of it. The protocol hears nothing before, so that it only ever sees a working connection. A
connection costs a task until its handshake is over, and none afterwards.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

import aiofastnet

from moleport_server.edge.client_hello import (
    MAX_HELLO_BYTES,
    ClientHello,
    NotTls,
    parse_client_hello,
)
from moleport_server.edge.tls import CertificateStore

logger = logging.getLogger(__name__)

ACCEPTS_PER_TURN = 64
"""Bounds one turn of the event loop; what is left wakes us again at once."""

RETRY_SECONDS = 1.0
"""Pause after the system ran out of file descriptors or memory; accepting would fail in a loop."""

_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: 44\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https:// or wss://"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is known about a connection before its protocol is made."""

    server_name: str | None
    """Lower case; None if the client sent none."""
    address: str
    """IP address of the client: from the PROXY header if there was one, else the peer's."""
    port: int
    """Its port; 0 if a proxy did not tell."""
    leave_gate: Callable[[], None] = field(compare=False, repr=False)
    """Gives the place at the listener's gate back before the end of the handshake does: for a protocol
    that enters the same gate, and would need two places otherwise. Idempotent."""


class Gate(Protocol):
    """Bounds connections that have not proved anything yet; one `leave` for each True."""

    def enter(self, address: str) -> bool:
        """Whether one more connection of this address may begin."""
        ...

    def leave(self, address: str) -> None:
        """Note that a connection got through or ended."""
        ...


class Preamble(Protocol):
    """Reads what a proxy sends before the TLS handshake."""

    def is_expected_from(self, address: str) -> bool:
        """Whether this peer begins its connections with a PROXY header."""
        ...

    def read(self, data: bytes) -> tuple[int, tuple[str, int] | None] | None:
        """Return the size of the header and the client in it (None: unknown).

        None means that more bytes are needed.

        Raises:
            ValueError: it is no PROXY header.
        """
        ...


class TlsListener:
    """One TLS listener; accepts while its context is open.

    Leaving the context ends handshakes under way; established connections belong to their
    protocols.
    """

    def __init__(
        self,
        sock: socket.socket,
        certificates: CertificateStore,
        *,
        make_protocol: Callable[[Arrival], asyncio.Protocol | asyncio.BufferedProtocol],
        gate: Gate,
        handshake_seconds: float,
        preamble: Preamble | None = None,
        note_failure: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        """Take over a listening socket, which is closed at the end.

        Args:
            sock: from `listening.bind_listener`.
            certificates: asked once per connection.
            make_protocol: called when the ClientHello was read. The protocol hears nothing until
                the handshake is done, and nothing at all if it fails.
            gate: held from the accepted connection to the end of the handshake.
            handshake_seconds: deadline of everything before the protocol.
            preamble: how PROXY headers are read; None: nobody sends any.
            note_failure: told why a connection got no protocol: `refused`, `not_tls`, `handshake`,
                `timeout` or `preamble`.
        """
        self._sock = sock
        self._certificates = certificates
        self._make_protocol = make_protocol
        self._gate = gate
        self._handshake_seconds = handshake_seconds
        self._preamble = preamble
        self._note_failure = note_failure
        self._loop = asyncio.get_running_loop()
        self._tasks = asyncio.TaskGroup()
        self._pending: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_stopped = False

    @property
    def port(self) -> int:
        """The bound port."""
        port: int = self._sock.getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._loop.add_reader(self._sock, self._accept)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.stop()
        for task in self._pending:
            task.cancel()
        # Without the error of the body, which shall not arrive wrapped in a group.
        await self._tasks.__aexit__(None, None, None)

    def stop(self) -> None:
        """Accept nothing more and close the socket; handshakes under way go on. Idempotent."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                conn, peer = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                logger.error(  # noqa: TRY400 - a limit of the system, not a bug of ours
                    "cannot accept connections", extra={"reason": error.strerror}
                )
                self._loop.remove_reader(self._sock)
                self._retry = self._loop.call_later(RETRY_SECONDS, self._resume)
                return
            conn.settimeout(0)
            self._begin(conn, peer[0].removeprefix("::ffff:"), peer[1])

    def _begin(self, conn: socket.socket, address: str, port: int) -> None:
        if not self._gate.enter(address):
            self._note_failure("refused")
            conn.close()
            return

        is_inside = True

        def leave() -> None:
            nonlocal is_inside
            if is_inside:
                is_inside = False
                self._gate.leave(address)

        def end(task: asyncio.Task[None]) -> None:
            # Not in the task itself: one that is cancelled before its first step has no `finally`.
            self._pending.discard(task)
            leave()

        task = self._tasks.create_task(self._arrive(conn, address, port, leave))
        self._pending.add(task)
        task.add_done_callback(end)

    def _resume(self) -> None:
        self._loop.add_reader(self._sock, self._accept)

    async def _arrive(
        self, conn: socket.socket, address: str, port: int, leave: Callable[[], None]
    ) -> None:
        has_transport = False
        try:
            async with asyncio.timeout(self._handshake_seconds):
                arrival = await self._look(conn, address, port, leave)
                context = self._certificates.context_for(arrival.server_name)
                protocol = self._make_protocol(arrival)
                has_transport = True
                await aiofastnet.connect_accepted_socket(
                    self._loop,
                    lambda: protocol,
                    conn,
                    ssl=context,
                    ssl_handshake_timeout=self._handshake_seconds,
                )
        except TimeoutError:
            self._fail("timeout", address)
        except NotTls as error:
            self._fail("not_tls", address, str(error))
        except OSError as error:  # includes ssl.SSLError
            self._fail("handshake", address, str(error))
        except ValueError as error:
            self._fail("preamble", address, str(error))
        except Exception:
            # The boundary of this task: a bug here must not end the listener for everybody.
            logger.exception("connection failed before its protocol", extra={"peer": address})
            self._note_failure("handshake")
        finally:
            if not has_transport:
                conn.close()

    async def _look(
        self, conn: socket.socket, address: str, port: int, leave: Callable[[], None]
    ) -> Arrival:
        if self._preamble is not None and self._preamble.is_expected_from(address):
            data = b""
            while (found := self._preamble.read(data)) is None:
                data = await self._peek(conn, len(data) + 1)
            size, client = found
            conn.recv(size)
            address, port = client or (address, port)
        wanted = 1
        while True:
            data = await self._peek(conn, wanted)
            try:
                hello = parse_client_hello(data)
            except NotTls:
                _answer_plain_http(conn, data)
                raise
            if isinstance(hello, ClientHello):
                _wake_at(conn, 1)
                return Arrival(
                    server_name=hello.server_name, address=address, port=port, leave_gate=leave
                )
            wanted = hello.total

    async def _peek(self, conn: socket.socket, count: int) -> bytes:
        """Return what was received, at least `count` bytes, without taking it.

        Raises:
            ConnectionError: the connection ended before.
        """
        # The kernel wakes us when enough is there, so a sender of single bytes costs nothing.
        _wake_at(conn, count)
        readable = self._loop.create_future()
        self._loop.add_reader(conn, _settle, readable)
        try:
            await readable
        finally:
            self._loop.remove_reader(conn)
        data = conn.recv(MAX_HELLO_BYTES, socket.MSG_PEEK)
        if len(data) < count:
            raise ConnectionResetError("the connection ended before the handshake")
        return data

    def _fail(self, reason: str, address: str, detail: str = "") -> None:
        self._note_failure(reason)
        logger.debug(
            "tls connection refused", extra={"peer": address, "reason": reason, "detail": detail}
        )


def _wake_at(conn: socket.socket, count: int) -> None:
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _answer_plain_http(conn: socket.socket, data: bytes) -> None:
    if not data[:3].isalpha():
        return
    try:
        # Closing with unread bytes would reset the connection before the answer is read.
        conn.recv(MAX_HELLO_BYTES)
        conn.send(_PLAIN_HTTP)
    except OSError:
        return
