"""The server's side of rustunnel clients without sockets, and a client made of messages.

`Client` drives a `ControlChannel` and `DataChannel`s over transports that keep what they are told, so a
test sees each message, close and abort the moment it happens.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from helpers.edge_rig import RegistryRig, registry_rig
from helpers.waiting import until
from helpers.yamux_pair import Side
from moleport_server.access.audit import AuditLog
from moleport_server.access.authentication import Authenticator
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.agents.flow import FlowWatch
from moleport_server.agents.rustunnel.control import ControlChannel
from moleport_server.agents.rustunnel.data import DataChannel
from moleport_server.agents.rustunnel.session import RustunnelSession
from moleport_server.agents.rustunnel.sessions import RustunnelSessions, RustunnelSettings
from moleport_server.domain.token import Credential, Grant, Limits, Token
from moleport_server.registry.addresses import PublicAddresses
from moleport_wire.aio.transport import MessageReceiver
from moleport_wire.hoody.window import ReceiveBudget
from moleport_wire.rustunnel import messages

ADMIN_SECRET = "admin-secret"
SECRET = "client-secret"
ADDRESSES = PublicAddresses(scheme="http", port=8080, tcp_host="tunnels.test", https_port=8443)

_Kind = TypeVar("_Kind", bound=messages.Message)


class FakeTransport:
    """A `MessageTransport` that keeps what it is told."""

    def __init__(self, receiver: MessageReceiver, peer: str) -> None:
        self._receiver = receiver
        self.peer = peer
        self.sent: list[bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.is_aborted = False
        self.awaits_pong = False
        self.buffered_bytes = 0
        self.limit = 0
        self.pings = 0

    @property
    def is_over(self) -> bool:
        return self.is_aborted or self.closed_with is not None

    def limit_buffer(self, limit_bytes: int) -> None:
        self.limit = limit_bytes

    def send(self, message: bytes) -> None:
        if not self.is_over:
            self.sent.append(message)

    def ping(self) -> None:
        self.pings += 1
        self.awaits_pong = True

    def close(self, code: int, reason: str) -> None:
        if not self.is_over:
            self.closed_with = (code, reason)

    def abort(self) -> None:
        # As a real one, it tells the loss later and not from within.
        if not self.is_aborted:
            self.is_aborted = True
            asyncio.get_running_loop().call_soon(
                self._receiver.transport_lost, None, "connection lost"
            )


class Data:
    """The client's end of one data channel."""

    def __init__(self, session: RustunnelSession, peer: str) -> None:
        self.channel = DataChannel(session)
        self.transport = FakeTransport(self.channel, peer)
        self.side = Side(is_client=False)
        self._taken = 0
        self.channel.transport_opened(self.transport)

    async def settle(self) -> None:
        """Let both ends say what is due."""
        for _ in range(6):
            await asyncio.sleep(0)
            sent, self._taken = self.transport.sent[self._taken :], len(self.transport.sent)
            for message in sent:
                self.side.mux.receive(message)
            for message in self.side.take():
                self.channel.message_received(message)

    def lose(self, close_code: int | None = None) -> None:
        self.channel.transport_lost(close_code, "connection lost")


