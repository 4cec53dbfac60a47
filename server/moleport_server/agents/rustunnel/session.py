"""One live session of a stock rustunnel client: its two channels and the registry's `Upstream`.

The control channel is the session: its end is the session's end. The data channel comes behind the
last registration, may be lost and attached again, and carries all streams. While there is none, the
session opens no streams, so that visitors are held; and it says nothing unasked on the control channel
before the first one came (see `control`).

The client picks the local service by the class of the stream alone, http or tcp: several tunnels of one
class all lead to whatever it registered first. Nothing on the wire can help that.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from moleport_server.agents.rustunnel.pings import Pings
from moleport_server.agents.rustunnel.registrations import Registrations
from moleport_server.agents.rustunnel.stalls import Stalls
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.contests import PROBE_SECONDS
from moleport_server.registry.live import Session, Tunnel
from moleport_server.registry.observer import SessionEnd
from moleport_server.registry.upstream import WaitingStream
from moleport_wire.aio.muxer import YamuxPort
from moleport_wire.errors import RemoteProtocolError, StreamBusy, TransportLost
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.streams import StreamReceiver
from moleport_wire.rustunnel import messages, texts
from moleport_wire.yamux.mux import MAX_WAITING
from moleport_wire.yamux.streams import Stream

if TYPE_CHECKING:
    from moleport_server.agents.rustunnel.sessions import RustunnelSessions
    from moleport_server.domain.token import Principal
    from moleport_wire.aio.transport import MessageTransport

logger = logging.getLogger(__name__)

SERVER_RELEASE: Final = "0.6.0"
"""What clients may expect of us. From 0.7.0 on they would ask for load balancing, which is not there."""
UNKNOWN_VISITOR: Final = "0.0.0.0:0"
"""The client reads an address strictly."""


class RustunnelSession:
    """The control channel after its login, the data channel while there is one."""

    def __init__(
        self,
        shared: RustunnelSessions,
        principal: Principal,
        control: MessageTransport,
        *,
        peer: str,
        client_version: str,
    ) -> None:
        self._shared = shared
        self._control = control
        self._loop = asyncio.get_running_loop()
        # The side of `YamuxOwner` that concerns slow readers and missing credit.
        self.stream_stalled = shared.flow.stream_stalled
        self.stream_drained = shared.flow.stream_drained
        self.stream_blocked = shared.flow.stream_blocked
        self.stream_unblocked = shared.flow.stream_unblocked
        self._data: YamuxPort | None = None
        self._stalls: Stalls | None = None
        self._secret = uuid4()
        self._heard_at = self._loop.time()
        self._pings = Pings(
            lambda timestamp: self._send(messages.Ping(timestamp=timestamp)), shared
        )
        self._attach_timer: asyncio.TimerHandle | None = None
        self._tick_timer: asyncio.TimerHandle | None = None
        """Runs from the first data channel on: before it nothing may be said unasked."""
        self._ping_at = 0.0
        self._wanted: dict[Stream, Tunnel] = {}
        """Which tunnel a stream waits for; may hold some that have started since."""
        self._is_draining = False
        self._is_ended = False
        self.record = Session(
            id=str(uuid4()),
            protocol="rustunnel",
            principal=principal,
            upstream=self,
            peer=peer,
            connected_at=shared.clock.now(),
            agent=f"rustunnel/{client_version}",
        )
        self._registrations = Registrations(shared, self.record, self._send, self._answered)

    def begin(self) -> None:
        """Enter the registry and tell the client that it is in."""
        shared = self._shared
        shared.by_secret[self._secret] = self
        shared.registry.open_session(self.record)
        version = f"{SERVER_RELEASE}+{shared.settings.server_name}"
        self._send(messages.AuthOk(session_id=self._secret, server_version=version))
        self._expect_data_channel()

    # The control channel

    def control_received(self, message: bytes) -> None:
        """Handle a message; whatever makes no sense is ignored, as clients expect."""
        if self._is_ended:
            return
        self._heard_at = self._loop.time()
        try:
            received = messages.decode(message)
        except messages.MalformedMessage as error:
            # A client that is told "no" stops; one that hears nothing asks again for ever.
            if error.request_id is not None:
                self._registrations.refuse(error.request_id, texts.UNSUPPORTED_PROTOCOL)
            return
        match received:
            case messages.RegisterTunnel():
                self._registrations.register(received)
            case messages.UnregisterTunnel():
                self._registrations.unregister(received.tunnel_id)
            case messages.Ping():
                self._send(messages.Pong(timestamp=received.timestamp))
            case messages.Pong():
                self._pings.receive_pong(received.timestamp)
            case messages.P2pConnect():
                self._send(
                    messages.P2pError(request_id=received.request_id, message=texts.P2P_DISABLED)
                )
            case _:
                logger.debug(
                    "message ignored",
                    extra={"session": self.record.id, "kind": type(received).__name__},
                )

    def control_lost(self, close_code: int | None, reason: str) -> None:
        """End with the control channel; after a goodbye visitors are not held."""
        # Ctrl-C sends a close frame without a code. Other codes come from what is in between.
        is_clean = close_code in (1000, 1005)
        self._stop(reason)
        self._shared.registry.lose_session(
            self.record, "the client said goodbye" if is_clean else reason, is_clean=is_clean
        )

    def _answered(self, tunnel: Tunnel | None) -> None:
        """Go on behind the answer to a registration, with the tunnel if there is one."""
        if self._data is None:
            self._expect_data_channel()
        elif tunnel is not None:
            self._shared.registry.welcome(self.record, tunnel)

    def _send(self, message: messages.Message) -> None:
        if not self._is_ended:
            self._control.send(message.encode())

    # The data channel

    def attach(self, transport: MessageTransport) -> YamuxPort | None:
        """Take a new data channel; it replaces the one before, whose streams end.

        Returns the port that gets its bytes; None if the session has ended, and the connection with it.
        """
        if self._is_ended:
            transport.abort()
            return None
        shared = self._shared
        self._detach("another data channel was attached")
        port = YamuxPort(
            transport, self, shared.budget, room_bytes=shared.settings.write_buffer_bytes
        )
        self._data = port
        self._stalls = Stalls(
            port.mux,
            stream_seconds=shared.settings.stream_seconds,
            credit_seconds=shared.settings.credit_seconds,
            answer_seconds=shared.settings.silence_seconds,
        )
        self.record.connections = 2
        if self._attach_timer is not None:
            self._attach_timer.cancel()
        if self._tick_timer is None:
            self._ping_at = self._loop.time() + shared.settings.ping_seconds
            self._tick_timer = self._loop.call_later(shared.settings.tick_seconds, self._tick)
        # Not within the upgrade: visitors who waited would be served before its answer is out.
        self._loop.call_soon(self._welcome, port)
        return port

    def _welcome(self, port: YamuxPort) -> None:
        for bind_id, tunnel in list(self.record.tunnels.items()):
            if self._data is port and self._registrations.is_told(bind_id):
                self._shared.registry.welcome(self.record, tunnel)

    def _expect_data_channel(self) -> None:
        """Start anew to wait for the data channel; a client without one serves nobody."""
        if self._attach_timer is not None:
            self._attach_timer.cancel()
        if self._data is not None or self._is_ended:
            return
        self._attach_timer = self._loop.call_later(
            self._shared.settings.attach_seconds, self._drop, "no data channel was attached"
        )

    def _detach(self, reason: str, *, linger_seconds: float = 0.0) -> None:
        port, self._data = self._data, None
        if port is None:
            return
        self._stalls = None
        self._wanted.clear()
        self.record.connections = 1
        port.detach()
        if linger_seconds:
            self._loop.call_later(linger_seconds, port.transport.abort)
        else:
            port.transport.abort()
        port.mux.close(Code.STREAM_CLOSED, reason)

    def yamux_failed(self, port: YamuxPort, error: RemoteProtocolError) -> None:
        """Give the data channel up: its client broke the protocol."""
        logger.warning(
            "agent broke the protocol",
            extra={"session": self.record.id, "code": error.code, "reason": error.reason},
        )
        self._lose_data(port, error.reason)

    def yamux_lost(self, port: YamuxPort, close_code: int | None, reason: str) -> None:
        """Wait for the next one."""
        del close_code
        self._lose_data(port, reason)

    def goaway_received(self, code: int) -> None:
        """Give the data channel up: its client has done so, and waits for our end."""
        if self._data is not None:
            self._lose_data(self._data, f"the client gave the data channel up ({code})")

    def _lose_data(self, port: YamuxPort, reason: str) -> None:
        if port is self._data:
            logger.info("data channel lost", extra={"session": self.record.id, "reason": reason})
            self._detach(reason)
            self._expect_data_channel()

    def stream_opened(self, stream_id: int) -> None:
        """Refuse it: stock clients open none."""
        if self._data is not None:
            self._data.mux.refuse(stream_id)

    # Upstream

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return 0 if self._data is None else self._data.mux.open_streams

    @property
    def is_crowded(self) -> bool:
        """Whether streams wait for a place, or for the end of all."""
        data = self._data
        return self._is_draining or (data is not None and bool(data.mux.waiting_streams))

    def take_waiting(self, tunnel: Tunnel) -> WaitingStream | None:
        """Take the stream that has waited longest, if it is the tunnel's."""
        data = self._data
        waiting = None if data is None else next(iter(data.mux.waiting_streams), None)
        if waiting is None or self._wanted.get(waiting) is not tunnel:
            return None
        del self._wanted[waiting]
        return WaitingStream(waiting.receiver, *waiting.withdraw())

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait to be written to the client."""
        data = 0 if self._data is None else self._data.transport.buffered_bytes
        return data + self._control.buffered_bytes

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> Stream:
        """Open a stream; the client is told of it in the same moment on the control channel."""
        data = self._data
        if data is None or not self._registrations.is_told(tunnel.bind_id):
            raise NoSession("the agent is away")
        if self._shared.budget.is_exhausted:
            raise UpstreamBusy("memory for slow readers is used up")
        try:
            stream = data.mux.open(receiver, partial(self._announce, tunnel, peer))
        except StreamBusy as error:
            raise UpstreamBusy("too many streams in this session") from error
        except TransportLost as error:
            raise NoSession("the agent is away") from error
        except RemoteProtocolError as error:
            # All ids are used; the client attaches again, with fresh ones.
            self._loop.call_soon(self._lose_data, data, error.reason)
            raise UpstreamBusy("the session is being renewed") from error
        if stream.is_waiting:
            self._wanted[stream] = tunnel
            if len(self._wanted) > 2 * MAX_WAITING:
                self._wanted = {one: self._wanted[one] for one in data.mux.waiting_streams}
            # Idle streams of another tunnel of this client could keep the place for a minute.
            for other in self.record.tunnels.values():
                self._shared.registry.notices.on_agent_left(other)
        return stream

    def _announce(self, tunnel: Tunnel, peer: str) -> bytes:
        """Tell the client of a stream that is about to start; returns what the stream begins with."""
        conn_id = uuid4()
        self._send(
            messages.NewConnection(
                conn_id=conn_id, client_addr=peer or UNKNOWN_VISITOR, protocol=tunnel.protocol.value
            )
        )
        return conn_id.bytes

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        """Tell nothing: the client has no ear for it."""

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        """End the client with its last tunnel; the protocol cannot tell it about one of several."""
        del tunnel
        if not self._is_ended and not self.record.tunnels:
            self._finish(reason)
            self._shared.registry.lose_session(
                self.record, reason, is_clean=True, cause=SessionEnd.CLOSED
            )

    def drain(self, reason: str, deadline_seconds: float) -> None:
        """Give idle streams up; no word of the protocol would spare those that run."""
        self._is_draining = True
        for tunnel in self.record.tunnels.values():
            self._shared.registry.notices.on_agent_left(tunnel)

    def end(self, code: int, reason: str, grace_seconds: float = 0.0) -> None:
        """End the session: the client comes back after `Code.NONE`, else it is gone for good."""
        del grace_seconds  # a client of this family is told by the end of its connections
        if self._is_ended:
            return
        if code == Code.NONE:
            self._stop(reason)
            self._control.abort()
        else:
            self._finish(reason)

    async def is_alive(self, timeout_seconds: float) -> bool:
        """Ping the client; one without a data channel serves nobody, and may not be asked yet."""
        if self._is_ended or self._data is None:
            return False
        return await self._pings.ask(timeout_seconds)

    # Liveness

    async def prove_alive(self) -> None:
        """End the session unless the client answers."""
        if not await self.is_alive(PROBE_SECONDS):
            self._drop("did not answer while another client of its token came")

    def _tick(self) -> None:
        settings = self._shared.settings
        self._tick_timer = self._loop.call_later(settings.tick_seconds, self._tick)
        now = self._loop.time()
        silence_seconds = settings.silence_seconds
        if now - self._heard_at > silence_seconds:
            self._drop(f"silent for {silence_seconds:g} s")
            return
        if self._stalls is not None:
            self._stalls.sweep(now)
        if self._stalls is not None and self._stalls.is_deaf and self._data is not None:
            self._lose_data(self._data, f"no answer to a ping of yamux for {silence_seconds:g} s")
        if now < self._ping_at:
            return
        self._ping_at = now + settings.ping_seconds
        self._pings.ping()
        data = self._data
        if data is None:
            return
        if data.transport.awaits_pong and now - data.received_at > silence_seconds:
            self._lose_data(data, f"silent for {silence_seconds:g} s")
        else:
            data.transport.ping()

    # Ending

    def _drop(self, reason: str) -> None:
        """Cut the client off, so that it comes back; visitors are held for it."""
        if self._is_ended:
            return
        self._stop(reason)
        self._control.abort()
        self._shared.registry.lose_session(self.record, reason, is_clean=False)

    def _finish(self, reason: str) -> None:
        """End the client for good: a close frame, and an orderly end behind it.

        Its data channel goes later: a client that meets the end of that one first comes back.
        """
        self._stop(reason, linger_seconds=self._shared.settings.linger_seconds)
        self._control.close(1000, reason)

    def _stop(self, reason: str, *, linger_seconds: float = 0.0) -> None:
        """Forget channels and streams; the registry is told by the caller."""
        if self._is_ended:
            return
        self._is_ended = True
        for timer in filter(None, (self._attach_timer, self._tick_timer)):
            timer.cancel()
        self._pings.close()
        self._shared.by_secret.pop(self._secret, None)
        # The registry must know that the agent is away before its streams end: whoever loses a
        # stream then waits for the agent's return instead of asking this session again.
        for tunnel in self.record.tunnels.values():
            tunnel.session = None
        self._detach(reason, linger_seconds=linger_seconds)
