"""One request and its answer, from the head of the request to the last byte of the response.

The exchange decides (route, visitor rules, limits), waits where it has to (for a password check, for an
absent agent), sends the request over a pooled stream, and sends it again when the stream died before
anything reached the visitor and that is safe. It ends exactly once, with an answer or an abort, and is
then counted, captured and reported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from moleport_server.access.visitors import Decision
from moleport_server.capture.record import Capture
from moleport_server.edge.forwarding import IDEMPOTENT
from moleport_server.edge.known_heads import AnswerHead, RequestTemplate
from moleport_server.edge.pages import render
from moleport_server.edge.pool import UpstreamConnection
from moleport_server.edge.refusals import Refusal
from moleport_server.edge.throttle import throttled
from moleport_server.errors import NoSession, UpstreamBusy
from moleport_server.registry.live import Tunnel
from moleport_wire.hoody.frames import Code, Payload

if TYPE_CHECKING:
    from moleport_server.access.bounds import Bandwidth, Bounds
    from moleport_server.edge.http import HttpEdge

NEVER: Final = float("inf")
"""A deadline that does not come."""
MAX_ATTEMPTS: Final = 8
"""An idempotent request is sent at most so often: agents that die with each request must not loop."""
MAX_SERVICE_ATTEMPTS: Final = 3
"""Of these, so many may end because the service itself hung up."""

_DECISIONS: Final = {
    Decision.DENY_ADDRESS: Refusal.ADDRESS_DENIED,
    Decision.NEEDS_TLS: Refusal.TLS_REQUIRED,
    Decision.HTTP_DENIED: Refusal.HTTP_DENIED,
    Decision.NEEDS_AUTH: Refusal.AUTH_REQUIRED,
    Decision.RATE_LIMITED: Refusal.RATE_LIMITED,
    Decision.BUSY: Refusal.BUSY,
}

_FINAL: Final[dict[int, Refusal]] = {
    Code.REFUSED: Refusal.UPSTREAM_REFUSED,
    Code.CALM_DOWN: Refusal.BUSY,
    Code.FRAME_SIZE: Refusal.HEAD_TOO_LARGE,
    Code.EXHAUSTED: Refusal.BODY_TOO_LARGE,
    Code.PROTOCOL_ERROR: Refusal.UPSTREAM_MALFORMED,
}
"""Ends of a stream that tell why: sending the request again would lead to the same."""


class Downstream(Protocol):
    """The visitor's side of an exchange: a connection of the edge, or the stand-in of a replay."""

    number: int
    peer: str
    address: str
    deadline: float
    """Monotonic seconds when `Exchange.timed_out` is due."""

    @property
    def tunnel(self) -> Tunnel | None:
        """The only tunnel that it can reach; None: the host name tells."""
        ...

    @property
    def write(self) -> Callable[[Payload], object]:
        """Sends bytes of the answer."""
        ...

    @property
    def write_all(self) -> Callable[[list[Payload]], object]:
        """Sends several pieces of the answer."""
        ...

    def write_eof(self) -> None:
        """End our direction of an upgraded connection."""

    def pause_reading(self) -> None:
        """Read no more of the request; calls nest."""

    def resume_reading(self) -> None:
        """Take one call of `pause_reading` back."""

    def upgraded(self, exchange: Exchange, upstream: UpstreamConnection) -> None:
        """Relay raw bytes with the stream from here on."""

    def exchange_done(self, exchange: Exchange) -> None:
        """Go on: the answer is complete."""

    def abort(self) -> None:
        """End visibly broken."""


