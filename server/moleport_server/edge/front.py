"""The front of the control and api listeners: agents' upgrades here, REST there, on one port.

It reads one request head. A WebSocket upgrade of the tunnel path goes to the WebSocket adapter, all
else to the REST application together with the connection, which then stays with it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, Protocol, cast
from urllib.parse import parse_qs

from moleport_wire.aio.sockets import keep_alive, settle_reading
from moleport_wire.aio.transport import MessageReceiver, MessageTransport
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer, feed, server_protocol
from moleport_wire.hoody.messages import SUBPROTOCOL_V1, SUBPROTOCOL_V2

CONNECT_PATH: Final = "/api/v1/tunnel/connect"
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_REST_CONNECTIONS: Final = 1024
"""Callers of the API that may be connected at once, keep-alive and event streams included."""
VERSIONS: Final = f"{SUBPROTOCOL_V1}, {SUBPROTOCOL_V2}"


class AgentDoor(Protocol):
    """Makes the receiver of an accepted upgrade; implemented by the agents' adapter."""

    is_draining: bool

    def connection(
        self,
        *,
        subprotocol: str,
        secret: str | None,
        address: str,
        on_authenticated: Callable[[], None],
    ) -> MessageReceiver:
        """See `agents.login.AgentSessions.connection`."""
        ...


class Gate(Protocol):
    """Bounds connections that have proved nothing yet."""

    def enter(self, address: str) -> bool:
        """Whether one more connection of this address may begin."""
        ...

    def leave(self, address: str) -> None:
        """Note that one got through or ended."""
        ...


class RestServer(Protocol):
    """Serves the REST application; `aiohttp.web.Server` is one."""

    def __call__(self) -> asyncio.Protocol:
        """Make the protocol of one connection."""
        ...

    @property
    def connections(self) -> list[Any]:
        """The connections that are open."""
        ...


class Front:
    """What the connections of one listener share."""

    def __init__(
        self,
        agents: AgentDoor,
        rest: RestServer,
        gate: Gate,
        *,
        head_seconds: float,
    ) -> None:
        self.agents = agents
        self.rest = rest
        self.gate = gate
        self.head_seconds = head_seconds
        self.connections: set[FrontConnection] = set()

    def connection(self, address: tuple[str, int] | None = None) -> FrontConnection:
        """Make the protocol of one accepted connection."""
        return FrontConnection(self, address)

    def close(self) -> None:
        """End connections that have not sent a request yet."""
        for connection in list(self.connections):
            connection.abort()


class FrontConnection(asyncio.Protocol):
    """One connection until its first request is known."""

    def __init__(self, front: Front, address: tuple[str, int] | None) -> None:
        self._front = front
        self._told_address = address
        self._address = ""
        self._transport: asyncio.Transport
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None
        self._is_counted = False
        self._upgraded: _Leaving | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection and wait for its head."""
        self._transport = cast("asyncio.Transport", transport)
        settle_reading(self._transport)
        peername: Any = self._told_address or transport.get_extra_info("peername")
        self._address = peername[0] if peername else ""
        if not self._front.gate.enter(self._address):
            self._transport.abort()
            return
        self._is_counted = True
        self._front.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._front.head_seconds, self.abort)

    def data_received(self, data: bytes) -> None:
        """Collect the head and hand the connection over."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                self._refuse(431, "the head of the request is too large")
            return
        self._cancel_timer()
        if _is_tunnel_upgrade(self._head[:end]):
            self._hand_to_agents()
        else:
            self._hand_to_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._cancel_timer()
        self._leave()

    def abort(self) -> None:
        """Drop it."""
        self._transport.abort()

    def _hand_to_rest(self) -> None:
        self._leave()
        if len(self._front.rest.connections) >= MAX_REST_CONNECTIONS:
            self._refuse(503, "too many connections to the API")
            return
        protocol = self._front.rest()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._head)

    def _hand_to_agents(self) -> None:
        keep_alive(self._transport)
        protocol = server_protocol(self._decide, handshake_seconds=self._front.head_seconds)
        self._front.connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        feed(protocol, self._head)
        if self._upgraded is None or not self._upgraded.is_open:
            self._leave()  # refused, by us or by the library: nobody tells us about its end

    def _decide(self, upgrade: Upgrade) -> UpgradeAnswer:
        front = self._front
        offered = upgrade.subprotocols
        chosen = next((name for name in (SUBPROTOCOL_V2, SUBPROTOCOL_V1) if name in offered), None)
        if chosen is None:
            return _refusal(
                400,
                f"offer one of the subprotocols {VERSIONS}",
                {"x-hoody-tunnel-versions": VERSIONS},
            )
        if front.agents.is_draining:
            return _refusal(503, "the server is shutting down", {"Retry-After": "2"})
        receiver = front.agents.connection(
            subprotocol=chosen,
            secret=_secret_of(upgrade),
            address=self._address,
            on_authenticated=self._leave,
        )
        self._upgraded = _Leaving(receiver, self._leave)
        return UpgradeAnswer(receiver=self._upgraded, subprotocol=chosen)

    def _refuse(self, status: int, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        self._transport.write(
            b"HTTP/1.1 %d Refused\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%b" % (status, len(body), body)
        )
        self._transport.close()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> None:
        """Stop counting it as unauthenticated; idempotent."""
        self._front.connections.discard(self)
        if self._is_counted:
            self._is_counted = False
            self._front.gate.leave(self._address)


class _Leaving:
    """Passes everything on, and leaves the gate when the connection ends without a login."""

    def __init__(self, receiver: MessageReceiver, leave: Callable[[], None]) -> None:
        self._receiver = receiver
        self._leave = leave
        self.is_open = False
        """Whether the upgrade came about."""
        self.message_received = receiver.message_received
        self.pause_writing = receiver.pause_writing
        self.resume_writing = receiver.resume_writing

    def transport_opened(self, transport: MessageTransport) -> None:
        """Note it and pass on."""
        self.is_open = True
        self._receiver.transport_opened(transport)

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Leave the gate and pass on."""
        self._leave()
        self._receiver.transport_lost(close_code, reason)


def _is_tunnel_upgrade(head: bytes) -> bool:
    line, _, fields = head.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or parts[0] != b"GET":
        return False
    if parts[1].partition(b"?")[0] != CONNECT_PATH.encode():
        return False
    return any(
        name.strip().lower() == b"upgrade" and value.strip().lower() == b"websocket"
        for name, _, value in (field.partition(b":") for field in fields.split(b"\r\n"))
    )


def _secret_of(upgrade: Upgrade) -> str | None:
    """Return the credential of an upgrade request: bearer header, or `?token=` of old clients."""
    scheme, _, secret = upgrade.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret:
        return secret.strip()
    query = upgrade.path.partition("?")[2]
    values = parse_qs(query).get("token") if query else None
    return values[0] if values else None


def _refusal(status: int, text: str, headers: dict[str, str]) -> UpgradeAnswer:
    return UpgradeAnswer(status=status, body=json.dumps({"error": text}).encode(), headers=headers)
