"""One session with the server: the driver's side of hoody-tunnel.v2 with `moleport.1`.

`DriverSession.open` dials, says HELLO and attaches the secondaries; `bind` asks for addresses; then the
session runs by itself until `wait_ended` tells why it is over. It never reconnects: that is `agent`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from moleport_agent.dialer import Dialer
from moleport_agent.events import (
    Draining,
    LatencyMeasured,
    Observer,
    RequestSeen,
    RequestsSkipped,
    TunnelClosed,
)
from moleport_agent.local import LocalService
from moleport_agent.settings import Secret, TunnelSettings
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError, SessionRefused, TransportLost
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.mux import Link, Mux
from moleport_wire.hoody.session import Phase, Role, is_receivable
from moleport_wire.hoody.streams import Stream
from moleport_wire.hoody.window import ReceiveBudget

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 30.0
"""How long HELLO_OK, JOIN_OK and BIND_OK may take (hoody-tunnel section 11)."""
BINDS_AT_ONCE: Final = 32
"""A server ends a session with more unanswered BINDs than 64; the others wait for their turn."""
PING_SECONDS: Final = 10.0
SILENCE_SECONDS: Final = 25.0
"""A server that says nothing for so long, pings included, is gone."""
GOODBYE_SECONDS: Final = 2.0
RECEIVE_BUDGET_BYTES: Final = 128 * 1024 * 1024
"""What slow local services may hold; above it their visitors wait in the server."""


class BindRefused(Exception):  # says what happened, like SessionRefused
    """The server refused one tunnel."""

    def __init__(self, code: str, message: str, *, is_final: bool) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.is_final = is_final


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a session is over."""

    reason: str
    code: int | None = None
    """The GOAWAY code; None when the connection just broke."""
    is_draining: bool = False
    """The server goes away and told us before; the session still runs."""


class _Connection:
    """One WebSocket of the session, as the receiver of its transport."""

    def __init__(self, session: DriverSession, index: int) -> None:
        self._session = session
        self.index = index
        self.phase = Phase.NEW
        self.transport: MessageTransport | None = None
        self.port: LinkPort | None = None
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        """The payload of HELLO_OK or JOIN_OK."""
        self.gone = asyncio.Event()
        """Set when the transport is lost."""

    def transport_opened(self, transport: MessageTransport) -> None:
        self.transport = transport

    def message_received(self, message: bytes) -> None:
        if self.port is not None:
            self.port.message_received(message)
            return
        # The answer and the first frames may share a message: the answer is handled first, then
        # the whole message goes to the mux, which skips the answer.
        try:
            for frame_type, _, payload in frames.parse(message):
                if not is_receivable(Role.DRIVER, self.phase, frame_type):
                    continue
                if frame_type in (frames.HELLO_OK, frames.JOIN_OK):
                    self._accept(frame_type, bytes(payload), message)
                    return
                if frame_type == frames.GOAWAY:
                    goaway = messages.GoAway.decode(payload)
                    self._fail(SessionRefused(goaway.code, goaway.message))
                elif frame_type == frames.JOIN_ERR:
                    refusal = messages.Refusal.decode(payload)
                    self._fail(SessionRefused(Code.REFUSED, refusal.message))
        except RemoteProtocolError as error:
            self._fail(error)

    def _accept(self, frame_type: int, payload: bytes, message: bytes) -> None:
        assert self.transport is not None  # noqa: S101 - messages come from an open transport
        rest = _behind_first(message, frame_type)
        self.phase = Phase.LIVE
        self.port = self._session.attach(self, payload)
        if not self.answer.done():
            self.answer.set_result(payload)
        if rest:
            self.port.message_received(rest)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        self.phase = Phase.ENDED
        self.gone.set()
        if self.port is not None:
            self.port.transport_lost(close_code, reason)
        self._fail(TransportLost(reason or "the connection was closed"))

    def _fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
            # Whoever gave up waiting does not collect it.
            self.answer.exception()

    def pause_writing(self) -> None:
        if self.port is not None:
            self.port.pause_writing()

    def resume_writing(self) -> None:
        if self.port is not None:
            self.port.resume_writing()


