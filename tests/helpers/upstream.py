"""An agent session that a test scripts: an `Upstream` whose streams record and answer.

What the edge writes is parsed by h11, which is strict and not the parser of the product: a request that
is not exactly one well-formed message fails the test that caused it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import h11

from moleport_server.errors import NoSession
from moleport_wire.hoody.frames import Payload
from moleport_wire.hoody.streams import StreamReceiver

if TYPE_CHECKING:
    from moleport_server.registry.live import Tunnel
    from moleport_server.registry.upstream import WaitingStream


@dataclass(slots=True)
class SeenRequest:
    """One request as the local service got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    """Names in lower case."""
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def header(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None


Respond = Callable[[SeenRequest], bytes | None]


def answer(body: bytes = b"hello", *, status: str = "200 OK", fields: str = "") -> bytes:
    """Return a plain answer of a service that keeps its connections."""
    return f"HTTP/1.1 {status}\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


class ScriptedStream:
    """One byte stream to the local service that the test plays."""

    def __init__(
        self, upstream: ScriptedUpstream, tunnel: Tunnel, receiver: StreamReceiver, peer: str
    ) -> None:
        self._upstream = upstream
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._request: SeenRequest | None = None
        self.tunnel = tunnel
        self.receiver = receiver
        self.peer = peer
        self.written = bytearray()
        self.requests: list[SeenRequest] = []
        self.has_eof = False
        """Whether the edge ended its direction."""
        self.reset_code: int | None = None
        self.is_lost = False
        self.is_reading_paused = False
        self.is_raw = False
        """Set it to stop parsing what the edge writes."""

    @property
    def is_open(self) -> bool:
        return not self.has_eof and not self.is_over

    @property
    def is_over(self) -> bool:
        return self.is_lost or self.reset_code is not None

    # ByteStream

    @property
    def queued_bytes(self) -> int:
        return 0

    def write(self, data: Payload) -> None:
        if not self.is_open:
            return
        self.written += data
        if not self.is_raw:
            self._parse(bytes(data))

    def write_eof(self) -> None:
        self.has_eof = True

    def reset(self, code: int, reason: str = "") -> None:
        if not self.is_over:
            self.reset_code = code

    def pause_reading(self) -> None:
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        self.is_reading_paused = False

    # The service

    def send(self, data: bytes) -> None:
        """Answer with bytes; nothing happens on a stream that is over."""
        if not self.is_over:
            self.receiver.stream_data(data)

    def send_eof(self) -> None:
        if not self.is_over:
            self.receiver.stream_eof()

    def lose(self, code: int, reason: str = "") -> None:
        """End the stream as the peer, or the loss of its session, does."""
        if not self.is_over:
            self.is_lost = True
            self.receiver.stream_reset(code, reason)

    def _parse(self, data: bytes) -> None:
        self._parser.receive_data(data)
        while True:
            event = self._parser.next_event()
            if isinstance(event, h11.Request):
                self._request = SeenRequest(
                    event.method.decode(),
                    event.target.decode("latin-1"),
                    [(k.decode(), v.decode("latin-1")) for k, v in event.headers],
                )
            elif isinstance(event, h11.Data):
                assert self._request is not None
                self._request.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._finish(self._request)
                rest, _ = self._parser.trailing_data
                self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
                if rest:  # nothing would mean the end to h11
                    self._parser.receive_data(rest)
            else:
                return

    def _finish(self, request: SeenRequest) -> None:
        self.requests.append(request)
        response = self._upstream.respond(request)
        if response is not None:
            asyncio.get_running_loop().call_soon(self.send, response)


@dataclass(slots=True, eq=False)
class ScriptedUpstream:
    """The registry's `Upstream`, played by a test."""

    respond: Respond = lambda _: answer()
    """Called with each complete request; None: the test answers through the stream."""
    streams: list[ScriptedStream] = field(default_factory=list)
    is_crowded: bool = False
    waiting: WaitingStream | None = None
    """What `take_waiting` returns, once."""
    refusal: Exception | None = None
    """What `open_stream` raises."""
    alive: bool = True
    is_ended: bool = False
    ends: list[tuple[int, str]] = field(default_factory=list)
    unbound: list[tuple[Tunnel, str]] = field(default_factory=list)
    drains: list[tuple[str, float]] = field(default_factory=list)
    reports: list[tuple[bytes, bytes, int]] = field(default_factory=list)
    probes: int = 0

    @property
    def open_streams(self) -> int:
        return sum(not stream.is_over for stream in self.streams)

    def take_waiting(self, tunnel: Tunnel) -> WaitingStream | None:
        waiting, self.waiting = self.waiting, None
        return waiting

    @property
    def buffered_bytes(self) -> int:
        return 0

    @property
    def requests(self) -> list[SeenRequest]:
        """Every request that any stream got, stream by stream."""
        return [request for stream in self.streams for request in stream.requests]

    def open_stream(self, tunnel: Tunnel, receiver: StreamReceiver, peer: str) -> ScriptedStream:
        if self.is_ended:
            raise NoSession("the agent is away")
        if self.refusal is not None:
            raise self.refusal
        stream = ScriptedStream(self, tunnel, receiver, peer)
        self.streams.append(stream)
        return stream

    def report(
        self, tunnel: Tunnel, method: bytes, target: bytes, status: int, seconds: float, peer: str
    ) -> None:
        self.reports.append((method, target, status))

    def unbind(self, tunnel: Tunnel, reason: str) -> None:
        self.unbound.append((tunnel, reason))

    def drain(self, reason: str, deadline_seconds: float) -> None:
        self.drains.append((reason, deadline_seconds))

    def end(self, code: int, reason: str, grace_seconds: float = 0.0) -> None:
        self.is_ended = True
        self.ends.append((code, reason))

    async def is_alive(self, timeout_seconds: float) -> bool:
        self.probes += 1
        return self.alive
