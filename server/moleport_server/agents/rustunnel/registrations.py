"""The tunnels of one session: claimed for its client, told to it, taken back.

The client asks for one tunnel after the other and waits for each answer. It does not know that a tunnel
is taken from it, so nothing here speaks without being asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from uuid import UUID

from moleport_server.agents.rustunnel.keepsakes import find_kept, keepsake_of
from moleport_server.agents.rustunnel.refusals import registration_refusal, unsupported_protocol
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import ServerError
from moleport_server.registry.claim import Claim
from moleport_server.registry.live import Session, Tunnel
from moleport_wire.rustunnel import messages, texts

if TYPE_CHECKING:
    from moleport_server.agents.rustunnel.sessions import RustunnelSessions

logger = logging.getLogger(__name__)

PROTOCOLS: Final = {
    "http": TunnelProtocol.HTTP,
    "https": TunnelProtocol.HTTP,
    "tcp": TunnelProtocol.TCP,
}
MAX_PENDING: Final = 8
"""A stock client waits for each answer; more at once is an attack on the store."""


class Registrations:
    """What one client registered.

    Args:
        shared: of all sessions.
        record: the session.
        send: writes to the control channel; ignored once the session has ended.
        answered: called behind each answer, with the tunnel or with None for a refusal.
    """

    def __init__(
        self,
        shared: RustunnelSessions,
        record: Session,
        send: Callable[[messages.Message], None],
        answered: Callable[[Tunnel | None], None],
    ) -> None:
        self._shared = shared
        self._record = record
        self._send = send
        self._answered = answered
        self._told: set[int] = set()
        self._next_bind_id = 1
        self._pending = 0

    def is_told(self, bind_id: int) -> bool:
        """Whether the client knows that it has this tunnel."""
        return bind_id in self._told

    def register(self, request: messages.RegisterTunnel) -> None:
        """Answer a request for a tunnel, as soon as the address is certain."""
        protocol = PROTOCOLS.get(request.protocol)
        if protocol is None:
            self.refuse(request.request_id, unsupported_protocol(request.protocol))
        elif self._pending >= MAX_PENDING:
            self.refuse(request.request_id, "too many registrations at once")
        else:
            self._pending += 1
            self._shared.tasks.start(self._claim(request, protocol), "rustunnel registration")

    def unregister(self, tunnel_id: UUID) -> None:
        """Release a tunnel of this session; another's stays what it is."""
        for bind_id, tunnel in self._record.tunnels.items():
            if tunnel.id == tunnel_id:
                self._shared.registry.unbind(self._record, bind_id, "released by its client")
                self._shared.audit.tunnel_removed(tunnel_id=str(tunnel_id), label=tunnel.label)
                return

    def refuse(self, request_id: str, text: str) -> None:
        """Answer that there is no tunnel, and why."""
        self._send(messages.TunnelError(request_id=request_id, message=texts.retried(text)))
        self._answered(None)

    async def _claim(self, request: messages.RegisterTunnel, protocol: TunnelProtocol) -> None:
        record = self._record
        bind_id = self._next_bind_id
        self._next_bind_id += 1
        subdomain = request.subdomain if protocol is TunnelProtocol.HTTP else None
        try:
            if subdomain is None:
                claim = self._random_claim(protocol, request.local_addr)
            else:
                claim = Claim(protocol=protocol, subdomain=subdomain)
            tunnel = await self._shared.registry.claim(record, bind_id, claim)
        except ServerError as error:
            text = registration_refusal(error, subdomain, record.principal)
            self.refuse(request.request_id, text)
            return
        finally:
            self._pending -= 1
        self._shared.audit.tunnel_registered(
            session_id=record.id,
            tunnel_id=str(tunnel.id),
            protocol=request.protocol,
            label=tunnel.label,
        )
        self._warn_of_twins(tunnel)
        url = tunnel.public_url
        if request.protocol == "https" and tunnel.hostname is not None:
            url = self._shared.settings.addresses.https_url(tunnel.hostname)
        self._send(
            messages.TunnelRegistered(
                request_id=request.request_id,
                tunnel_id=tunnel.id,
                public_url=url,
                assigned_port=tunnel.port,
            )
        )
        self._told.intersection_update(record.tunnels)
        self._told.add(bind_id)
        self._answered(tunnel)

    def _random_claim(self, protocol: TunnelProtocol, local_addr: str) -> Claim:
        keepsake = keepsake_of(self._record, local_addr)
        tunnels = self._shared.registry.tunnels.values()
        kept = find_kept(tunnels, self._record, protocol, keepsake)
        if kept is None:
            return Claim(protocol=protocol, keepsake=keepsake)
        return Claim(
            protocol=protocol,
            hostname=kept.hostname,
            port=kept.port,
            is_wish=True,
            keepsake=keepsake,
        )

    def _warn_of_twins(self, tunnel: Tunnel) -> None:
        twins = [t for t in self._record.tunnels.values() if t.protocol is tunnel.protocol]
        if len(twins) == 2:
            logger.warning(
                "client has several tunnels of one class and serves all of them alike",
                extra={"session": self._record.id, "class": tunnel.protocol.value},
            )
