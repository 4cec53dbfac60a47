"""One WebSocket of the control channel: from its upgrade over the login into its session.

Until its data channel is attached, a stock client takes whatever message comes next for the answer that
it waits for. So nothing is ever sent here but answers; what may be said without being asked is up to the
session, which knows when that is over.

How a connection ends decides what the client does (section 1.8 of the family's protocol): after a close
frame and an orderly end it is gone for good, after any other end it comes back. Hence `abort` for
everything that may be better a second later, and `close` only where somebody meant it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from moleport_server.access.authorization import authorize_agent
from moleport_server.agents.rustunnel.session import RustunnelSession
from moleport_server.errors import (
    Forbidden,
    QuotaExceeded,
    RateLimited,
    ServerError,
    Unauthenticated,
)
from moleport_wire.aio.sockets import format_peer
from moleport_wire.errors import RemoteProtocolError
from moleport_wire.rustunnel import messages, texts

if TYPE_CHECKING:
    from moleport_server.agents.rustunnel.sessions import RustunnelSessions
    from moleport_server.domain.token import Principal
    from moleport_wire.aio.transport import MessageTransport

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Far above any message of a client."""
MAX_TEXT: Final = 128
"""Of what a client says it is."""
MAX_UNREAD_BYTES: Final = 1024 * 1024
"""What may wait for a client: the announcements of some thousand streams, for a link that stalls."""


class ControlChannel:
    """A `MessageReceiver`: the login, then the session's ear."""

    def __init__(
        self, shared: RustunnelSessions, address: str, on_authenticated: Callable[[], None]
    ) -> None:
        self._shared = shared
        self._address = address
        self._on_authenticated = on_authenticated
        self._transport: MessageTransport | None = None
        self._session: RustunnelSession | None = None
        self._has_greeted = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None

    # MessageReceiver

    def transport_opened(self, transport: MessageTransport) -> None:
        """Wait for the first message, but not for long."""
        self._transport = transport
        transport.limit_buffer(MAX_UNREAD_BYTES)
        seconds = self._shared.settings.first_frame_seconds
        self._timer = asyncio.get_running_loop().call_later(seconds, self._drop)

    def message_received(self, message: bytes) -> None:
        """Log in with the first message, pass the others on."""
        if self._is_over:
            return
        if self._session is not None:
            if len(message) <= MAX_MESSAGE_BYTES:
                self._session.control_received(message)
        elif not self._has_greeted:
            self._greet(message)

    def text_received(self) -> None:
        """Drop who begins with a text: it speaks another protocol. Ignore later ones."""
        if not self._has_greeted and not self._is_over:
            self._has_greeted = True
            self._drop()

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """End the session with the connection."""
        self._is_over = True
        self._cancel_timer()
        if self._session is not None:
            self._session.control_lost(close_code, reason)

    def pause_writing(self) -> None:
        """Drop a client that does not read: its messages are few and small."""
        self._drop()

    def resume_writing(self) -> None:
        """Never called after `pause_writing`, which drops the connection."""

    # Login

    @property
    def _peer(self) -> str:
        """The client as `ip:port`; a proxy in front tells the address only."""
        peer = "" if self._transport is None else self._transport.peer
        host = peer.rpartition(":")[0].strip("[]")
        return peer if host == self._address else format_peer((self._address, 0))

    def _greet(self, message: bytes) -> None:
        self._has_greeted = True
        try:
            if len(message) > MAX_MESSAGE_BYTES:
                raise RemoteProtocolError(0, "the first message is too large")
            first = messages.decode(message)
        except RemoteProtocolError:
            self._drop()
            return
        if not isinstance(first, messages.Auth):
            self._refuse(texts.EXPECTED_AUTH)
            return
        # What follows has deadlines of its own.
        self._cancel_timer()
        self._shared.tasks.start(self._log_in(first), "rustunnel login")

    async def _log_in(self, auth: messages.Auth) -> None:
        shared = self._shared
        try:
            async with asyncio.timeout(shared.settings.first_frame_seconds):
                principal = await shared.authenticator.authenticate(
                    auth.token, address=self._address, kind="agent"
                )
            authorize_agent(principal, self._address)
            self._on_authenticated()
            await self._admit(principal)
        except Unauthenticated as error:
            self._refuse(texts.INVALID_TOKEN if error.missing else str(error))
        except RateLimited as error:
            # Wrong once more: that is final. Not looked at for want of time: that is not.
            if str(error) == texts.TOO_MANY_FAILURES:
                self._refuse(str(error))
            else:
                self._drop()
        except Forbidden as error:
            self._refuse(str(error))
        except (ServerError, TimeoutError) as error:
            logger.info(
                "agent refused", extra={"address": self._address, "reason": str(error) or "timeout"}
            )
            self._drop()
        else:
            self._start(principal, auth.client_version[:MAX_TEXT])

    async def _admit(self, principal: Principal) -> None:
        """Check the limits on sessions; a client that was cut off must not be kept out by itself.

        Raises:
            QuotaExceeded: the server or the token is at its limit, and all of its sessions live.
        """
        registry = self._shared.registry
        try:
            registry.check_admission(principal)
        except QuotaExceeded:
            twins = [
                session
                for session in self._shared.by_secret.values()
                if session.record.principal.token_id == principal.token_id
            ]
            async with asyncio.TaskGroup() as probes:
                for twin in twins:
                    probes.create_task(twin.prove_alive())
            registry.check_admission(principal)

    def _start(self, principal: Principal, version: str) -> None:
        transport = self._transport
        if transport is None or self._is_over:
            return  # lost while the token was checked
        self._cancel_timer()
        self._shared.audit.auth_attempt(self._peer, success=True, token_id=principal.token_id)
        self._session = RustunnelSession(
            self._shared, principal, transport, peer=self._peer, client_version=version
        )
        self._session.begin()

    def _refuse(self, text: str) -> None:
        """Tell the client to give up; it reads that before the end of the connection."""
        if self._is_over or self._transport is None:
            return
        self._is_over = True
        self._cancel_timer()
        logger.info("agent refused", extra={"address": self._address, "reason": text})
        self._shared.audit.auth_attempt(self._peer, success=False)
        self._transport.send(messages.AuthError(message=text).encode())
        self._transport.close(1000, "")

    def _drop(self) -> None:
        """End the connection so that the client comes back."""
        if self._transport is not None:
            self._transport.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
