"""How agents get in: one WebSocket from its upgrade to its place in a session.

`AgentConnection` waits for HELLO or JOIN, proves the credential and attaches itself to a `HoodySession`.
`AgentSessions` is what all of them share.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

from moleport_server.access.authorization import authorize_agent
from moleport_server.agents.hoody.moleport import MoleportSession
from moleport_server.agents.hoody.refusals import session_refusal
from moleport_server.agents.hoody.session import HoodySession, SessionSettings
from moleport_server.agents.hoody.stock import StockSession
from moleport_server.domain.token import Principal
from moleport_server.errors import (
    InvalidRequest,
    ServerError,
    Unauthenticated,
)
from moleport_server.registry.registry import Registry
from moleport_wire.aio.muxer import LinkPort
from moleport_wire.aio.tasks import TaskOwner
from moleport_wire.aio.transport import MessageTransport
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import frames, messages
from moleport_wire.hoody.frames import Code, Payload
from moleport_wire.hoody.members import MAX_TEXT
from moleport_wire.hoody.session import Phase, Role, is_receivable
from moleport_wire.hoody.window import ReceiveBudget

if TYPE_CHECKING:
    from moleport_server.access.authentication import Authenticator
    from moleport_server.agents.flow import FlowWatch
    from moleport_server.clock import Clock

logger = logging.getLogger(__name__)


class AgentSessions:
    """Everything that all agent sessions share; makes a connection's receiver per upgrade."""

    def __init__(
        self,
        settings: SessionSettings,
        registry: Registry,
        authenticator: Authenticator,
        *,
        flow: FlowWatch,
        tasks: TaskOwner,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.registry = registry
        self.authenticator = authenticator
        self.flow = flow
        self.tasks = tasks
        self.clock = clock
        self.is_draining = False
        self.by_id: dict[str, HoodySession] = {}
        self.rtt_seconds: Callable[[float], None] = lambda _: None
        """Called with each measured round trip."""

    @property
    def budget(self) -> ReceiveBudget:
        """The receive budget of the process."""
        return self.flow.budget

    def connection(
        self,
        *,
        subprotocol: str,
        secret: str | None,
        address: str,
        on_authenticated: Callable[[], None],
    ) -> AgentConnection:
        """Make the receiver of one accepted upgrade.

        Args:
            subprotocol: what was negotiated.
            secret: the credential of the upgrade request, if it had one.
            address: the agent's IP address.
            on_authenticated: called once when the credential was proved, for the pre-auth limits.
        """
        return AgentConnection(self, subprotocol, secret, address, on_authenticated)


class AgentConnection:
    """One WebSocket of an agent (a `MessageReceiver`)."""

    def __init__(
        self,
        shared: AgentSessions,
        subprotocol: str,
        secret: str | None,
        address: str,
        on_authenticated: Callable[[], None],
    ) -> None:
        self._shared = shared
        self._subprotocol = subprotocol
        self._secret = secret
        self._address = address
        self._on_authenticated = on_authenticated
        self._phase = Phase.NEW
        self._transport: MessageTransport | None = None
        self._port: LinkPort | None = None
        self._timer: asyncio.TimerHandle | None = None

    def transport_opened(self, transport: MessageTransport) -> None:
        """Wait for the first frame, but not for long."""
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._shared.settings.first_frame_seconds, transport.abort)

    def message_received(self, message: bytes) -> None:
        """Pass on to the session, or do the handshake."""
        if self._port is not None:
            self._port.message_received(message)
            return
        try:
            for frame_type, stream_id, payload in frames.parse(message):
                if self._port is not None:
                    raise RemoteProtocolError(
                        Code.PROTOCOL_ERROR, "JOIN has to be answered before more is said"
                    )
                if stream_id != 0 or not is_receivable(Role.KIT, self._phase, frame_type):
                    raise RemoteProtocolError(Code.PROTOCOL_ERROR, "HELLO or JOIN must come first")
                self._greet(frame_type, payload)
        except RemoteProtocolError as error:
            self._refuse(error.code, error.reason, 1002)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Note the end of the connection."""
        self._cancel_timer()
        self._phase = Phase.ENDED
        if self._port is not None:
            self._port.transport_lost(close_code, reason)

    def pause_writing(self) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.pause_writing()

    def resume_writing(self) -> None:
        """Pass on."""
        if self._port is not None:
            self._port.resume_writing()

    def _greet(self, frame_type: int, payload: Payload) -> None:
        if frame_type == frames.HELLO:
            hello = messages.Hello.decode(payload)
            self._phase = Phase.GREETED
            self._shared.tasks.start(self._log_in(hello), "agent login")
        elif frame_type == frames.JOIN:
            self._join(messages.Join.decode(payload))
        else:  # GOAWAY before the answer
            self._phase = Phase.ENDED
            self._close(1000, "goodbye")

    async def _log_in(self, hello: messages.Hello) -> None:
        is_resuming = hello.resume_session_id is not None
        try:
            if hello.version != self._subprotocol:
                self._refuse(
                    Code.VERSION_MISMATCH, "HELLO.version differs from the subprotocol", 1002
                )
                return
            secret = self._secret if self._secret is not None else hello.token
            if not secret:
                raise Unauthenticated("missing token", missing=True)
            async with asyncio.timeout(self._shared.settings.first_frame_seconds):
                principal = await self._shared.authenticator.authenticate(
                    secret, address=self._address, kind="agent"
                )
            authorize_agent(principal, self._address)
            self._prove()
            if self._shared.is_draining:
                raise InvalidRequest("the server is shutting down")
            self._start(principal, hello)
        except InvalidRequest as error:
            self._refuse(Code.PROTOCOL_ERROR, str(error), 1013)
        except ServerError as error:
            code, close_code = session_refusal(error)
            # 1008 while resuming would read as "this session cannot be resumed".
            if is_resuming and close_code == 1008:
                close_code = 1002
            self._refuse(code, str(error), close_code)
        except TimeoutError:
            self._refuse(Code.INTERNAL, "the server could not check the token in time", 1013)

    def _start(self, principal: Principal, hello: messages.Hello) -> None:
        transport = self._transport
        if transport is None or self._phase is not Phase.GREETED:
            return  # lost while the credential was checked
        shared = self._shared
        registry = shared.registry
        wanted = hello.resume_session_id
        is_ours = messages.CAPABILITY_MOLEPORT in hello.capabilities
        if wanted is not None and not is_ours and wanted in registry.tombstones:
            # A fresh session would make a stock client try again for a minute.
            self._refuse(Code.REFUSED, "resume grace expired", 1008)
            return
        resumed = wanted is not None and registry.find_resumable(wanted, principal)
        if not resumed:
            registry.check_admission(principal)
        session_id = wanted if wanted is not None and resumed else f"S-{uuid4()}"
        session: HoodySession
        if is_ours:
            session = MoleportSession(shared, session_id, principal, hello, transport.peer)
        else:
            session = StockSession(
                shared, session_id, principal, hello, transport.peer, self._subprotocol
            )
        if resumed:
            tunnels = registry.resume_session(session.record)
        else:
            tunnels = []
            registry.open_session(session.record)
        self._cancel_timer()
        self._phase = Phase.LIVE
        self._port = session.attach_primary(transport)
        session.say_hello(hello, tunnels, resumed=resumed)

    def _join(self, join: messages.Join) -> None:
        if self._subprotocol != messages.SUBPROTOCOL_V2:
            raise RemoteProtocolError(Code.PROTOCOL_ERROR, f"JOIN under {self._subprotocol}")
        transport = self._transport
        session = self._shared.by_id.get(join.session_id)
        if transport is None:
            return
        if session is None:
            self._refuse_join("UNKNOWN_SESSION", "no such session")
            return
        problem = session.use_ticket(join)
        if problem is not None:
            self._refuse_join(problem, f"the ticket was refused: {problem}")
            return
        self._prove()
        self._cancel_timer()
        self._phase = Phase.LIVE
        self._port = session.attach_secondary(transport, join.index)

    def _prove(self) -> None:
        """Tell the pre-auth limits, and keep nothing that only the login needed: it costs each agent."""
        self._on_authenticated()
        self._on_authenticated = _nothing
        self._secret = None

    def _refuse_join(self, code: str, text: str) -> None:
        payload = messages.Refusal(code=code, message=text).encode()
        if self._transport is not None:
            self._transport.send(frames.serialize(frames.JOIN_ERR, 0, payload))
        self._close(1008, text)

    def _refuse(self, code: int, reason: str, close_code: int) -> None:
        if self._phase is Phase.ENDED or self._transport is None:
            return
        logger.info("agent refused", extra={"address": self._address, "reason": reason})
        payload = messages.GoAway(code=code, message=reason[:MAX_TEXT]).encode()
        self._transport.send(frames.serialize(frames.GOAWAY, 0, payload))
        self._close(close_code, reason)

    def _close(self, close_code: int, reason: str) -> None:
        self._cancel_timer()
        self._phase = Phase.ENDED
        if self._transport is not None:
            self._transport.close(close_code, reason)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _nothing() -> None:
    """Tell nobody: the limits know already."""
