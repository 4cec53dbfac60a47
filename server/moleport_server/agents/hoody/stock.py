"""The session of a stock hoody-tunnel client: v1 or v2, EXPOSE and PULL, of either generation.

Differs from that of our own agent in what a stock client cannot be told: it gets exchanges instead of
bytes of HTTP, no goodbye before a restart, and nothing beyond the base protocol. Its ports are kept when
the connection breaks off and given back when it ends with a close frame.

Which socket a stream gets: GET and HEAD any, since they need no EOF from us and are answered on the
socket that opened them; everything else the primary, because a driver answers there once it has seen
our EOF, and an answer split over two sockets has no order.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from moleport_server.agents.hoody.container_claims import container_claim
from moleport_server.agents.hoody.exchange import ExchangeStream
from moleport_server.agents.hoody.pull import PullStream
from moleport_server.agents.hoody.session import HoodySession
from moleport_server.domain.token import Principal
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import InvalidRequest, UpstreamBusy
from moleport_server.registry.container_ports import Contest
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_server.registry.upstream import ByteStream
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.exchanges import encode_tcp_open
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.members import Members
from moleport_wire.hoody.stock import StockMux, whole_window
from moleport_wire.hoody.streams import Stream, StreamReceiver

if TYPE_CHECKING:
    from moleport_server.agents.hoody.login import AgentSessions

MAX_OPEN_EXCHANGES: Final = 200
"""HTTP requests that one driver works on: it has 256 local sockets, and fails what waits longer than
five seconds for one."""
MAX_WAITING_BODIES: Final = 256
"""Requests with a body that wait for their turn: each may hold two reads of 64 KiB meanwhile."""
OLD_WINDOW_BYTES: Final = 1024 * 1024
"""Streams of old clients get at least this: they lose the tail of a PULL that waits for credit when the
local service ends."""
SETTLE_SECONDS: Final = 0.1
"""Streams wait so long behind the answer to a HELLO that resumed: old clients set up their forwarding
after that answer, and lose what comes with it."""
JOIN_SECONDS: Final = 5.0
"""Streams of a resumed session wait for its secondaries, but not longer."""
GOODBYE_CODES: Final = frozenset({1000, 1005})
"""Close codes of a client that meant to end; after all others, and without any, its ports are kept."""


class StockSession(HoodySession):
    """One live session of a stock client."""

    _mux: StockMux

    def __init__(
        self,
        shared: AgentSessions,
        session_id: str,
        principal: Principal,
        hello: messages.Hello,
        peer: str,
        subprotocol: str,
    ) -> None:
        settings = shared.settings
        # Clients after beta.12 do not send it any more; nothing else tells the generations apart.
        is_old = hello.token is not None
        mux = StockMux(
            self,
            shared.budget,
            stream_window=whole_window(
                max(settings.stream_window_bytes, OLD_WINDOW_BYTES)
                if is_old
                else settings.stream_window_bytes
            ),
            session_window=whole_window(settings.session_window_bytes),
            on_end=self._stream_ended,
        )
        self.is_old = is_old
        record = Session(
            id=session_id,
            protocol=subprotocol,
            principal=principal,
            upstream=self,
            peer=peer,
            connected_at=shared.clock.now(),
            agent="hoody-tunnel client (old generation)" if self.is_old else "hoody-tunnel client",
        )
        super().__init__(shared, record, mux, ping_seconds=settings.stock.ping_seconds)
        self._streams: dict[ExchangeStream | PullStream, int] = {}
        """Everything that visitors opened and that has not ended, with its bind."""
        self._of_wire: dict[Stream, ExchangeStream | PullStream] = {}
        self._in_work: set[ExchangeStream] = set()
        """Exchanges that hold a local socket of the driver."""
        self._queue: deque[ExchangeStream] = deque()
        self._resumed: list[Tunnel] = []
        self._settle_timer: asyncio.TimerHandle | None = None
        self._answered_at = self._loop.time()
        self._busy_at = self._loop.time()

    # Handshake

    def say_hello(self, hello: messages.Hello, tunnels: list[Tunnel], *, resumed: bool) -> None:
        """Answer HELLO; streams of resumed binds begin when the client is ready for them."""
        is_v2 = self.record.protocol == messages.SUBPROTOCOL_V2
        tickets = self._issue_tickets(hello) if is_v2 else ()
        self.record.granted = 1 + len(tickets)
        self._take_back(tunnels)
        answer = messages.HelloOk(
            session_id=self.record.id,
            resumed=resumed,
            resumed_binds=tuple(
                messages.ResumedBind(
                    bind_id=t.bind_id,
                    kind=t.protocol.value,
                    mode="expose" if t.container is None else t.container.mode.value,
                    container_port=0 if t.container is None else t.container.port,
                )
                for t in tunnels
            ),
            stream_window=self._mux.stream_window,
            session_window=self._mux.session_window,
            connections_granted=1 + len(tickets),
            join_tickets=tickets,
        )
        self._send(frames.HELLO_OK, answer.encode())
        if tunnels:
            self._resumed = tunnels
            self._settle(JOIN_SECONDS if tickets else SETTLE_SECONDS)

    def _joined(self) -> None:
        """Wait no longer than it takes when the last secondary is there."""
        if self._resumed and not self._tickets:
            self._settle(SETTLE_SECONDS)

    def _settle(self, seconds: float) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        self._settle_timer = self._loop.call_later(seconds, self._settled)

    def _settled(self) -> None:
        self._settle_timer = None
        tunnels, self._resumed = self._resumed, []
        self._shared.registry.attach(self.record, tunnels)

    # Upstream

    @property
    def open_streams(self) -> int:
        """Streams of visitors, those that wait for their turn included."""
        return len(self._streams)

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ByteStream:
        """Open a stream, or let it stand in line for the driver's sockets."""
        bind_id = tunnel.bind_id
        self._check_room(bind_id, len(self._streams), self._shared.settings.stock.max_streams)
        if tunnel.protocol is TunnelProtocol.HTTP:
            exchange = ExchangeStream(self, bind_id, receiver)
            self._streams[exchange] = bind_id
            return exchange
        pull = PullStream(receiver, is_old=self.is_old)
        try:
            stream = self._mux.open_stock(
                self._ports[0].link, pull, encode_tcp_open(bind_id), is_prompt=self.is_old
            )
        except RemoteProtocolError as error:
            self._renew()
            raise UpstreamBusy("the session is being renewed") from error
        pull.attach(stream)
        self._streams[pull] = bind_id
        self._of_wire[stream] = pull
        return pull

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Say nothing: stock clients show no requests."""

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Say nothing: to a stock client every goodbye is the end, so it comes last."""

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """Reset the streams of a bind that was taken from the client, then tell it."""
        if self._is_ended:
            return
        bind_id = tunnel.bind_id
        for stream in [s for s, of_bind in self._streams.items() if of_bind == bind_id]:
            stream.take_away(Code.TAKEOVER, reason)
        super().unbind(tunnel, reason)

    def _close_code(self, code: int) -> int:
        return {Code.NONE: 1001, Code.IDLE_TIMEOUT: 1000}.get(Code(code), 1002)

    # Exchanges

    def submit(self, exchange: ExchangeStream) -> None:
        """Open the stream of an exchange whose head is known, or put it in line."""
        if self._is_ended:
            self._loop.call_soon(exchange.lost, Code.STREAM_CLOSED, "the session is over")
        elif len(self._in_work) < MAX_OPEN_EXCHANGES and not self._queue:
            self._open(exchange)
        elif not exchange.is_simple and self._count_waiting_bodies() >= MAX_WAITING_BODIES:
            self._loop.call_soon(exchange.lost, Code.CALM_DOWN, "too many uploads wait already")
        else:
            self._queue.append(exchange)

    def _count_waiting_bodies(self) -> int:
        return sum(not exchange.is_simple for exchange in self._queue)

    def _open(self, exchange: ExchangeStream) -> None:
        bind_id = exchange.bind_id
        port = self._emptiest_port(bind_id) if exchange.is_simple else self._ports[0]
        try:
            stream = self._mux.open_stock(
                port.link, exchange, exchange.opening, on_head=exchange.stream_head
            )
        except RemoteProtocolError:
            self._renew()
            self._loop.call_soon(exchange.lost, Code.STREAM_CLOSED, "the session is being renewed")
            return
        self._in_work.add(exchange)
        self._of_wire[stream] = exchange
        exchange.opened(stream)

    def freed(self, exchange: ExchangeStream) -> None:
        """Note that an exchange needs no local socket of the pool (any more); idempotent."""
        self._in_work.discard(exchange)
        while self._queue and not self._is_ended and len(self._in_work) < MAX_OPEN_EXCHANGES:
            self._open(self._queue.popleft())

    def withdraw(self, exchange: ExchangeStream) -> None:
        """Forget an exchange that ended before its stream was opened; idempotent."""
        if exchange in self._queue:
            self._queue.remove(exchange)
        self._forget(exchange)

    def _stream_ended(self, stream: Stream) -> None:
        """Forget whatever used a stream that has left the mux."""
        user = self._of_wire.pop(stream, None)
        if user is not None:
            self._forget(user)

    def _forget(self, user: ExchangeStream | PullStream) -> None:
        if self._streams.pop(user, None) is None:
            return
        self._busy_at = self._loop.time()
        if isinstance(user, ExchangeStream):
            self.freed(user)

    # Binds

    def _receive_bind(self, payload: Payload) -> None:
        try:
            bind = messages.Bind.decode(payload)
        except RemoteProtocolError as error:
            # A client fails all of its binds when it cannot tell which one was refused.
            ref = Members.parse("BIND", payload).integer("clientBindRef")
            self._refuse_bind(ref, InvalidRequest(error.reason))
            return
        try:
            claim = container_claim(bind, Contest.REFUSE)
        except InvalidRequest as error:
            self._refuse_bind(bind.client_bind_ref, error)
        else:
            self._begin_bind(bind.client_bind_ref, claim)

    def _receive_extension(self, frame_type: int, payload: Payload) -> None:
        """Skip it: extensions were not agreed on."""

    # The end

    def _leave(self, reason: str, cause: SessionEnd) -> None:
        self._shared.registry.release_session(self.record, reason, cause)

    def _lost(self, close_code: int | None, reason: str) -> None:
        registry = self._shared.registry
        if close_code in GOODBYE_CODES:
            registry.release_session(self.record, reason or "goodbye", SessionEnd.GOODBYE)
        else:
            registry.lose_session(self.record, reason, is_clean=False)

    @property
    def _patience_seconds(self) -> float:
        return self._shared.settings.stock.pong_seconds

    def _is_silent(self, primary: LinkPort) -> bool:
        settings = self._shared.settings.stock
        now = self._loop.time()
        if now - self._answered_at > settings.pong_seconds:
            # Its ports are kept: it may be back with another connection.
            self.end(Code.IDLE_TIMEOUT, "pong timeout")
            self._shared.registry.lose_session(self.record, "pong timeout", is_clean=False)
            return True
        if self._streams or self.record.tunnels or self._resumed or self._pending_binds:
            self._busy_at = now
        elif now - self._busy_at > settings.idle_seconds:
            self.end(Code.IDLE_TIMEOUT, "session idle timeout")
            self._leave("session idle timeout", SessionEnd.IDLE)
            return True
        return False

    def _receive_pong(self, nonce: bytes) -> None:
        self._answered_at = self._loop.time()
        super()._receive_pong(nonce)

    def _stopped(self, reason: str) -> None:
        if self._settle_timer is not None:
            self._settle_timer.cancel()
        queue, self._queue = list(self._queue), deque()
        for exchange in queue:
            exchange.lost(Code.STREAM_CLOSED, reason)
