"""One live session of our own agent: hoody-tunnel.v2 with `moleport.1` (docs/reference/protocol.md).

`AgentSession` owns the mux and its links and is the registry's `Upstream`: it opens streams, answers the
agent's control frames and finds out when the agent is gone. The primary's end is the session's end; a
lost secondary ends its own streams only. How a connection becomes part of a session is in `login`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from moleport_server.agents.hoody.refusals import bind_refusal
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import (
    InvalidRequest,
    NoSession,
    ServerError,
    Unauthenticated,
    UpstreamBusy,
)
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_server.registry.registry import Claim
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.members import MAX_TEXT
from moleport_wire.hoody.mux import Link, Mux
from moleport_wire.hoody.session import Phase, Role, is_receivable
from moleport_wire.hoody.streams import Stream, StreamReceiver

if TYPE_CHECKING:
    from moleport_server.agents.hoody.login import AgentSessions

logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 16
TICKET_SECONDS: Final = 15.0
MAX_PENDING_BINDS: Final = 64
"""BINDs that one agent may have in flight; more is an attack on the store."""
REPORT_SECONDS: Final = 0.25
REPORTS_PER_FRAME: Final = 50
"""A live view shows no more than 200 lines a second; the rest is counted."""
MAX_REPORTED_PATH: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Bounds of one agent session."""

    first_frame_seconds: float = 5.0
    ping_seconds: float = 10.0
    silence_seconds: float = 30.0
    """An agent that says nothing for so long, pings included, is gone."""
    stream_window_bytes: int = 256 * 1024
    session_window_bytes: int = 16 * 1024 * 1024
    write_buffer_bytes: int = 256 * 1024
    max_streams: int = 10_000
    server_name: str = "moleport"
    """What HELLO_OK tells people: name and version."""


