"""A session of the hoody-tunnel double: the handshakes, and where each frame goes.

The driver never opens a stream. It answers on the socket that brought the STREAM_OPEN until the kit
says EOF or RESET for that stream, and on the primary from then on; PONG, BIND and the credit of the
session always go on the primary. Handlers of streams are in `hoody_http` and `hoody_tcp`.
"""

import asyncio
import struct
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Protocol

from helpers.doubles.crew import Crew
from helpers.doubles.events import say
from helpers.doubles.hoody_binds import Binds
from helpers.doubles.hoody_credit import Credits
from helpers.doubles.hoody_frames import (
    V1,
    V2,
    Frame,
    Type,
    json_frame,
    late_frames,
    reset,
    window,
)
from helpers.doubles.hoody_hello import (
    DEFAULT_SESSION_WINDOW,
    DEFAULT_STREAM_WINDOW,
    Generation,
    Refused,
    hello_fields,
    refusal,
    window_of,
)
from helpers.doubles.hoody_sockets import Door, Sockets
from helpers.doubles.link import Link

HELLO_SECONDS = 30.0
TOMBSTONES = 4_096
REFUSED_STREAM = 6
"""The only code that drivers put into a RESET."""


class Handler(Protocol):
    """A stream that something is done with."""

    def data(self, data: bytes) -> None: ...
    def eof(self) -> None: ...
    def reset(self) -> None: ...
    def abort(self) -> None:
        """The socket it came on is gone."""


class Opener(Protocol):
    """Makes the handler of a stream; None if the driver does nothing at all."""

    def __call__(self, session: "Session", stream_id: int, head: object) -> Handler | None: ...


@dataclass(slots=True)
class Counts:
    """What a test counts."""

    streams: int = 0
    lost_streams: int = 0
    resets_sent: int = 0
    resets_received: int = 0
    pings: int = 0
    most_open: int = 0
    frames_by_socket: dict[int, int] = field(default_factory=dict)


