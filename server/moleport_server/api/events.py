"""Live events as server-sent events (HTML standard, section 9.2).

A stream begins with a comment, so that proxies and clients see at once that it works, and a comment
comes whenever nothing else did for a while. Ids are `<run>-<number>`: a client that comes back with
`Last-Event-ID` gets what it missed, and one that comes back to a restarted server gets everything
of the new run. A reader that is too slow loses the oldest events and is told how many.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Final

import msgspec
from aiohttp import web

from moleport_server.api.authentication import Gate
from moleport_server.api.routing import EVENT_STREAM, Call, Route
from moleport_server.api.timestamps import rfc3339
from moleport_server.domain.token import Principal
from moleport_server.errors import AccessError, InvalidRequest, QuotaExceeded, ServerError
from moleport_server.registry.events import KEPT_EVENTS, Event, EventLog, Watcher

KEEPALIVE_SECONDS: Final = 15.0
"""Below the idle timeouts of proxies; also how often a caller's token is looked at again."""
_WRITE_SECONDS: Final = 30.0
"""A reader that takes nothing for so long is gone or might as well be."""
MOST_STREAMS: Final = 256
"""Each costs a backlog of up to a thousand events."""
_EVENT_ID: Final = re.compile(r"(?:([0-9a-f]{1,32})-)?([0-9]{1,18})", re.ASCII)


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events."""

    tunnel: (
        Annotated[str, msgspec.Meta(description="Only events of the tunnel with this id.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class EventStreams:
    """All open event streams, so that they end when the server does."""

    def __init__(self) -> None:
        self._lives: set[asyncio.Timeout] = set()
        self._is_closing = False

    def close(self) -> None:
        """End every stream, and each that is opened later; idempotent, needs the event loop."""
        self._is_closing = True
        now = asyncio.get_running_loop().time()
        for life in self._lives:
            if not life.expired():
                life.reschedule(now)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Run the body until it ends or the streams are closed.

        Raises:
            QuotaExceeded: too many streams are open.
        """
        if len(self._lives) >= MOST_STREAMS:
            raise QuotaExceeded("too many event streams are open")
        try:
            async with asyncio.timeout(0 if self._is_closing else None) as life:
                self._lives.add(life)
                yield
        except TimeoutError:
            if not life.expired():
                raise
        finally:
            self._lives.discard(life)


class _Stream:
    """A response that gives up on a reader who takes nothing."""

    def __init__(self, request: web.Request, response: web.StreamResponse) -> None:
        self._request = request
        self._response = response

    async def write(self, content: bytes) -> None:
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._response.write(content)
        except TimeoutError as error:
            # An orderly end would wait for the same reader.
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError("the reader takes nothing") from error


class EventRoutes:
    """The events family; an extension."""

    def __init__(
        self,
        *,
        events: EventLog,
        gate: Gate,
        streams: EventStreams,
        run_id: str,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
    ) -> None:
        """Serve the log.

        Args:
            events: what happens.
            gate: asked again while a stream is open.
            streams: ends the streams.
            run_id: hexadecimal, another one for each run of the server.
            keepalive_seconds: longest silence.
        """
        self._events = events
        self._gate = gate
        self._streams = streams
        self._run_id = run_id
        self._keepalive_seconds = keepalive_seconds

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path="/api/events",
                operation="watchEvents",
                summary="Watch sessions, tunnels and requests live; resumable by Last-Event-ID",
                handler=self._watch,
                family="events",
                query=EventsQuery,
                media_type=EVENT_STREAM,
                errors=((429, "too many event streams are open"),),
                is_extension=True,
                deadline_seconds=None,
            ),
        )

    async def _watch(self, call: Call[EventsQuery, None]) -> web.StreamResponse:
        request, tunnel_id = call.request, call.query.tunnel
        after = self._position(request.headers.get("Last-Event-ID"))
        # X-Accel-Buffering tells nginx to pass events as they come.
        response = web.StreamResponse(headers={"X-Accel-Buffering": "no"})
        response.content_type = EVENT_STREAM
        async with self._streams.opened():
            await response.prepare(request)
            if request.method == "HEAD":
                return response
            stream = _Stream(request, response)
            with contextlib.suppress(ConnectionError), self._watching(after) as watcher:
                await stream.write(self._greeting(after))
                await self._send(call, stream, watcher, tunnel_id or None)
        return response

    def _position(self, last_event_id: str | None) -> int | None:
        if not last_event_id:
            return None
        match = _EVENT_ID.fullmatch(last_event_id)
        if match is None:
            raise InvalidRequest("Last-Event-ID is not an id of this server's events")
        is_this_run = match[1] in {None, self._run_id} and int(match[2]) <= self._events.last_id
        return int(match[2]) if is_this_run else 0

    @contextlib.contextmanager
    def _watching(self, after: int | None) -> Iterator[Watcher]:
        watcher = self._events.watch(after)
        try:
            yield watcher
        finally:
            self._events.unwatch(watcher)

    def _greeting(self, after: int | None) -> bytes:
        lines = [b": moleport events\n\nretry: 1000\n"]
        if after is None:
            # A client that is cut off before its first event still resumes from here.
            lines.append(b"id: %s-%d\n" % (self._run_id.encode(), self._events.last_id))
        elif (missed := self._events.last_id - KEPT_EVENTS - after) > 0:
            lines.append(_lost(missed))
        return b"".join(lines) + b"\n"

    async def _send(
        self,
        call: Call[EventsQuery, None],
        stream: _Stream,
        watcher: Watcher,
        tunnel_id: str | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        told_lost, events = 0, aiter(watcher)
        quiet_until = loop.time() + self._keepalive_seconds
        while True:
            try:
                async with asyncio.timeout_at(quiet_until):
                    event = await anext(events)
            except TimeoutError:
                if not await self._may_go_on(call):
                    return
                await stream.write(b": keepalive\n\n")
                # The timeout ended the iteration; what the watcher holds is still there.
                events = aiter(watcher)
                quiet_until = loop.time() + self._keepalive_seconds
                continue
            lost, told_lost = watcher.lost - told_lost, watcher.lost
            if lost:
                await stream.write(_lost(lost) + b"\n")
            if _is_for(event, call.principal, tunnel_id):
                await stream.write(self._render(event))

    async def _may_go_on(self, call: Call[EventsQuery, None]) -> bool:
        try:
            await self._gate.identify(call.request)
        except AccessError:
            return False
        except ServerError:
            # Nobody knows: a store that is down for a moment is no reason to cut people off.
            return True
        return True

    def _render(self, event: Event) -> bytes:
        document = msgspec.json.encode({"at": rfc3339(event.at), **event.fields})
        head = f"id: {self._run_id}-{event.id}\nevent: {event.kind}\ndata: ".encode()
        return head + document + b"\n\n"


def _is_for(event: Event, principal: Principal, tunnel_id: str | None) -> bool:
    if tunnel_id is not None and event.fields.get("tunnel_id") != tunnel_id:
        return False
    return principal.owns(event.token_id)


def _lost(count: int) -> bytes:
    return b'event: events.lost\ndata: {"count":%d}\n' % count