class DriverSession:
    """One session, from HELLO to its end.

    Use `open`; call `aclose` when done, whatever happened.
    """

    def __init__(
        self, dialer: Dialer, services: dict[str, LocalService], observe: Observer
    ) -> None:
        self._dialer = dialer
        self._services = services
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._tasks = TaskOwner()
        self._budget = ReceiveBudget(RECEIVE_BUDGET_BYTES, 256 * 1024, time.monotonic)
        self._mux: Mux | None = None
        self._connections: list[_Connection] = []
        self._binds: dict[int, str] = {}
        self._pending: dict[int, tuple[str, asyncio.Future[messages.BindOk]]] = {}
        self._binding = asyncio.Semaphore(BINDS_AT_ONCE)
        self._next_ref = 1
        self._reauth: asyncio.Future[None] | None = None
        self._pings: dict[bytes, float] = {}
        self._ping_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[Ending] = self._loop.create_future()
        self._is_stopped = False
        self.hello: messages.HelloOk | None = None
        """What the server granted; set once open."""

    @property
    def session_id(self) -> str:
        """The id to resume with."""
        return "" if self.hello is None else self.hello.session_id

    @property
    def binds(self) -> dict[int, str]:
        """Tunnel names by bind id."""
        return self._binds

    async def open(
        self,
        token: Secret,
        *,
        agent: str,
        connections: int,
        reports: bool,
        resume: str | None,
        binds: dict[int, str],
    ) -> None:
        """Dial and greet; afterwards the session is live.

        Args:
            token: the credential.
            agent: what we are, for people.
            connections: how many connections to ask for.
            reports: whether to be told about requests.
            resume: id of the session to resume, if any.
            binds: the bindings of that session.

        Raises:
            SessionRefused: the server said no.
            TransportLost, UpgradeRefused, OSError, TimeoutError: no session came about.
        """
        self._binds = dict(binds)
        capabilities = [messages.CAPABILITY_MOLEPORT]
        if connections > 1:
            capabilities.append(messages.CAPABILITY_MULTI)
        hello = messages.Hello(
            version=messages.SUBPROTOCOL_V2,
            capabilities=tuple(capabilities),
            max_connections=connections,
            resume_session_id=resume,
            agent=agent,
            wants_reports=reports,
        )
        await self._connect(0, token, frames.HELLO, hello.encode())
        assert self.hello is not None  # noqa: S101 - set by `attach` before the answer is
        if not self.hello.resumed:
            self._binds = {}
        async with asyncio.TaskGroup() as group:
            for ticket in self.hello.join_tickets:
                join = messages.Join(
                    session_id=self.session_id, index=ticket.index, nonce=ticket.nonce
                )
                group.create_task(self._join(ticket.index, token, join))
        self._timer = self._loop.call_later(PING_SECONDS, self._keep_alive)
        self._ping()

    async def _join(self, index: int, token: Secret, join: messages.Join) -> None:
        try:
            await self._connect(index, token, frames.JOIN, join.encode())
        except (OSError, TimeoutError, SessionRefused, TransportLost) as error:
            # The session works with fewer connections.
            logger.warning(
                "secondary connection failed", extra={"index": index, "error": str(error)}
            )

    async def _connect(self, index: int, token: Secret, frame_type: int, payload: bytes) -> None:
        connection = _Connection(self, index)
        self._connections.append(connection)
        await self._dialer.dial(connection, token)
        transport = connection.transport
        if transport is None:
            raise TransportLost("the connection was closed")
        connection.phase = Phase.GREETED
        transport.send(frames.serialize(frame_type, 0, payload))
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.answer

    def attach(self, connection: _Connection, payload: bytes) -> LinkPort:
        """Make a greeted connection a link of the mux; called by the connection."""
        assert connection.transport is not None  # noqa: S101 - greeted over it
        if connection.index == 0:
            hello = messages.HelloOk.decode(payload)
            if messages.CAPABILITY_MOLEPORT not in hello.capabilities:
                raise RemoteProtocolError(
                    Code.VERSION_MISMATCH, "the server does not speak moleport.1"
                )
            self.hello = hello
            self._mux = Mux(
                self,
                self._budget,
                stream_window=hello.stream_window,
                session_window=hello.session_window,
                opens=False,
            )
        mux = self._mux
        assert mux is not None  # noqa: S101 - tickets come with HELLO_OK
        port = LinkPort(mux, connection.index, connection.transport, self)
        mux.attach(port.link)
        return port

    async def bind(self, tunnel: TunnelSettings, request: messages.Bind) -> messages.BindOk:
        """Ask for an address.

        Raises:
            BindRefused: the server said no to this tunnel.
            TransportLost: the session ended meanwhile.
            TimeoutError: no answer in 30 s, or no turn: a server takes only so many at once.
        """
        async with asyncio.timeout(ANSWER_SECONDS), self._binding:
            return await self._bind(tunnel, request)

    async def _bind(self, tunnel: TunnelSettings, request: messages.Bind) -> messages.BindOk:
        if self._is_stopped:
            raise TransportLost("the session ended before the tunnel's turn")
        ref = self._next_ref
        self._next_ref += 1
        answer: asyncio.Future[messages.BindOk] = self._loop.create_future()
        self._pending[ref] = (tunnel.name, answer)
        try:
            self._send(frames.BIND, replace(request, client_bind_ref=ref).encode())
            return await answer
        finally:
            self._pending.pop(ref, None)

    async def reauthenticate(self, token: Secret) -> None:
        """Prove a new revision of the token on the live session.

        Raises:
            SessionRefused: the server does not accept it; the session goes on with the old one.
            TransportLost: the session ended meanwhile.
            TimeoutError: no answer in 30 s.
        """
        self._reauth = self._loop.create_future()
        self._send(frames.REAUTH, messages.Reauth(token=str.__str__(token)).encode())
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._reauth

    async def wait_ended(self) -> Ending:
        """Wait until the session is over or the server drains; safe to cancel."""
        return await asyncio.shield(self._ended)

    async def wait_closed(self) -> None:
        """After a drain: wait until the connection is really gone."""
        await self._connections[0].gone.wait()

    async def aclose(self, reason: str = "") -> None:
        """Say goodbye if still live, and free everything; idempotent."""
        primary = self._connections[0] if self._connections else None
        if primary is not None and primary.phase is Phase.LIVE and primary.port is not None:
            payload = messages.GoAway(code=Code.NONE, message=reason).encode()
            primary.port.link.send(frames.GOAWAY, 0, payload)
            primary.port.flush()
            try:
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await primary.gone.wait()
            except TimeoutError:
                pass
        self._stop(Ending(reason=reason or "closed"))
        await self._tasks.aclose()
        for connection in self._connections:
            if connection.transport is not None and connection.phase is not Phase.ENDED:
                connection.transport.close(1000, reason)

    # LinkOwner

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        """End: the server broke the protocol."""
        logger.error("server broke the protocol", extra={"reason": error.reason})
        port.transport.abort()
        self._stop(Ending(reason=error.reason))

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        """Detach; the primary's loss is the session's end."""
        del close_code
        if port.link.index == 0:
            self._stop(Ending(reason=reason or "the connection was closed"))
        elif self._mux is not None:
            self._mux.detach(port.link, reason)

    # MuxOwner

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None:
        """Handle a control frame of the server."""
        if not is_receivable(Role.DRIVER, Phase.LIVE, frame_type):
            return
        if frame_type == frames.PING:
            self._send(frames.PONG, bytes(payload[:64]))
        elif frame_type == frames.PONG:
            sent = self._pings.pop(bytes(payload), None)
            if sent is not None:
                self._observe(LatencyMeasured((time.monotonic() - sent) * 1000))
        elif frame_type == frames.BIND_OK:
            self._receive_bind_ok(messages.BindOk.decode(payload))
        elif frame_type == frames.BIND_ERR:
            self._receive_bind_err(messages.BindErr.decode(payload))
        elif frame_type == frames.BIND_REVOKED:
            revoked = messages.BindRevoked.decode(payload)
            name = self._binds.pop(revoked.bind_id, None)
            if name is not None:
                self._observe(TunnelClosed(name, revoked.reason))
        elif frame_type == frames.REPORT:
            self._receive_report(messages.Report.decode(payload))
        elif frame_type in (frames.REAUTH_OK, frames.REAUTH_ERR):
            self._receive_reauth(frame_type, payload)
        elif frame_type == frames.DRAIN:
            drain = messages.Drain.decode(payload)
            self._observe(Draining(drain.deadline_ms / 1000, drain.reason))
            if not self._ended.done():
                self._ended.set_result(Ending(reason=drain.reason, is_draining=True))
        elif frame_type == frames.GOAWAY:
            goaway = messages.GoAway.decode(payload)
            self._stop(Ending(reason=goaway.message, code=goaway.code))

    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None:
        """Connect to the local service of the binding."""
        request = messages.StreamOpen.decode(payload)
        mux = self._mux
        assert mux is not None  # noqa: S101 - it is who calls
        service = self._services.get(self._binds.get(request.bind_id, ""))
        if service is None:
            mux.refuse(link, stream_id, Code.REFUSED, "no such binding")
            return
        service.serve(
            lambda receiver: mux.accept(link, stream_id, receiver, request.window), request.peer
        )

    def stream_stalled(self, stream: Stream) -> None:
        """Nothing to do: the local service is our own."""

    def stream_drained(self, stream: Stream) -> None:
        """Nothing to do."""

    def stream_blocked(self, stream: Stream) -> None:
        """Nothing to do: the server counts."""

    def stream_unblocked(self, stream: Stream) -> None:
        """Nothing to do."""

    # Inner steps

    def _send(self, frame_type: int, payload: bytes) -> None:
        primary = self._connections[0]
        if primary.port is not None:
            primary.port.link.send(frame_type, 0, payload)

    def _receive_bind_ok(self, answer: messages.BindOk) -> None:
        pending = self._pending.get(answer.client_bind_ref)
        if pending is None:
            # We gave up waiting: the binding must not stay without a service.
            self._send(frames.UNBIND, messages.Unbind(bind_id=answer.bind_id).encode())
            return
        name, future = pending
        # At once, not when the waiter runs: streams may follow in the same message.
        self._binds[answer.bind_id] = name
        if not future.done():
            future.set_result(answer)

    def _receive_bind_err(self, refusal: messages.BindErr) -> None:
        pending = self._pending.get(refusal.client_bind_ref)
        if pending is not None and not pending[1].done():
            pending[1].set_exception(
                BindRefused(refusal.code, refusal.message, is_final=refusal.is_final)
            )

    def _receive_reauth(self, frame_type: int, payload: Payload) -> None:
        future = self._reauth
        if future is None or future.done():
            return
        if frame_type == frames.REAUTH_OK:
            future.set_result(None)
        else:
            refusal = messages.Refusal.decode(payload)
            future.set_exception(SessionRefused(Code.AUTH, refusal.message))

    def _receive_report(self, report: messages.Report) -> None:
        for row in report.requests:
            name = self._binds.get(row.bind_id)
            if name is not None:
                self._observe(
                    RequestSeen(name, row.method, row.path, row.status, row.duration_ms, row.peer)
                )
        if report.skipped:
            self._observe(RequestsSkipped(report.skipped))

    def _keep_alive(self) -> None:
        port = self._connections[0].port
        if port is None:
            return
        if self._loop.time() - port.received_at > SILENCE_SECONDS:
            port.transport.abort()
            self._stop(Ending(reason=f"the server was silent for {SILENCE_SECONDS:g} s"))
            return
        self._ping()
        self._timer = self._loop.call_later(PING_SECONDS, self._keep_alive)

    def _ping(self) -> None:
        self._ping_count += 1
        nonce = self._ping_count.to_bytes(8, "big")
        # Not the time of the loop: uvloop's goes by whole milliseconds.
        self._pings = {nonce: time.monotonic()}
        self._send(frames.PING, nonce)

    def _stop(self, ending: Ending) -> None:
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._mux is not None:
            self._mux.close(Code.CANCEL, ending.reason)
        lost = TransportLost(ending.reason)
        for _, future in self._pending.values():
            if not future.done():
                future.set_exception(lost)
        if self._reauth is not None and not self._reauth.done():
            self._reauth.set_exception(lost)
            self._reauth.exception()
        if not self._ended.done():
            self._ended.set_result(ending)


def _behind_first(message: bytes, frame_type: int) -> bytes:
    """Return the part of a message behind its first frame of a type."""
    position = 0
    while position < len(message):
        kind, _, length = frames.HEADER.unpack_from(message, position)
        position += frames.HEADER_BYTES + length
        if kind == frame_type:
            return message[position:]
    return b""