class Client:
    """A client on its control channel."""

    def __init__(self, rig: RustunnelRig, peer: str, address: str | None = None) -> None:
        self._rig = rig
        self.peer = peer
        self.authenticated = 0
        address = address or peer.rpartition(":")[0]
        self.channel = ControlChannel(rig.shared, address, self._note_authenticated)
        self.transport = FakeTransport(self.channel, peer)
        self.channel.transport_opened(self.transport)

    def _note_authenticated(self) -> None:
        self.authenticated += 1

    @property
    def heard(self) -> list[messages.Message]:
        """All messages of the server."""
        return [messages.decode(message) for message in self.transport.sent]

    def say(self, message: messages.Message | bytes) -> None:
        data = message if isinstance(message, bytes) else message.encode()
        self.channel.message_received(data)

    async def hear(self, kind: type[_Kind], number: int = 1) -> _Kind:
        """Wait for the n-th message of a kind."""

        def found() -> list[_Kind]:
            return [message for message in self.heard if isinstance(message, kind)]

        await until(lambda: len(found()) >= number)
        return found()[number - 1]

    async def log_in(self, secret: str = SECRET) -> messages.AuthOk:
        self.say(messages.Auth(token=secret, client_version="0.3.6"))
        return await self.hear(messages.AuthOk)

    async def register(
        self, subdomain: str | None = "shop", **members: Any
    ) -> messages.TunnelRegistered:
        """Ask for a tunnel, which has to be given."""
        number = sum(isinstance(m, messages.TunnelRegistered) for m in self.heard) + 1
        self.say(make_request(subdomain, **members))
        return await self.hear(messages.TunnelRegistered, number)

    async def refused(self, subdomain: str | None = "shop", **members: Any) -> str:
        """Ask for a tunnel, which has to be refused; returns the text."""
        number = sum(isinstance(m, messages.TunnelError) for m in self.heard) + 1
        self.say(make_request(subdomain, **members))
        error = await self.hear(messages.TunnelError, number)
        assert error.request_id == "r-1"
        return error.message

    @property
    def secret(self) -> UUID:
        return next(m.session_id for m in self.heard if isinstance(m, messages.AuthOk))

    @property
    def session(self) -> RustunnelSession:
        return self._rig.shared.by_secret[self.secret]

    def attach(self) -> Data:
        return Data(self.session, self.peer)

    def lose(self, close_code: int | None = None) -> None:
        self.channel.transport_lost(close_code, "connection lost")

    @classmethod
    async def serving(
        cls, rig: RustunnelRig, peer: str = "192.0.2.7:5000", **members: Any
    ) -> tuple[Client, Data]:
        """Make a client with one tunnel and a data channel."""
        client = cls(rig, peer)
        await client.log_in()
        await client.register(**members)
        data = client.attach()
        await data.settle()
        return client, data


def make_request(
    subdomain: str | None = None, *, protocol: str = "http", local_addr: str = "localhost:3000"
) -> messages.RegisterTunnel:
    return messages.RegisterTunnel(
        request_id="r-1", protocol=protocol, subdomain=subdomain, local_addr=local_addr
    )


@dataclass(slots=True)
class RustunnelRig:
    """What clients meet."""

    base: RegistryRig
    shared: RustunnelSessions
    audit_file: Path | None
    rtts: list[float] = field(default_factory=list)

    def client(self, peer: str = "192.0.2.7:5000", *, address: str | None = None) -> Client:
        """Make a client; with `address` it came through a proxy at `peer`."""
        return Client(self, peer, address)

    async def issue(self, secret: str, *, token_id: str = "token-1", **limits: Any) -> None:
        """Create a token; `grant` or limits."""
        grant = limits.pop("grant", Grant())
        expires_at = limits.pop("expires_at", None)
        token = Token(
            id=token_id,
            label="laptop",
            grant=grant,
            limits=Limits(**limits),
            created_at=0.0,
            expires_at=expires_at,
        )
        digest = hashlib.sha256(secret.encode()).hexdigest()
        await self.base.store.create_token(
            token, Credential(token_id=token_id, revision=1, sha256=digest)
        )


@asynccontextmanager
async def rustunnel_rig(
    *,
    registry: dict[str, Any] | None = None,
    audit_file: Path | None = None,
    budget: ReceiveBudget | None = None,
    **settings: Any,
) -> AsyncIterator[RustunnelRig]:
    """Build a registry and what rustunnel clients meet; settings are `RustunnelSettings`."""
    async with registry_rig(**(registry or {})) as base:
        clock = base.clock
        shared = RustunnelSessions(
            RustunnelSettings(addresses=ADDRESSES, **settings),
            base.registry,
            Authenticator(
                base.store,
                clock,
                read_admin_token=lambda: ADMIN_SECRET,
                limiter=KeyedLimiter(1.0, 3, clock),
            ),
            flow=FlowWatch(
                budget or ReceiveBudget(1 << 28, 1 << 18),
                monotonic=clock.monotonic,
                patience_seconds=60.0,
            ),
            tasks=base.tasks,
            clock=clock,
            audit=AuditLog(audit_file, clock),
        )
        rig = RustunnelRig(base, shared, audit_file)
        shared.rtt_seconds = rig.rtts.append
        await rig.issue(SECRET)
        yield rig
        for session in list(shared.by_secret.values()):
            session.end(0, "the test is over")