class Exchange:
    """One request and its answer."""

    # Defaults live on the class, so that making one per request costs a handful of assignments.
    method = b""
    target = b""
    host: bytes | None = None
    hostname = ""
    accept: bytes | None = None
    authorization: bytes | None = None
    request_id: bytes | None = None
    forwarded_for: bytes | None = None
    forwarded_host: bytes | None = None
    forwarded_proto: bytes | None = None
    named: frozenset[bytes] | None = None
    """What `Connection` named."""
    upgrade: bytes | None = None
    content_length = -1
    """-1: none; -2: malformed, or in conflict with another framing."""
    is_chunked = False
    expects_continue = False
    is_upgrade = False
    is_head = False
    is_http11 = True
    keeps_alive = True
    was_complete = False
    """Whether the request has arrived completely."""
    template: RequestTemplate | None = None
    """Whose fields it repeats."""
    request_head = b""
    response_bytes = 0
    response_kept: list[bytes]
    """The beginning of the body for the capture; only with `response_room`."""
    response_room = 0
    """How many more bytes of the body the capture takes."""
    status = 0
    is_chunking = False
    tunnel: Tunnel | None = None
    record: Capture | None = None
    """What was captured of it, once it has ended."""
    _upstream: UpstreamConnection | None = None
    _body_size = 0
    _body_limit = -1
    """Bytes of the request's body that its token allows; -1: any."""
    _captured: list[bytes] | None = None
    _captured_size = 0
    _response_head = b""
    _stalled_capture_bytes = 0
    """What the capture of a visitor that stalled holds on to."""
    _attempts = 0
    _service_losses = 0
    _sent_any = False
    _ended = False
    _is_counted = False
    _is_request_paused = False
    _held_at: float | None = None

    def __init__(self, edge: HttpEdge, connection: Downstream) -> None:
        self._edge = edge
        self.connection = connection
        self.lines: list[bytes] = []
        self.started_at = edge.monotonic()
        self._kept: list[bytes] | None = []

    def repeat(self, template: RequestTemplate, method: bytes, target: bytes) -> None:
        """Take over the fields of a connection's last request; this one is complete as it is."""
        self.method = method
        self.target = target
        self.template = template
        self.host = template.host
        self.hostname = template.hostname
        self.lines = template.lines
        if method == b"HEAD":
            self.is_head = True
        if template.named is not None:
            self.named = template.named
        if template.accept is not None:
            self.accept = template.accept
        if template.authorization is not None:
            self.authorization = template.authorization
        self.was_complete = True

    # Deciding

    def start(self) -> None:
        """Route, check the rules and the limits, then send; called when it is this request's turn."""
        edge = self._edge
        tunnel = self.connection.tunnel
        if tunnel is None:
            tunnel = edge.registry.lookup(self.hostname)
            if tunnel is None or tunnel.hostname is None:
                self.refuse(Refusal.TUNNEL_NOT_FOUND)
                return
        elif edge.registry.tunnels.get(tunnel.id) is not tunnel:
            self.refuse(Refusal.TUNNEL_NOT_FOUND)
            return
        self.tunnel = tunnel
        tunnel.request_count += 1
        if not tunnel.rules.is_open:
            decision = edge.gate.decide(
                tunnel.rules,
                address=self.connection.address,
                authorization=self.authorization,
                is_secure=not tunnel.rules.requires_tls or edge.is_secure(self),
            )
            if decision is Decision.PENDING:
                self._pause_request()
                if not edge.tasks.start(self._verify(tunnel), "verify a visitor"):
                    self.refuse(Refusal.DRAINING)
                return
            if decision is not Decision.ALLOW:
                self._deny(decision)
                return
        self._admit(tunnel)

    async def _verify(self, tunnel: Tunnel) -> None:
        decision = await self._edge.gate.verify(
            tunnel.rules, address=self.connection.address, authorization=self.authorization
        )
        if self._ended:
            return
        self.resume_request()
        if decision is Decision.ALLOW:
            self._admit(tunnel)
        else:
            self._deny(decision)

    def _deny(self, decision: Decision) -> None:
        self._edge.note_denied(decision)
        self.refuse(_DECISIONS[decision])

    def _admit(self, tunnel: Tunnel) -> None:
        edge = self._edge
        limits = edge.settings
        if edge.has_rate_limits:
            wait = edge.rate_limit_wait(tunnel, self.connection.address)
            if wait > 0:
                self.refuse(Refusal.RATE_LIMITED, retry_after=max(1, round(wait + 0.5)))
                return
        if limits.body_bytes and self.content_length > limits.body_bytes:
            self.refuse(Refusal.BODY_TOO_LARGE)
            return
        if tunnel.bounds is not None and not self._is_within(tunnel.bounds, tunnel):
            return
        if tunnel.active >= limits.requests_per_tunnel:
            self.refuse(Refusal.BUSY)
            return
        tunnel.active += 1
        self._is_counted = True
        self.request_head = edge.request_head(self, tunnel)
        if edge.keeps_bodies:
            if self.content_length > 0 or self.is_chunked:
                self._captured = []
            self.response_kept = []
            self.response_room = edge.settings.capture_body_bytes
        self._send_or_hold()

    def _is_within(self, bounds: Bounds, tunnel: Tunnel) -> bool:
        """Whether the limits of the token let the request pass; refuses it if not."""
        wait = bounds.take_request(self._edge.monotonic())
        if wait > 0:
            self._edge.note_token_limit()
            self.refuse(Refusal.RATE_LIMITED, retry_after=max(1, min(3600, round(wait + 0.5))))
            return False
        self._body_limit = bounds.body_bytes
        if 0 <= self._body_limit < self.content_length:
            self.refuse(Refusal.BODY_TOO_LARGE)
            return False
        if bounds.is_full(tunnel.active):
            self.refuse(Refusal.BUSY)
            return False
        return True

    def throttle(self, bandwidth: Bandwidth) -> None:
        """Keep to the bandwidth from here on."""
        upstream = self._upstream
        if upstream is not None:
            upstream.stream = throttled(upstream.stream, bandwidth)

    # Sending

    def _send_or_hold(self) -> None:
        tunnel = self.tunnel
        assert tunnel is not None  # noqa: S101 - admitted
        session = tunnel.session
        if session is None:
            self._hold(tunnel)
            return
        edge = self._edge
        is_idempotent = self.method in IDEMPOTENT
        upstream = None
        # After a lost stream the others of the pool are doubtful as well.
        if not self._attempts and not self.is_upgrade:
            upstream = edge.pool.take(tunnel, is_idempotent=is_idempotent)
        if upstream is None:
            upstream = UpstreamConnection(tunnel, edge.pool.forget, edge.pool.known_lines)
            try:
                upstream.stream = session.upstream.open_stream(
                    tunnel, upstream, self.connection.peer
                )
            except UpstreamBusy as error:
                self.refuse(Refusal.BUSY, detail=str(error))
                return
            except NoSession:
                self._hold(tunnel)
                return
        self._attempts += 1
        self._upstream = upstream
        upstream.begin(self)
        bounds = tunnel.bounds
        if bounds is not None and bounds.bandwidth.rate is not None:
            self.throttle(bounds.bandwidth)
        upstream.stream.write(self.request_head)
        if self._kept:
            for part in self._kept:
                self._send_body(upstream, part)
            if self._body_size > edge.settings.replay_bytes:
                self._kept = None
        self._sent_any = True
        if self.was_complete and self.is_chunked:
            upstream.stream.write(b"0\r\n\r\n")
        elif not self.was_complete:
            if self.expects_continue:
                self.expects_continue = False
                self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.resume_request()
        self.connection.deadline = edge.now + edge.settings.response_head_seconds

    def _send_body(self, upstream: UpstreamConnection, data: bytes) -> None:
        if self.is_chunked:
            upstream.stream.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            upstream.stream.write(data)

    def body_received(self, data: bytes) -> None:
        """Pass on a piece of the request body, or keep it until the request is sent."""
        if self._ended:
            return
        size = len(data)
        edge = self._edge
        self._body_size += size
        if edge.settings.body_bytes and self._body_size > edge.settings.body_bytes:
            self.refuse(Refusal.BODY_TOO_LARGE)
            return
        if 0 <= self._body_limit < self._body_size:
            self.refuse(Refusal.BODY_TOO_LARGE)
            return
        captured = self._captured
        if captured is not None and self._captured_size < edge.settings.capture_body_bytes:
            captured.append(data)
            self._captured_size += size
        upstream = self._upstream
        if self._kept is not None:
            if upstream is None or self._body_size <= edge.settings.replay_bytes:
                self._kept.append(data)
            else:
                self._kept = None
        if upstream is not None:
            self._send_body(upstream, data)
        else:
            # Not sent yet: one read of the socket is kept, no more.
            self._pause_request()

    def body_complete(self) -> None:
        """Note that the request has arrived completely."""
        self.was_complete = True
        # Whatever it waits for now, the next request and the visitor's leaving must be noticed.
        self.resume_request()
        upstream = self._upstream
        if upstream is not None and self.is_chunked:
            upstream.stream.write(b"0\r\n\r\n")

    def pause_request(self) -> None:
        """Stop reading the visitor's upload: the agent has no room."""
        if not self.was_complete:
            self._pause_request()

    def _pause_request(self) -> None:
        if not self._is_request_paused:
            self._is_request_paused = True
            self.connection.pause_reading()

    def resume_request(self) -> None:
        """Read on."""
        if self._is_request_paused:
            self._is_request_paused = False
            self.connection.resume_reading()

    # Holding

    def _hold(self, tunnel: Tunnel) -> None:
        edge = self._edge
        if edge.registry.tunnels.get(tunnel.id) is not tunnel:
            self.refuse(Refusal.TUNNEL_NOT_FOUND)
            return
        may_send = self.method in IDEMPOTENT or not self._sent_any
        if not tunnel.may_hold or not may_send:
            self.refuse(Refusal.AGENT_AWAY)
            return
        if not edge.registry.holds.join(tunnel, self):
            edge.note_refused_hold()
            self.refuse(Refusal.AGENT_AWAY)
            return
        self._held_at = edge.monotonic()
        # The lease bounds the wait; the connection's own deadlines rest meanwhile.
        self.connection.deadline = NEVER
        if not self.was_complete:
            self._pause_request()

    def hold_ended(self, *, returned: bool) -> None:
        """Go on when the agent is back, else give up."""
        if self._ended:
            return
        self._edge.note_hold(self, returned=returned)
        self._held_at = None
        if returned:
            self._send_or_hold()
        else:
            tunnel = self.tunnel
            is_gone = tunnel is None or self._edge.registry.tunnels.get(tunnel.id) is not tunnel
            self.refuse(Refusal.TUNNEL_NOT_FOUND if is_gone else Refusal.AGENT_AWAY)

    @property
    def is_held(self) -> bool:
        """Whether it waits for the agent."""
        return self._held_at is not None

    @property
    def request_bytes(self) -> int:
        """Bytes of the request body so far."""
        return self._body_size

    @property
    def held_seconds(self) -> float:
        """How long it has been held."""
        return 0.0 if self._held_at is None else self._edge.monotonic() - self._held_at

    # Losing the stream

    def upstream_lost(self, code: int, reason: str) -> None:
        """The stream died before the answer was complete: send again if that is safe."""
        self._upstream = None
        if self._ended:
            return
        self._edge.note_stream_error(code)
        if self.status:
            self.abort(reason)
            return
        final = _FINAL.get(code)
        if final is not None:
            self.refuse(final, detail=reason)
            return
        tunnel = self.tunnel
        is_agents_fault = tunnel is None or tunnel.session is None
        if not is_agents_fault:
            self._service_losses += 1
        can_repeat = (
            self.method in IDEMPOTENT
            and not self.is_upgrade
            and self._kept is not None
            and (self.was_complete or self._body_size == 0)
            and self._attempts < MAX_ATTEMPTS
            and self._service_losses < MAX_SERVICE_ATTEMPTS
        )
        if can_repeat:
            self._edge.note_retry()
            self._send_or_hold()
        elif is_agents_fault:
            self.refuse(Refusal.AGENT_AWAY, detail="The agent was lost while it had the request.")
        else:
            self.refuse(Refusal.UPSTREAM_LOST, detail=reason)

    def upstream_malformed(self, reason: str) -> None:
        """The answer is not HTTP."""
        self._upstream = None
        if self.status:
            self.abort(reason)
        else:
            self.refuse(Refusal.UPSTREAM_MALFORMED, detail=reason)

    # Answering

    def write_interim(self, status: int, reason: bytes, lines: list[bytes]) -> None:
        """Pass on a 1xx answer other than 100 and 101 (103 Early Hints)."""
        if self.is_http11:
            self.connection.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, reason, b"".join(lines)))

    def start_response(
        self,
        status: int,
        reason: bytes,
        lines: list[bytes],
        *,
        length: int,
        has_body: bool,
        has_request_id: bool,
    ) -> bytes:
        """Return the head for the visitor and fix the framing of the body."""
        edge = self._edge
        self.status = status
        edge.counters.upstream.observe(edge.monotonic() - self.started_at)
        self.connection.deadline = NEVER
        if edge.is_draining or not self.was_complete:
            # An answer before the end of the request: only a complete request keeps the connection.
            self.keeps_alive = self.keeps_alive and not edge.is_draining
        request_id = self.request_id or b"-"
        is_plain = length >= 0 and has_body and self.keeps_alive and self.is_http11
        if is_plain and not has_request_id:
            # What nearly every answer is, in one step.
            head = b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\nX-Request-Id: %b\r\n\r\n" % (
                status,
                reason,
                b"".join(lines),
                length,
                request_id,
            )
            self._response_head = head
            return head
        framing = b""
        if length >= 0 and (has_body or self.is_head or status == 304):
            framing = b"Content-Length: %d\r\n" % length
        elif has_body:
            if self.is_http11:
                framing = b"Transfer-Encoding: chunked\r\n"
                self.is_chunking = True
            else:
                self.keeps_alive = False
        if not self.keeps_alive:
            framing += b"Connection: close\r\n"
        elif not self.is_http11:
            framing += b"Connection: keep-alive\r\n"
        if not has_request_id:
            framing += b"X-Request-Id: %b\r\n" % request_id
        head = b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, reason, b"".join(lines), framing)
        self._response_head = head
        return head

    def start_known(self, head: AnswerHead) -> bytes:
        """Return the head for the visitor, from one whose lines are all known."""
        edge = self._edge
        self.status = head.status
        edge.counters.upstream.observe(edge.monotonic() - self.started_at)
        self.connection.deadline = NEVER
        if edge.is_draining:
            self.keeps_alive = False
        block = head.block
        if not self.keeps_alive:
            block += b"Connection: close\r\n"
        elif not self.is_http11:
            block += b"Connection: keep-alive\r\n"
        if head.has_request_id:
            block += b"\r\n"
        else:
            block = b"%bX-Request-Id: %b\r\n\r\n" % (block, self.request_id or b"-")
        self._response_head = block
        return block

    def end_body(self) -> None:
        """End a body that lasted until the end of the stream."""
        if self.is_chunking:
            self.connection.write(b"0\r\n\r\n")

    def response_done(self, upstream: UpstreamConnection, *, may_reuse: bool) -> None:
        """The answer is complete: give the stream back, end the exchange."""
        now = self._edge.monotonic()
        self._upstream = None
        if may_reuse and self.was_complete:
            self._edge.pool.put(upstream, now)
        else:
            upstream.abandon("not reusable")
        self._end(now)
        self.connection.exchange_done(self)

    # Upgrade

    def switch_protocols(self, reason: bytes, lines: list[bytes], upgrade: bytes) -> None:
        """Answer 101 and relay raw bytes from here on."""
        self.status = 101
        head = b"HTTP/1.1 101 %b\r\n%bUpgrade: %b\r\nConnection: Upgrade\r\n\r\n" % (
            reason,
            b"".join(lines),
            upgrade,
        )
        self._response_head = head
        self.connection.deadline = NEVER
        self.connection.write(head)
        upstream = self._upstream
        assert upstream is not None  # noqa: S101 - its answer
        self.connection.upgraded(self, upstream)

    def relay(self, data: Payload) -> None:
        """Pass raw bytes to the visitor."""
        self.response_bytes += len(data)
        self.connection.write(data)

    def relay_request(self, size: int) -> None:
        """Count raw bytes of the visitor."""
        self._body_size += size

    def relay_eof(self) -> None:
        """The service ended its direction of an upgraded connection."""
        self.connection.write_eof()

    # Ending

    def refuse(self, case: Refusal, *, detail: str = "", retry_after: int | None = None) -> None:
        """Answer with a refusal instead of the service."""
        if self._ended:
            return
        edge = self._edge
        edge.note_refusal(case)
        self._release_upstream("refused")
        self.status = case.status
        close = (
            not self.keeps_alive or not self.was_complete or edge.is_draining or case.status == 400
        )
        if close:
            self.keeps_alive = False
        page = render(
            case,
            accept=self.accept,
            request_id=(self.request_id or b"").decode("latin-1"),
            detail=detail,
            retry_after=retry_after,
            is_head=self.is_head,
            close=close,
        )
        self.response_bytes = max(0, len(page) - page.find(b"\r\n\r\n") - 4)
        self._response_head = page[: page.find(b"\r\n\r\n") + 4]
        self.connection.write(page)
        self._end(self._edge.monotonic())
        self.connection.exchange_done(self)

    def timed_out(self) -> None:
        """No head of an answer in time."""
        if self.status == 0:
            self.refuse(Refusal.UPSTREAM_TIMEOUT)

    def abort(self, reason: str) -> None:
        """End visibly broken: the answer must not look complete."""
        if self._ended:
            return
        self._release_upstream(reason)
        self._end(self._edge.monotonic())
        self.connection.abort()

    def visitor_left(self) -> None:
        """The visitor is gone: so is the request of the service."""
        if self._ended:
            return
        if self._held_at is not None and self.tunnel is not None:
            self._edge.registry.holds.leave(self.tunnel, self)
            self._edge.note_abandoned_hold(self)
        self._release_upstream("the visitor left")
        self._end(self._edge.monotonic())

    def pause_response(self) -> None:
        """The visitor does not read: stop the service, and keep no more of the body for the capture."""
        if self._upstream is not None:
            self._upstream.stream.pause_reading()
        if self.response_room > 0:
            self.response_room = 0
            size = sum(map(len, self.response_kept))
            if self._edge.stalled_capture_bytes + size > self._edge.settings.stalled_capture_bytes:
                self.response_kept.clear()
            else:
                self._edge.stalled_capture_bytes += size
                self._stalled_capture_bytes = size

    def resume_response(self) -> None:
        """The visitor reads again."""
        if self._upstream is not None:
            self._upstream.stream.resume_reading()

    def _release_upstream(self, reason: str) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon(reason)

    def _end(self, now: float) -> None:
        self._ended = True
        edge = self._edge
        if self._stalled_capture_bytes:
            edge.stalled_capture_bytes -= self._stalled_capture_bytes
        seconds = now - self.started_at
        edge.counters.count(self.status // 100, seconds)
        tunnel = self.tunnel
        if tunnel is None:
            if edge.access_log is not None:
                edge.access_log.log(self, seconds)
            return
        edge.bytes.to_agent += self._body_size
        edge.bytes.to_visitor += self.response_bytes
        tunnel.bytes_in += self._body_size
        tunnel.bytes_out += self.response_bytes
        if self._is_counted:
            tunnel.active -= 1
            edge.finished(self, tunnel, seconds)
        if edge.access_log is not None:
            edge.access_log.log(self, seconds)

    def replay(self, tunnel: Tunnel, head: bytes, body: bytes | None) -> None:
        """Send a captured request again: visitor rules were asked the first time."""
        self.tunnel = tunnel
        self.request_head = head
        self.was_complete = True
        if body:
            self._kept = [body]
            self._body_size = len(body)
        tunnel.active += 1
        self._is_counted = True
        if self._edge.keeps_bodies:
            self._captured = [body] if body else None
            self.response_kept = []
            self.response_room = self._edge.settings.capture_body_bytes
        self._send_or_hold()

    def capture(self, sequence: int, seconds: float, captured_at: float) -> Capture:
        """Return what to remember of this exchange."""
        limit = self._edge.settings.capture_body_bytes
        request_body = b"".join(self._captured)[:limit] if self._captured else None
        response_body = None
        if self._edge.keeps_bodies and self.response_kept:
            response_body = b"".join(self.response_kept)[:limit]
        # By position: keywords cost a microsecond per request here.
        return Capture(
            sequence,
            self.method,
            self.target,
            self.status,
            self._body_size,
            self.response_bytes,
            seconds,
            captured_at,
            self.connection.number,
            self.request_head,
            self._response_head,
            request_body,
            response_body,
            self._body_size > limit,
            self.response_bytes > (0 if response_body is None else len(response_body)),
            self.connection.peer,
        )
