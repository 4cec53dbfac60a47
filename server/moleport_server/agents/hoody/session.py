"""What every session of the family has: its links, tickets, pings, binds and its end.

`HoodySession` owns a mux and its links and is half of the registry's `Upstream`; `moleport` makes the
session of our own agent of it, `stock` that of unmodified hoody-tunnel clients. The primary's end is the
session's end; a lost secondary ends its own streams only. How a connection becomes part of a session is
in `login`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from moleport_server.agents.hoody.refusals import bind_refusal
from moleport_server.errors import NoSession, ServerError, UpstreamBusy
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_server.registry.upstream import ByteStream, WaitingStream
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.members import MAX_TEXT
from moleport_wire.hoody.mux import Link, Mux
from moleport_wire.hoody.session import Phase, Role, is_receivable
from moleport_wire.hoody.streams import Stream, StreamReceiver
from moleport_wire.hoody.window import (
    INITIAL_SESSION_WINDOW_BYTES,
    INITIAL_STREAM_WINDOW_BYTES,
)

if TYPE_CHECKING:
    from moleport_server.agents.hoody.login import AgentSessions

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 16
TICKET_SECONDS: Final = 15.0
MAX_PENDING_BINDS: Final = 64
"""BINDs that one agent may have in flight; more is an attack on the store."""
MOST_UNREAD_BYTES: Final = 4 * 1024 * 1024
"""What an agent that does not read may let pile up: bytes of streams wait for room, but each visitor
costs a few frames that do not."""
MAX_UNANSWERED_PINGS: Final = 16
"""Of a peer that ignores pings; older ones are forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StockSettings:
    """Bounds of sessions with stock clients."""

    max_streams: int = 1024
    """Streams that one client has or waits for; above it 503."""
    ping_seconds: float = 20.0
    pong_seconds: float = 60.0
    """A client that answers no ping for so long is gone."""
    idle_seconds: float = 600.0
    """A session without binds and streams ends after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Bounds of one agent session."""

    first_frame_seconds: float = 5.0
    ping_seconds: float = 10.0
    silence_seconds: float = 30.0
    """An agent that says nothing for so long, pings included, is gone."""
    stream_window_bytes: int = INITIAL_STREAM_WINDOW_BYTES
    session_window_bytes: int = INITIAL_SESSION_WINDOW_BYTES
    write_buffer_bytes: int = 256 * 1024
    max_streams: int = 10_000
    server_name: str = "moleport"
    """What HELLO_OK tells people: name and version."""
    stock: StockSettings = field(default_factory=StockSettings)