class AgentSession:
    """One live session: the mux with its links, and the registry's `Upstream`."""

    def __init__(
        self,
        shared: AgentSessions,
        session_id: str,
        principal: Principal,
        hello: messages.Hello,
        peer: str,
    ) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        settings = shared.settings
        self._mux = Mux(
            self,
            shared.budget,
            stream_window=settings.stream_window_bytes,
            session_window=settings.session_window_bytes,
            opens=True,
        )
        self._ports: list[LinkPort] = []
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
        self._wants_reports = hello.wants_reports
        self._reports: list[messages.ReportedRequest] = []
        self._reports_skipped = 0
        self._report_timer: asyncio.TimerHandle | None = None
        self._is_ended = False
        self.record = Session(
            id=session_id,
            protocol="moleport",
            principal=principal,
            upstream=self,
            peer=peer,
            connected_at=shared.clock.now(),
            agent=hello.agent[:128],
        )

    # Links

    def attach_primary(self, transport: MessageTransport) -> LinkPort:
        """Attach the first connection."""
        port = self._new_port(transport, 0)
        self._ports.append(port)
        self._mux.attach(port.link)
        self._shared.by_id[self.record.id] = self
        self._timer = self._loop.call_later(self._shared.settings.ping_seconds, self._keep_alive)
        return port

    def _new_port(self, transport: MessageTransport, index: int) -> LinkPort:
        room = self._shared.settings.write_buffer_bytes
        return LinkPort(self._mux, index, transport, self, room_bytes=room)

    def say_hello(self, hello: messages.Hello, tunnels: list[Tunnel], *, resumed: bool) -> None:
        """Answer HELLO; tickets for as many secondaries as asked for and allowed."""
        settings = self._shared.settings
        granted = min(hello.max_connections, MAX_CONNECTIONS)
        if messages.CAPABILITY_MULTI not in hello.capabilities:
            granted = 1
        expires = self._loop.time() + TICKET_SECONDS
        for index in range(1, granted):
            self._tickets[index] = (secrets.token_urlsafe(24), expires)
        self._next_bind_id = 1 + max((t.bind_id for t in tunnels), default=0)
        self._announced.update(tunnel.bind_id for tunnel in tunnels)
        answer = messages.HelloOk(
            session_id=self.record.id,
            resumed=resumed,
            resumed_binds=tuple(
                messages.ResumedBind(
                    bind_id=t.bind_id,
                    kind=t.protocol.value,
                    mode="expose",
                    container_port=0,
                    public_url=t.public_url,
                )
                for t in tunnels
            ),
            stream_window=settings.stream_window_bytes,
            session_window=settings.session_window_bytes,
            connections_granted=granted,
            join_tickets=tuple(
                messages.JoinTicket(index=index, nonce=nonce, expires_ms=int(TICKET_SECONDS * 1000))
                for index, (nonce, _) in self._tickets.items()
            ),
            capabilities=(messages.CAPABILITY_MOLEPORT,),
            server=settings.server_name,
            lease_seconds=int(self._shared.registry.lease_seconds),
        )
        self._send(frames.HELLO_OK, answer.encode())

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
        return port

    def link_failed(self, port: LinkPort, error: RemoteProtocolError) -> None:
        """End the session: the agent broke the protocol. It is not parked."""
        del port
        logger.warning(
            "agent broke the protocol",
            extra={"session": self.record.id, "code": error.code, "reason": error.reason},
        )
        self.end(error.code, error.reason)
        self._shared.registry.lose_session(
            self.record, error.reason, is_clean=True, cause=SessionEnd.PROTOCOL
        )

    def link_lost(self, port: LinkPort, close_code: int | None, reason: str) -> None:
        """Detach a connection; the primary's loss parks the session."""
        if port is not self._ports[0]:
            self._ports.remove(port)
            self._mux.detach(port.link, reason)
            self.record.connections = len(self._ports)
            return
        # Our agent says goodbye with GOAWAY; any other end, a close frame included (a proxy that
        # restarts sends one), keeps the session for its return.
        del close_code
        self._stop(Code.STREAM_CLOSED, reason)
        self._shared.registry.lose_session(self.record, reason, is_clean=False)

    # Upstream

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return self._mux.open_streams

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be written to the agent."""
        return sum(port.transport.buffered_bytes for port in self._ports)

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> Stream:
        """Open a stream on the link with the fewest bytes queued."""
        bind_id = tunnel.bind_id
        if self._is_ended or bind_id not in self._announced:
            raise NoSession("the agent is away")
        if self._mux.open_streams >= self._shared.settings.max_streams:
            raise UpstreamBusy("too many streams in this session")
        if self._shared.budget.is_exhausted:
            raise UpstreamBusy("memory for slow readers is used up")
        ports = self._ports
        # On another connection than the first a stream could overtake its BIND_OK.
        is_single = len(ports) == 1 or bind_id in self._unproven.values()
        port = ports[0] if is_single else max(ports, key=_room)
        try:
            return self._mux.open(
                port.link,
                receiver,
                lambda window: messages.StreamOpen(
                    bind_id=bind_id, peer=peer, window=window
                ).encode(),
            )
        except RemoteProtocolError as error:
            # All ids of this session are used; its agent comes back with a fresh mux.
            self._loop.call_soon(ports[0].transport.abort)
            raise UpstreamBusy("the session is being renewed") from error

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Collect a finished request for the agent's live view."""
        if not self._wants_reports:
            return
        if len(self._reports) >= REPORTS_PER_FRAME:
            self._reports_skipped += 1
            return
        path = target.partition(b"?")[0][:MAX_REPORTED_PATH].decode("utf-8", "replace")
        self._reports.append(
            messages.ReportedRequest(
                bind_id=tunnel.bind_id,
                method=method.decode("latin-1"),
                path=path,
                status=status,
                duration_ms=seconds * 1000,
                peer=peer,
            )
        )
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(REPORT_SECONDS, self._send_reports)

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """Tell the agent that a tunnel was taken from it."""
        if not self._is_ended:
            payload = messages.BindRevoked(bind_id=tunnel.bind_id, reason=reason).encode()
            self._send(frames.BIND_REVOKED, payload)

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Tell the agent to connect elsewhere."""
        if not self._is_ended:
            payload = messages.Drain(
                deadline_ms=int(deadline_seconds * 1000), reason=reason
            ).encode()
            self._send(frames.DRAIN, payload)

    def end(self, code: int, reason: str) -> None:
        """Say why, close every connection, end every stream; idempotent."""
        if self._is_ended:
            return
        port = self._ports[0]
        port.link.send(frames.GOAWAY, 0, messages.GoAway(code=code, message=reason).encode())
        port.flush()
        ports = list(self._ports)
        self._stop(Code.STREAM_CLOSED, reason)
        for port in ports:
            port.transport.close(1000 if code == Code.NONE else 1002, reason)

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
            self._receive_bind(messages.Bind.decode(payload))
        elif frame_type == frames.UNBIND:
            self._receive_unbind(messages.Unbind.decode(payload))
        elif frame_type == frames.REAUTH:
            reauth = messages.Reauth.decode(payload)
            self._shared.tasks.start(self._reauthenticate(reauth.token), "agent reauthentication")
        else:  # GOAWAY
            goaway = messages.GoAway.decode(payload)
            reason = goaway.message or "the agent said goodbye"
            ports = list(self._ports)
            self._stop(Code.STREAM_CLOSED, reason)
            self._shared.registry.lose_session(self.record, reason, is_clean=True)
            for port in ports:
                port.transport.close(1000, "goodbye")

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

    def _receive_bind(self, bind: messages.Bind) -> None:
        if self._pending_binds >= MAX_PENDING_BINDS:
            raise RemoteProtocolError(Code.CALM_DOWN, "too many BINDs in flight")
        self._pending_binds += 1
        self._shared.tasks.start(self._bind(bind), "bind")

    async def _bind(self, bind: messages.Bind) -> None:
        bind_id = self._next_bind_id
        self._next_bind_id += 1
        try:
            tunnel = await self._shared.registry.claim(self.record, bind_id, _claim_of(bind))
        except ServerError as error:
            code, is_final = bind_refusal(error)
            payload = messages.BindErr(
                client_bind_ref=bind.client_bind_ref,
                code=code,
                message=str(error)[:MAX_TEXT],
                is_final=is_final,
            ).encode()
            self._send(frames.BIND_ERR, payload)
            return
        finally:
            self._pending_binds -= 1
        self._send(
            frames.BIND_OK,
            messages.BindOk(
                client_bind_ref=bind.client_bind_ref,
                bind_id=bind_id,
                public_url=tunnel.public_url,
                tunnel_id=str(tunnel.id),
            ).encode(),
        )
        self._announced.intersection_update(self.record.tunnels)
        self._announced.add(bind_id)
        if len(self._ports) > 1:
            self._unproven[self._ping(None)] = bind_id
        self._shared.registry.welcome(self.record, tunnel)

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

    async def _reauthenticate(self, secret: str) -> None:
        address = self.record.peer.rpartition(":")[0].strip("[]")
        try:
            async with asyncio.timeout(self._shared.settings.first_frame_seconds):
                principal = await self._shared.authenticator.authenticate(
                    secret, address=address, kind="agent"
                )
            if principal.token_id != self.record.principal.token_id:
                raise Unauthenticated("the credential belongs to another token")
        except (ServerError, TimeoutError) as error:
            text = str(error) or "the server could not check the token in time"
            self._send(
                frames.REAUTH_ERR, messages.Refusal(code="INVALID_TOKEN", message=text).encode()
            )
            return
        self.record.principal = principal
        self._send(frames.REAUTH_OK, b"{}")

    # Liveness

    def _keep_alive(self) -> None:
        settings = self._shared.settings
        primary = self._ports[0]
        if self._loop.time() - primary.received_at > settings.silence_seconds:
            primary.transport.abort()
            primary.transport_lost(None, f"silent for {settings.silence_seconds:g} s")
            return
        self._ping(None)
        for port in self._ports[1:]:
            port.transport.ping()
        self._timer = self._loop.call_later(settings.ping_seconds, self._keep_alive)

    def _ping(self, answered: asyncio.Future[bool] | None) -> bytes:
        self._ping_count += 1
        nonce = self._ping_count.to_bytes(8, "big")
        # Not the time of the loop: uvloop's goes by whole milliseconds.
        self._pings[nonce] = (self._shared.clock.monotonic(), answered)
        while len(self._pings) > 16:  # unanswered ones of a peer that ignores pings
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

    def _send_reports(self) -> None:
        self._report_timer = None
        reports, self._reports = self._reports, []
        skipped, self._reports_skipped = self._reports_skipped, 0
        if not self._is_ended:
            report = messages.Report(requests=tuple(reports), skipped=skipped)
            self._send(frames.REPORT, report.encode())

    def _stop(self, code: int, reason: str) -> None:
        """Forget links and streams; the registry is told by the caller."""
        if self._is_ended:
            return
        self._is_ended = True
        for timer in (self._timer, self._report_timer):
            if timer is not None:
                timer.cancel()
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
        self._mux.close(code, reason)


def _room(port: LinkPort) -> int:
    return port.link.room


def _claim_of(bind: messages.Bind) -> Claim:
    if bind.mode != "expose" or bind.kind not in ("http", "tcp"):
        raise InvalidRequest(f"kind {bind.kind!r} with mode {bind.mode!r} cannot be bound here")
    if bind.hostname is not None and bind.subdomain is not None:
        raise InvalidRequest("give hostname or subdomain, not both")
    users = bind.basic_auth
    return Claim(
        protocol=TunnelProtocol(bind.kind),
        hostname=bind.hostname,
        subdomain=bind.subdomain,
        port=bind.port,
        is_wish=bind.is_wish,
        basic_auth=None if users is None else tuple((u.user, u.password_hash) for u in users),
        allowed_cidrs=bind.allowed_cidrs,
        host_header=bind.host_header,
    )