class Session:
    """A session: `connect` first, `close` at the end."""

    def __init__(
        self, generation: Generation, door: Door, crew: Crew, *, sockets: int, opener: Opener
    ) -> None:
        self.generation = generation
        self.crew = crew
        self.counts = Counts()
        self.sockets = Sockets(door)
        self.binds = Binds(self.sockets.send)
        self.session_id = ""
        self.was_resumed = False
        self.tickets: list[dict[str, Any]] = []
        self.streams: dict[int, Handler] = {}
        self.wrong_socket = False
        """Whether frames of streams go on any socket but the right one."""
        self.late_frames = False
        """Whether each RESET of the kit is answered with all that must be ignored then."""
        self.ended = asyncio.Event()
        """Set once the primary is gone, for whatever reason."""
        self._door = door
        self._wanted = sockets
        self._opener = opener
        self._pins: dict[int, int] = {}
        self._closed: OrderedDict[int, None] = OrderedDict()
        self._credits = Credits(DEFAULT_SESSION_WINDOW, DEFAULT_STREAM_WINDOW)
        self._highest_ids: dict[int, int] = {}
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._joined: dict[int, asyncio.Future[None]] = {}
        self._goaway: dict[str, Any] | None = None
        self._is_resuming = False
        self._forwards = False

    # Connecting

    @property
    def version(self) -> str:
        return V2 if self._wanted > 1 else V1

    async def connect(self, resume: str | None = None) -> None:
        """Shake hands on all sockets.

        Args:
            resume: The session to take up again.

        Raises:
            ConnectError: The upgrade failed.
            Refused: The kit did not want it.
        """
        self._is_resuming = resume is not None
        await self.sockets.open(self.version)
        self.crew.start(self._read(0))
        self.sockets.send(json_frame(Type.HELLO, self.hello_fields(resume)))
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                answer = await self._hello
        except TimeoutError:
            self.sockets.close()
            raise Refused("TIMEOUT", "no HELLO_OK within 30 s") from None
        try:
            self._take_hello(answer)
            await self._join(answer.get("joinTickets") or [])
        except Refused:
            self.sockets.close()
            raise
        self._forwards = True
        say(
            "connected",
            session_id=self.session_id,
            resumed=self.was_resumed,
            resumed_binds=answer.get("resumedBinds", []),
            stream_window=self._credits.stream_window,
            session_window=self._credits.session.credit,
            granted=answer.get("connectionsGranted"),
            sockets=len(self.sockets.links),
            subprotocol=self.sockets.links[0].subprotocol,
        )

    def hello_fields(self, resume: str | None = None) -> dict[str, object]:
        """Return what HELLO says."""
        return hello_fields(self.version, self._wanted, self._door.hello_token, resume)

    def _take_hello(self, answer: dict[str, Any]) -> None:
        if not isinstance(answer.get("sessionId"), str):
            raise Refused("BAD_HELLO_OK", "missing sessionId")
        self.session_id = answer["sessionId"]
        self.was_resumed = bool(answer.get("resumed", False))
        self._credits = Credits(
            window_of(answer, "sessionWindow", DEFAULT_SESSION_WINDOW),
            window_of(answer, "streamWindow", DEFAULT_STREAM_WINDOW),
        )
        for bind in answer.get("resumedBinds") or []:
            if bind.get("mode") not in {"expose", "pull"} or bind.get("kind") not in {
                "http",
                "tcp",
            }:
                say("violation", text=f"a resumed bind reads {bind}")
            self.binds.held[bind["bindId"]] = bind

    async def _join(self, tickets: list[dict[str, Any]]) -> None:
        if self.version == V1:
            return
        self.tickets = tickets
        async with asyncio.TaskGroup() as opening:
            for ticket in tickets:
                opening.create_task(self.join_one(ticket))
        for future in self._joined.values():
            await future  # for as long as it takes: the drivers have no timer here

    async def join_one(self, ticket: dict[str, Any]) -> asyncio.Future[None]:
        """Open one more socket with a ticket; the result waits for the answer."""
        index = await self.sockets.open(V2)
        joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._joined[index] = joined
        self.crew.start(self._read(index))
        fields = {"sessionId": self.session_id, "index": ticket["index"], "nonce": ticket["nonce"]}
        self.sockets.send(json_frame(Type.JOIN, fields), index)
        return joined

    async def close(self) -> None:
        """End as the driver's `close()`: new ones give back their ports first."""
        if self.generation is Generation.NEW and not self.ended.is_set():
            await self.binds.release()
        self.sockets.close()

    # Sending

    def send_on_stream(self, frame: Frame) -> None:
        """Send a frame of a stream on the socket where it belongs."""
        if frame.type == Type.RESET:
            self.counts.resets_sent += 1
        self.sockets.send(frame, self._socket_of(frame.stream_id))

    def _socket_of(self, stream_id: int) -> int:
        index = self._pins.get(stream_id, 0)
        if self.wrong_socket:
            index = (index + 1) % len(self.sockets.links)
        return index

    async def send_data(self, stream_id: int, data: bytes) -> None:
        """Send at most one frame of data, once both windows have room for all of it.

        Raises:
            GateClosed: The kit reset the stream, or the session is gone.
        """
        await self._credits.take(stream_id, len(data))
        index = self._socket_of(stream_id)
        self.sockets.send(Frame(Type.DATA, stream_id, data), index)
        await self.sockets.links[index].drain()

    def refuse(self, stream_id: int, reason: str) -> None:
        """Reset a stream as drivers do."""
        self.send_on_stream(reset(stream_id, REFUSED_STREAM, reason))
        self.finished(stream_id)

    def credit(self, stream_id: int, size: int) -> None:
        """Give back credit for data of a stream that was taken."""
        if size:
            self.sockets.send_alone(window(stream_id, size), self._socket_of(stream_id))
            self.credit_session(size)

    def credit_session(self, size: int) -> None:
        """Give back credit for data that no stream will take."""
        if size:
            self.sockets.send_alone(window(0, size))

    def finished(self, stream_id: int) -> None:
        """Forget a stream; later data only gives credit back to the session."""
        self.streams.pop(stream_id, None)
        self._credits.forget(stream_id)
        self._closed[stream_id] = None
        if len(self._closed) > TOMBSTONES:
            self._closed.popitem(last=False)

    @property
    def last_closed(self) -> int:
        return next(reversed(self._closed), 2)

    @property
    def session_credit(self) -> int:
        """How many bytes may be sent now; the whole window when nothing is under way."""
        return self._credits.session.credit

    # Receiving

    async def _read(self, index: int) -> None:
        link = await self.sockets.read(index, self._receive)
        say(
            "socket_closed",
            index=index,
            how=link.end,
            code=link.close_code,
            reason=link.close_reason,
        )
        if index > 0:
            self._secondary_lost(index)
        else:
            self._primary_lost(link)

    def _receive(self, frame: Frame, index: int) -> None:
        self.counts.frames_by_socket[index] = self.counts.frames_by_socket.get(index, 0) + 1
        match frame.type:
            case Type.HELLO_OK:
                if not self._hello.done():
                    self._hello.set_result(frame.json())
            case Type.JOIN_OK:
                self._joined[index].set_result(None)
            case Type.JOIN_ERR:
                answer = frame.json()
                say("join_refused", **answer)
                self._refuse_join(index, answer.get("message") or answer.get("code"))
            case Type.BIND_OK | Type.BIND_ERR | Type.UNBIND_OK | Type.UNBIND_ERR:
                self.binds.receive(frame)
            case Type.STREAM_OPEN:
                self._receive_open(frame, index)
            case Type.DATA:
                self._receive_data(frame)
            case Type.EOF | Type.RESET:
                self._receive_end(frame)
            case Type.WINDOW:
                self._receive_window(frame)
            case Type.PING:
                self.counts.pings += 1
                self.sockets.send_alone(Frame(Type.PONG, 0, frame.payload))
            case Type.GOAWAY:
                self._receive_goaway(frame)
            case Type.BIND_REVOKED:
                say("bind_revoked", **frame.json())
            case Type.SHARD_MAP | Type.REISSUE_JOIN_TICKETS:
                pass
            case other:
                say("violation", text=f"frame type {other:#x} is not the kit's to send")

    def _receive_open(self, frame: Frame, index: int) -> None:
        stream_id = frame.stream_id
        self.counts.streams += 1
        # Ids rise as they are given; on two sockets they may still overtake each other.
        if stream_id <= self._highest_ids.get(index, 0):
            say("violation", text=f"stream {stream_id} after {self._highest_ids.get(index, 0)}")
        self._highest_ids[index] = stream_id
        if not self._forwards and self.generation is Generation.OLD:
            # Nobody listens yet; the visitor waits for ever.
            self.counts.lost_streams += 1
            say("violation", text=f"stream {stream_id} came before the old driver listens")
            return
        try:
            head = frame.json()
        except ValueError:
            head = None
        if not (isinstance(head, dict) and head.get("kind") == "tcp"):
            self._pins[stream_id] = index  # streams of pull() always answer on the primary
        if (handler := self._opener(self, stream_id, head)) is not None:
            self.streams[stream_id] = handler
            self.counts.most_open = max(self.counts.most_open, len(self.streams))

    def _receive_data(self, frame: Frame) -> None:
        if frame.stream_id == 0:
            say("violation", text="DATA on stream 0")
        elif (handler := self.streams.get(frame.stream_id)) is not None:
            handler.data(frame.payload)
        else:
            self.credit_session(len(frame.payload))

    def _receive_end(self, frame: Frame) -> None:
        self._pins.pop(frame.stream_id, None)
        handler = self.streams.get(frame.stream_id)
        if frame.type == Type.EOF:
            if handler is not None:
                handler.eof()
            return
        self.counts.resets_received += 1
        say("reset", stream=frame.stream_id, code=struct.unpack_from(">H", frame.payload)[0])
        if handler is not None:
            handler.reset()
        self._credits.turn_away(frame.stream_id)
        if self.late_frames:
            for late in late_frames(frame.stream_id):
                self.sockets.send(late)

    def _receive_window(self, frame: Frame) -> None:
        if len(frame.payload) < 4:
            say("violation", text="a WINDOW of less than four bytes")
            return
        (increment,) = struct.unpack_from(">I", frame.payload)
        if increment == 0:
            say("violation", text="a WINDOW of 0")
            self.sockets.close()
        else:
            self._credits.give(frame.stream_id, increment)

    def _receive_goaway(self, frame: Frame) -> None:
        try:
            self._goaway = frame.json()
        except ValueError:
            self._goaway = {}
        say("goaway", **(self._goaway or {}))
        if self._hello.done():
            self.sockets.close()
        elif self.generation is Generation.NEW:
            self._hello.set_exception(self._refusal(self.sockets.links[0]))
            self.sockets.close()

    # Ending

    def _primary_lost(self, link: Link) -> None:
        self.ended.set()
        if not self._hello.done():
            self._hello.set_exception(self._refusal(link))
        self.binds.fail("CLOSED", "the session is gone")
        self._credits.close()
        if self.generation is Generation.NEW:
            self.sockets.close()
            for handler in list(self.streams.values()):
                handler.abort()
        # The old driver leaves its other sockets open and goes on sending on them.

    def _secondary_lost(self, index: int) -> None:
        self._refuse_join(index, "closed before JOIN_OK")
        lost = [stream for stream, pin in self._pins.items() if pin == index]
        for stream_id in lost:
            del self._pins[stream_id]
            handler = self.streams.get(stream_id)
            if handler is not None and self.generation is Generation.NEW:
                handler.abort()
                self.refuse(stream_id, "socket lost")

    def _refusal(self, link: Link) -> Refused:
        return refusal(self.generation, link, self._goaway, is_resuming=self._is_resuming)

    def _refuse_join(self, index: int, message: str) -> None:
        if not self._joined[index].done():
            self._joined[index].set_exception(Refused("JOIN", message))