class HoodySession(ABC):
    """One live session, whatever its client can do beyond the protocol."""

    def __init__(
        self,
        shared: AgentSessions,
        record: Session,
        mux: Mux,
        *,
        ping_seconds: float,
    ) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._mux = mux
        self._ping_seconds = ping_seconds
        self._ports: list[LinkPort] = []
        self._asked_at: dict[LinkPort, float] = {}
        """When secondaries were sent the ping that they have not answered yet."""
        self._tickets: dict[int, tuple[str, float]] = {}
        self._pings: dict[bytes, tuple[float, asyncio.Future[bool] | None]] = {}
        self._ping_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_bind_id = 1
        self._pending_binds = 0
        self._announced: set[int] = set()
        """Binds that the agent was told about; it refuses streams of any other."""
        self._unproven: dict[bytes, int] = {}
        """Binds whose BIND_OK may still be under way, by the nonce of the PING sent after it."""
        self._is_leaving = False
        """Whether the goodbye is said, and the agent may still close its connections itself."""
        self._is_ended = False
        self.record = record

    # What the kinds of sessions do differently

    @abstractmethod
    def say_hello(self, hello: messages.Hello, tunnels: list[Tunnel], *, resumed: bool) -> None:
        """Answer HELLO, and let the registry attach `tunnels` when the agent takes streams."""

    @abstractmethod
    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ByteStream:
        """Open a stream; see `registry.upstream.Upstream`."""

    @abstractmethod
    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Tell the agent about a finished request, if it wants to know."""

    @abstractmethod
    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell the agent to connect elsewhere, if it understands that."""

    @abstractmethod
    def _leave(self, reason: str, cause: SessionEnd) -> None:
        """Tell the registry that the session is over and not to be resumed."""

    @abstractmethod
    def _lost(self, close_code: int | None, reason: str) -> None:
        """Tell the registry that the primary is gone."""

    @abstractmethod
    def _is_silent(self, primary: LinkPort) -> bool:
        """Whether the agent counts as gone; if so, the session has been ended."""

    @property
    @abstractmethod
    def _patience_seconds(self) -> float:
        """How long a connection may owe the answer to a ping."""

    @abstractmethod
    def _receive_bind(self, payload: Payload) -> None:
        """Handle BIND: `_begin_bind` with what is asked for, or a BIND_ERR."""

    @abstractmethod
    def _receive_extension(self, frame_type: int, payload: Payload) -> None:
        """Handle a control frame that is not of the base protocol."""

    @abstractmethod
    def _joined(self) -> None:
        """Note that a secondary is there."""

    @abstractmethod
    def _stopped(self, reason: str) -> None:
        """Let go of what only this kind of session has; called once, before streams end."""

    # Links

    def attach_primary(self, transport: MessageTransport) -> LinkPort:
        """Attach the first connection."""
        port = self._new_port(transport, 0)
        self._ports.append(port)
        self._mux.attach(port.link)
        self._shared.by_id[self.record.id] = self
        self._timer = self._loop.call_later(self._ping_seconds, self._keep_alive)
        return port

    def _new_port(self, transport: MessageTransport, index: int) -> LinkPort:
        room = self._shared.settings.write_buffer_bytes
        return LinkPort(self._mux, index, transport, self, room_bytes=room)

    def _issue_tickets(self, hello: messages.Hello) -> tuple[messages.JoinTicket, ...]:
        """Return tickets for as many secondaries as asked for and allowed."""
        granted = min(hello.max_connections, MAX_CONNECTIONS)
        if messages.CAPABILITY_MULTI not in hello.capabilities:
            granted = 1
        expires = self._loop.time() + TICKET_SECONDS
        for index in range(1, granted):
            self._tickets[index] = (secrets.token_urlsafe(24), expires)
        return tuple(
            messages.JoinTicket(index=index, nonce=nonce, expires_ms=int(TICKET_SECONDS * 1000))
            for index, (nonce, _) in self._tickets.items()
        )

    def _take_back(self, tunnels: list[Tunnel]) -> None:
        """Note the binds of a resumed session: its agent knows them."""
        self._next_bind_id = 1 + max((t.bind_id for t in tunnels), default=0)
        self._announced.update(tunnel.bind_id for tunnel in tunnels)

    def use_ticket(self, join: messages.Join) -> str | None:
        """Take a join ticket; returns the JOIN_ERR code if it is no good."""
        ticket = self._tickets.get(join.index)
        if ticket is None:
            is_known = any(port.link.index == join.index for port in self._ports)
            return "ALREADY_JOINED" if is_known else "BAD_INDEX"
        nonce, expires = ticket
        if not secrets.compare_digest(nonce.encode(), join.nonce.encode()):
            return "BAD_NONCE"
        del self._tickets[join.index]
        return "EXPIRED" if self._loop.time() > expires else None

    def attach_secondary(self, transport: MessageTransport, index: int) -> LinkPort:
        """Attach another connection and say so on it."""
        port = self._new_port(transport, index)
        self._ports.append(port)
        self._mux.attach(port.link)
        self.record.connections = len(self._ports)
        port.link.send(
            frames.JOIN_OK,
            0,
            messages.encode({"sessionId": self.record.id, "index": index}),
        )
        self._joined()
        return port

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        """End the session: the agent broke the protocol. It is not parked."""
        del port
        logger.warning(
            "agent broke the protocol",
            extra={"session": self.record.id, "code": error.code, "reason": error.reason},
        )
        self.end(error.code, error.reason)
        self._leave(error.reason, SessionEnd.PROTOCOL)

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        """Detach a connection; the primary's loss is the session's."""
        if port is not self._ports[0]:
            self._ports.remove(port)
            self._asked_at.pop(port, None)
            self._mux.detach(port.link, reason)
            self.record.connections = len(self._ports)
            return
        self._stop(Code.STREAM_CLOSED, reason)
        self._lost(close_code, reason)

    # Upstream

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._mux.open_streams

    @property
    def is_crowded(self) -> bool:
        """Never: streams above the cap are refused."""
        return False

    def take_waiting(self, tunnel: Tunnel) -> WaitingStream | None:
        """Nothing waits here."""
        del tunnel
        return None

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be written to the agent."""
        return sum(port.transport.buffered_bytes for port in self._ports)

    def _check_room(self, bind_id: int, streams: int, most: int) -> None:
        """Check that a stream may be opened for a bind.

        Raises:
            NoSession: the agent is gone, or was not told about the bind.
            UpstreamBusy: a cap is reached.
        """
        if self._is_ended or self._is_leaving or bind_id not in self._announced:
            raise NoSession("the agent is away")
        if streams >= most:
            raise UpstreamBusy("too many streams in this session")
        if self._shared.budget.is_exhausted:
            raise UpstreamBusy("memory for slow readers is used up")
        if self._ports[0].transport.buffered_bytes > MOST_UNREAD_BYTES:
            raise UpstreamBusy("the agent does not read")

    def _emptiest_port(self, bind_id: int) -> LinkPort:
        """Return the link for a new stream: the one with the fewest bytes queued."""
        ports = self._ports
        # On another connection than the first a stream could overtake its BIND_OK.
        is_single = len(ports) == 1 or bind_id in self._unproven.values()
        return ports[0] if is_single else max(ports, key=_room)

    def _renew(self) -> None:
        """Drop the primary: all ids of this session are used, its agent comes back with new ones."""
        self._loop.call_soon(self._ports[0].transport.abort)

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """Tell the agent that a tunnel was taken from it."""
        if not self._is_ended:
            payload = messages.BindRevoked(bind_id=tunnel.bind_id, reason=reason).encode()
            self._send(frames.BIND_REVOKED, payload)

    def end(self, code: int, reason: str, grace_seconds: float = 0.0) -> None:
        """Say why; then, or after the grace, close every connection and end every stream; idempotent."""
        if self._is_ended:
            return
        if not self._is_leaving:
            self._is_leaving = True
            port = self._ports[0]
            port.link.send(frames.GOAWAY, 0, messages.GoAway(code=code, message=reason).encode())
            port.flush()
        if grace_seconds > 0:
            self._tickets.clear()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(grace_seconds, self.end, code, reason)
            return
        ports = list(self._ports)
        self._stop(Code.STREAM_CLOSED, reason)
        for port in ports:
            port.transport.close(self._close_code(code), reason)

    def _close_code(self, code: int) -> int:
        """Return the WebSocket close code that goes with a GOAWAY."""
        return 1000 if code == Code.NONE else 1002

    async def is_alive(self, timeout_seconds: float) -> bool:
        """Ping the agent and wait for its answer."""
        if self._is_ended:
            return False
        answered: asyncio.Future[bool] = self._loop.create_future()
        self._ping(answered)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await answered
        except TimeoutError:
            return False

    # MuxOwner

    def control_received(self, link: Link, frame_type: int, payload: Payload) -> None:
        """Handle a control frame of the agent."""
        if not is_receivable(Role.KIT, Phase.LIVE, frame_type):
            return
        if frame_type == frames.PING:
            link.send(frames.PONG, 0, bytes(payload[:64]))
        elif frame_type == frames.PONG:
            self._receive_pong(bytes(payload))
        elif frame_type == frames.BIND:
            self._receive_bind(payload)
        elif frame_type == frames.UNBIND:
            self._receive_unbind(messages.Unbind.decode(payload))
        elif frame_type == frames.GOAWAY:
            goaway = messages.GoAway.decode(payload)
            reason = goaway.message or "the agent said goodbye"
            ports = list(self._ports)
            self._stop(Code.STREAM_CLOSED, reason)
            self._leave(reason, SessionEnd.GOODBYE)
            for port in ports:
                port.transport.close(1000, "goodbye")
        else:
            self._receive_extension(frame_type, payload)

    def stream_opened(self, link: Link, stream_id: int, payload: Payload) -> None:
        """Never called: the mux of a kit refuses STREAM_OPEN."""
        raise RemoteProtocolError(Code.PROTOCOL_ERROR, "agents do not open streams")

    def stream_stalled(self, stream: Stream) -> None:
        """Pass on."""
        self._shared.flow.stream_stalled(stream)

    def stream_drained(self, stream: Stream) -> None:
        """Pass on."""
        self._shared.flow.stream_drained(stream)

    def stream_blocked(self, stream: Stream) -> None:
        """Pass on."""
        self._shared.flow.stream_blocked(stream)

    def stream_unblocked(self, stream: Stream) -> None:
        """Pass on."""
        self._shared.flow.stream_unblocked(stream)

    # Control frames

    def _send(self, frame_type: int, payload: bytes) -> None:
        if self._ports:
            self._ports[0].link.send(frame_type, 0, payload)

    def _begin_bind(self, ref: int, claim: Claim) -> None:
        if self._is_leaving:
            self._refuse_bind(ref, NoSession("the session is being ended"))
            return
        if self._pending_binds >= MAX_PENDING_BINDS:
            raise RemoteProtocolError(Code.CALM_DOWN, "too many BINDs in flight")
        self._pending_binds += 1
        self._shared.tasks.start(self._bind(ref, claim), "bind")

    async def _bind(self, ref: int, claim: Claim) -> None:
        bind_id = self._next_bind_id
        self._next_bind_id += 1
        try:
            tunnel = await self._shared.registry.claim(self.record, bind_id, claim)
        except ServerError as error:
            self._refuse_bind(ref, error)
            return
        except Exception:
            # Whatever it is, an agent waits for an answer and must not keep half a tunnel.
            logger.exception("bind failed", extra={"session": self.record.id})
            self._shared.registry.unbind(self.record, bind_id, "its bind failed")
            self._refuse_bind(ref, ServerError("the server failed; its log says why"))
            return
        finally:
            self._pending_binds -= 1
        self._send(
            frames.BIND_OK,
            messages.BindOk(
                client_bind_ref=ref,
                bind_id=bind_id,
                container_port=0 if tunnel.container is None else tunnel.container.port,
                public_url=tunnel.public_url or None,
                tunnel_id=str(tunnel.id),
            ).encode(),
        )
        self._announced.intersection_update(self.record.tunnels)
        self._announced.add(bind_id)
        # What was released before its ping was answered, if that ever happens.
        for nonce in [n for n, bind in self._unproven.items() if bind not in self._announced]:
            del self._unproven[nonce]
        if len(self._ports) > 1:
            self._unproven[self._ping(None)] = bind_id
        self._shared.registry.welcome(self.record, tunnel)

    def _refuse_bind(self, ref: int, error: ServerError) -> None:
        code, is_final = bind_refusal(error)
        payload = messages.BindErr(
            client_bind_ref=ref, code=code, message=str(error)[:MAX_TEXT], is_final=is_final
        ).encode()
        self._send(frames.BIND_ERR, payload)

    def _receive_unbind(self, unbind: messages.Unbind) -> None:
        if self._shared.registry.unbind(self.record, unbind.bind_id, "released by its agent"):
            self._send(frames.UNBIND_OK, unbind.encode())
        else:
            self._send(
                frames.UNBIND_ERR,
                messages.UnbindErr(
                    bind_id=unbind.bind_id, code="NOT_FOUND", message="not bound by this session"
                ).encode(),
            )

    # Liveness

    def _keep_alive(self) -> None:
        if self._is_silent(self._ports[0]):
            return
        self._ping(None)
        for port in self._ports[1:]:
            self._ask(port)
        self._timer = self._loop.call_later(self._ping_seconds, self._keep_alive)

    def _ask(self, port: LinkPort) -> None:
        """Ping a secondary, or give it up: frames alone do not tell, it may have nothing to say.

        The primary is asked by frames, and its silence is the session's end.
        """
        now = self._loop.time()
        if not port.transport.awaits_pong:
            self._asked_at[port] = now
            port.transport.ping()
        elif now - max(self._asked_at[port], port.received_at) > self._patience_seconds:
            port.transport.abort()

    def _ping(self, answered: asyncio.Future[bool] | None) -> bytes:
        self._ping_count += 1
        nonce = self._ping_count.to_bytes(8, "big")
        # Not the time of the loop: uvloop's goes by whole milliseconds.
        self._pings[nonce] = (self._shared.clock.monotonic(), answered)
        while len(self._pings) > MAX_UNANSWERED_PINGS:
            del self._pings[next(iter(self._pings))]
        self._send(frames.PING, nonce)
        return nonce

    def _receive_pong(self, nonce: bytes) -> None:
        self._unproven.pop(nonce, None)
        sent = self._pings.pop(nonce, None)
        if sent is None:
            return
        sent_at, answered = sent
        self._shared.rtt_seconds(self._shared.clock.monotonic() - sent_at)
        if answered is not None and not answered.done():
            answered.set_result(True)

    def _stop(self, code: int, reason: str) -> None:
        """Forget links and streams; the registry is told by the caller."""
        if self._is_ended:
            return
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
        for _, answered in self._pings.values():
            if answered is not None and not answered.done():
                answered.set_result(False)
        if self._shared.by_id.get(self.record.id) is self:
            del self._shared.by_id[self.record.id]
        for port in self._ports:
            port.detach()
            if port is not self._ports[0]:
                port.transport.close(1001, reason)
        # The registry must know that the agent is away before its streams end: whoever loses a
        # stream then waits for the agent's return instead of asking this session again.
        session = self.record
        for tunnel in session.tunnels.values():
            tunnel.session = None
        self._stopped(reason)
        self._mux.close(code, reason)


def _room(port: LinkPort) -> int:
    return port.link.room
