"""The front of the control and api listeners: agents' upgrades here, REST there, on one port.

It reads one request head. A WebSocket upgrade of a path that has a door goes to the protocol adapter
behind that door, all else to the REST application together with the connection, which then stays with
it. The REST application may open later than the doors: whoever calls it before waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from moleport_wire.aio.sockets import resume_reading, settle_reading
from moleport_wire.aio.transport import MessageReceiver, MessageTransport
from moleport_wire.aio.websocket import Upgrade, UpgradeAnswer, feed, server_protocol

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_REST_CONNECTIONS: Final = 1024
"""Callers of the API that may be connected at once, keep-alive and event streams included."""


class Door(Protocol):
    """Decides about the upgrades of one path; implemented by the protocol adapters."""

    def answer(
        self, upgrade: Upgrade, *, address: str, on_authenticated: Callable[[], None]
    ) -> UpgradeAnswer:
        """Accept an upgrade with a receiver, or refuse it.

        Args:
            upgrade: the request.
            address: IP address of the agent.
            on_authenticated: to be called once when the connection has proved something, for the
                limits before authentication; not needed for a connection that ends without.
        """
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


def _nowhere() -> None:
    """Give back no place: none was taken, or it was given back."""


class Front:
    """What the connections of one listener share.

    Args:
        doors: by path; one that ends with a slash stands for every path below it.
        gate: bounds connections that have proved nothing yet.
        head_seconds: how long the head of a request may take, and how long its caller waits for the
            REST application to open.
    """

    def __init__(self, doors: Mapping[str, Door], gate: Gate, *, head_seconds: float) -> None:
        self.doors = dict(doors)
        self.rest: RestServer | None = None
        """Gets everything that has no door; None: not open yet."""
        self.gate = gate
        self.head_seconds = head_seconds
        self.connections: set[FrontConnection] = set()

    @property
    def rest_connections(self) -> int:
        """How many connections the REST application has."""
        return 0 if self.rest is None else len(self.rest.connections)

    def open_rest(self, rest: RestServer) -> None:
        """Serve the REST API from now on, those who wait for it first."""
        self.rest = rest
        for connection in list(self.connections):
            connection.rest_opened()

    def connection(
        self,
        address: tuple[str, int] | None = None,
        *,
        leave_gate: Callable[[], None] = _nowhere,
    ) -> FrontConnection:
        """Make the protocol of one accepted connection.

        Args:
            address: where it comes from, if its peer is a proxy that told.
            leave_gate: gives the place back that its listener took at the same gate.
        """
        return FrontConnection(self, address, leave_gate)

    def door(self, target: str) -> Door | None:
        """Return the door of a request target, or None."""
        path = target.partition("?")[0]
        return self.doors.get(path) or self.doors.get(path[: path.rfind("/") + 1])

    def close(self) -> None:
        """End connections that have not sent a request yet, or whose turn has not come."""
        for connection in list(self.connections):
            connection.abort()


class FrontConnection(asyncio.Protocol):
    """One connection until its first request is known."""

    def __init__(
        self, front: Front, address: tuple[str, int] | None, leave_gate: Callable[[], None]
    ) -> None:
        self._front = front
        self._told_address = address
        self._leave_listener = leave_gate
        self._address = ""
        self._transport: asyncio.Transport
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None
        self._is_counted = False
        self.waits_for_rest = False
        """Whether its request is known, and the REST application is not open."""
        self._upgraded: _Leaving | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection and wait for its head."""
        self._transport = cast("asyncio.Transport", transport)
        settle_reading(self._transport)
        peername: Any = self._told_address or transport.get_extra_info("peername")
        self._address = peername[0] if peername else ""
        self._leave_listener()
        if not self._front.gate.enter(self._address):
            self._transport.abort()
            return
        self._is_counted = True
        self._front.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._front.head_seconds, self.abort)

    def data_received(self, data: bytes) -> None:
        """Collect the head and hand the connection over."""
        self._head += data
        if self.waits_for_rest:
            return  # paused: this was on its way already, and is one read at most
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD_BYTES:
                self._refuse(431, "the head of the request is too large")
            return
        target = _upgrade_target(self._head[:end])
        door = None if target is None else self._front.door(target)
        if door is not None:
            self._cancel_timer()
            self._hand_to_agents(door)
        elif self._front.rest is not None:
            self._hand_to_rest(self._front.rest)
        else:
            # The timer goes on, and so does the place at the gate: both bound those who wait.
            self.waits_for_rest = True
            self._transport.pause_reading()

    def rest_opened(self) -> None:
        """Go on if this connection waits for the REST application."""
        if self.waits_for_rest and self._front.rest is not None:
            self._hand_to_rest(self._front.rest)
            if not self._transport.is_closing():
                resume_reading(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._cancel_timer()
        self._leave()

    def abort(self) -> None:
        """Drop it."""
        self._transport.abort()

    def _hand_to_rest(self, rest: RestServer) -> None:
        self._cancel_timer()
        self._leave()
        if len(rest.connections) >= MAX_REST_CONNECTIONS:
            self._refuse(503, "too many connections to the API")
            return
        protocol = rest()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._head)

    def _hand_to_agents(self, door: Door) -> None:
        def decide(upgrade: Upgrade) -> UpgradeAnswer:
            answer = door.answer(upgrade, address=self._address, on_authenticated=self._leave)
            if answer.receiver is not None:
                answer.receiver = self._upgraded = _Leaving(answer.receiver, self._leave)
            return answer

        protocol = server_protocol(decide, handshake_seconds=self._front.head_seconds)
        self._front.connections.discard(self)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        head, self._head = self._head, b""  # with the credential
        feed(protocol, head)
        if self._upgraded is None or not self._upgraded.is_open:
            self._leave()  # refused, by us or by the library: nobody tells us about its end

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
        if self._upgraded is not None:
            self._upgraded.has_left()


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

    def has_left(self) -> None:
        """Forget the gate, and with it all that there was before the login."""
        self._leave = _nowhere

    def transport_lost(self, close_code: int | None, reason: str) -> None:
        """Leave the gate and pass on."""
        self._leave()
        self._receiver.transport_lost(close_code, reason)


def _upgrade_target(head: bytes) -> str | None:
    """Return the target of a WebSocket upgrade, None for any other request."""
    line, _, fields = head.partition(b"\r\n")
    parts = line.split(b" ")
    if len(parts) != 3 or parts[0] != b"GET":
        return None
    is_upgrade = any(
        name.strip().lower() == b"upgrade" and value.strip().lower() == b"websocket"
        for name, _, value in (field.partition(b":") for field in fields.split(b"\r\n"))
    )
    return parts[1].decode("latin-1") if is_upgrade else None
