"""One session of the rustunnel double: from the upgrade of `/_control` to whatever ends it.

Between the upgrade and the last registration the next message must be the awaited answer; anything
else, even a WebSocket Ping, ends the attempt. Afterwards nearly everything is ignored.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from helpers.doubles.crew import Crew
from helpers.doubles.events import say
from helpers.doubles.link import ConnectError, End, Link, Message, PingSeen, Target
from helpers.doubles.naive_yamux import Quirks
from helpers.doubles.rustunnel_data import DataChannel, Pairing
from helpers.doubles.rustunnel_frames import FIRST_FRAMES, BadFrame, Frame, decode, encode
from helpers.doubles.rustunnel_release import ClientError, Kind, Release

REPLY_SECONDS = 10.0
PONG_SECONDS = 10.0
REATTACH_FIRST_SECONDS = 0.2
REATTACH_SECONDS = 0.5
REATTACH_ATTEMPTS = 5
MAX_HEADERS = 124


@dataclass(frozen=True, slots=True)
class Tunnel:
    """One tunnel of the command line, as it is registered."""

    protocol: str
    host: str
    port: int
    subdomain: str | None = None

    @property
    def routing_class(self) -> str:
        return "http" if self.protocol in {"http", "https"} else self.protocol


@dataclass
class Conduct:
    """How this client misbehaves; the default is the stock client."""

    first_frame: str | None = None
    vanish_at: str | None = None
    attaches: bool = True
    refuses: bool = False
    resets_after: int | None = None
    traces: bool = False
    heartbeat_seconds: float = 30.0
    pause_seconds: float = 0.0
    """What a slow client takes before each registration but the first, and before the attachment."""
    quirks: Quirks = field(default_factory=Quirks)


class Vanished(Exception):
    """The process is to end as if it had been killed."""


class Session:
    """A session; `run` returns when the client is to end, and raises when it is to come back."""

    def __init__(
        self,
        release: Release,
        target: Target,
        token: str,
        tunnels: list[Tunnel],
        conduct: Conduct,
    ) -> None:
        self.release = release
        self._target = target
        self.token = token
        self._tunnels = tunnels
        self._conduct = conduct
        self._pairing = Pairing()
        self.control: Link
        self.data: DataChannel | None = None
        self.session_id = ""
        self.tunnel_ids: list[str] = []
        self._ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ping_is_outstanding = False
        self._last_pong = 0.0
        self._is_mute = False
        self._links: list[Link] = []

    async def run(self) -> None:
        """Live. Returns when the process should end with exit code 0.

        Raises:
            ClientError: It ended or did not begin; the release decides about another attempt.
            Vanished: The misbehaviour asked for that.
        """
        failure: Exception | None = None
        async with Crew() as crew:
            try:
                self.control = await self._open("/_control")
                await self._live(crew)
            except (ClientError, Vanished) as error:
                failure = error
            except ConnectError as error:
                failure = ClientError(Kind.CONNECTION, str(error))
            finally:
                self._hang_up(abruptly=isinstance(failure, Vanished))
        if failure is not None:
            raise failure

    async def _open(self, path: str) -> Link:
        link = await Link.open(self._target, path, nagle=True)
        lines = list(link.headers.raw_items())
        connection = link.headers.get_all("Connection")
        if [value.lower() for value in connection] != ["upgrade"]:
            link.abort()
            raise ConnectError(f"WebSocket protocol error: Connection is {connection}")
        if "Sec-WebSocket-Protocol" in link.headers or "Sec-WebSocket-Extensions" in link.headers:
            link.abort()
            raise ConnectError("WebSocket protocol error: a subprotocol nobody asked for")
        if len(lines) > MAX_HEADERS:
            link.abort()
            raise ConnectError("WebSocket protocol error: too many headers")
        self._links = [each for each in self._links if each.end is None]
        self._links.append(link)
        return link

    async def _live(self, crew: Crew) -> None:
        self._phase("connected")
        await self._sign_in()
        self._phase("authenticated")
        for index, tunnel in enumerate(self._tunnels):
            if index:
                await asyncio.sleep(self._conduct.pause_seconds)
            await self._register(tunnel)
        self._phase("registered")
        await asyncio.sleep(self._conduct.pause_seconds)
        crew.start(self._read_control())
        crew.start(self._keep_alive())
        if self._conduct.attaches:
            crew.start(self._keep_data(crew))
        await self._ending

    def _phase(self, name: str) -> None:
        if self._conduct.vanish_at == name:
            raise Vanished(name)

    def _hang_up(self, *, abruptly: bool) -> None:
        for link in self._links:
            if abruptly:
                link.abort()
            else:
                link.hang_up()

    def _end(self, error: Exception | None = None) -> None:
        if self._ending.done():
            return
        if error is None:
            self._ending.set_result(None)
        else:
            self._ending.set_exception(error)

    # Until the last registration

    async def _sign_in(self) -> None:
        if (kind := self._conduct.first_frame) is not None:
            say("first_frame", kind=kind)
            if kind != "silence":
                data, text = FIRST_FRAMES[kind]
                self.control.send_nowait(data, text=text)
        else:
            self._send("auth", token=self.token, client_version=str(self.release))
        frame = await self._awaited("auth")
        match frame["type"]:
            case "auth_ok":
                self.session_id = frame["session_id"]
                say(
                    "connected",
                    session_id=self.session_id,
                    server_version=frame["server_version"],
                    groups=self.release.sees_groups(frame["server_version"]),
                )
            case "auth_error":
                raise ClientError(Kind.AUTH, frame["message"])
            case other:
                raise ClientError(Kind.PROTOCOL, f"unexpected frame during auth: {other}")

    async def _register(self, tunnel: Tunnel) -> None:
        request_id = str(uuid4())
        self._send(
            "register_tunnel",
            request_id=request_id,
            protocol=tunnel.protocol,
            subdomain=tunnel.subdomain,
            local_addr=f"{tunnel.host}:{tunnel.port}",
        )
        frame = await self._awaited("registration")
        match frame["type"]:
            case "tunnel_registered":
                if frame["request_id"] != request_id:
                    say("violation", text="request_id is not the one of the request")
                self.tunnel_ids.append(frame["tunnel_id"])
                say(
                    "registered",
                    protocol=tunnel.protocol,
                    tunnel_id=frame["tunnel_id"],
                    public_url=frame["public_url"],
                    assigned_port=frame.get("assigned_port"),
                )
            case "tunnel_error":
                if frame["request_id"] != request_id:
                    say("violation", text="request_id is not the one of the request")
                raise ClientError(Kind.TUNNEL, frame["message"])
            case other:
                raise ClientError(Kind.PROTOCOL, f"unexpected frame during registration: {other}")

    async def _awaited(self, what: str) -> Frame:
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                message = await self.control.receive()
        except TimeoutError:
            raise ClientError(Kind.CONNECTION, "timeout waiting for server response") from None
        if message is None:
            raise ClientError(Kind.CONNECTION, self._how_control_ended())
        if isinstance(message, PingSeen):
            say("violation", text=f"a WebSocket Ping instead of the answer to {what}")
            raise ClientError(Kind.PROTOCOL, "unexpected message: Ping")
        if not message.is_binary:
            raise ClientError(Kind.PROTOCOL, f"unexpected message: Text({message.data!r})")
        try:
            return decode(message.data)
        except BadFrame as error:
            raise ClientError(Kind.PROTOCOL, str(error)) from error

    # The main loop

    def _send(self, kind: str, **fields: object) -> None:
        self.control.send_nowait(encode(kind, **fields))

    async def _read_control(self) -> None:
        while (message := await self.control.receive()) is not None:
            if self._is_mute or not isinstance(message, Message) or not message.is_binary:
                continue
            try:
                frame = decode(message.data)
            except BadFrame as error:
                say("violation", text=f"ignored on the control channel: {error}")
                continue
            match frame["type"]:
                case "ping":
                    self._send("pong", timestamp=frame["timestamp"])
                    say("ping_answered")
                case "pong":
                    self._last_pong = asyncio.get_running_loop().time()
                    self._ping_is_outstanding = False
                    say("pong")
                case "new_connection":
                    self._announce(frame)
                case other:
                    say("ignored", type=other)
        how = self._how_control_ended()
        say("control_closed", how=self.control.end, code=self.control.close_code)
        if self.control.end is End.CLOSED:
            self._end()
        else:
            self._end(ClientError(Kind.CONNECTION, how))

    def _how_control_ended(self) -> str:
        return f"control connection ended: {self.control.end}"

    def _announce(self, frame: Frame) -> None:
        wanted = "http" if frame["protocol"] in {"http", "https"} else frame["protocol"]
        target = next(
            ((each.host, each.port) for each in self._tunnels if each.routing_class == wanted), None
        )
        if self._conduct.traces:
            say("new_connection", **{k: v for k, v in frame.items() if k != "type"})
        if target is None:
            say("violation", text=f"a connection for {frame['protocol']}, which has no tunnel")
        if self.data is None:
            say("violation", text="a connection was announced before the data channel was attached")
            if target is not None:
                self._pairing.announced[UUID(frame["conn_id"])] = target
        else:
            self.data.announce(UUID(frame["conn_id"]), target)

    async def _keep_alive(self) -> None:
        clock = asyncio.get_running_loop().time
        self._last_pong = clock()
        while True:
            await asyncio.sleep(self._conduct.heartbeat_seconds)
            if self._ping_is_outstanding and clock() - self._last_pong > PONG_SECONDS:
                self._end(ClientError(Kind.CONNECTION, "heartbeat timeout"))
                return
            if not self._is_mute:
                self._send("ping", timestamp=time.time_ns() // 1_000_000)
                self._ping_is_outstanding = True

    # The data channel

    async def _keep_data(self, crew: Crew) -> None:
        attached = await self._attach(crew, f"/_data/{self.session_id}")
        if not attached and not self.release.reattaches:
            say("zombie")  # it shows its tunnels as active and never serves one
            return
        while True:
            if self.data is not None:
                why = await self.data.run()
                self.data = None
                say("data_closed", why=why)
            if not self.release.reattaches:
                self._end(ClientError(Kind.CONNECTION, "yamux data connection closed"))
                return
            await asyncio.sleep(REATTACH_FIRST_SECONDS)
            if not await self._reattach(crew):
                self._end(ClientError(Kind.CONNECTION, "yamux data connection closed"))
                return

    async def _reattach(self, crew: Crew) -> bool:
        for attempt in range(REATTACH_ATTEMPTS):
            if attempt:
                await asyncio.sleep(REATTACH_SECONDS)
            if await self._attach(crew, f"/_data/{self.session_id}"):
                return True
        return False

    async def _attach(self, crew: Crew, path: str) -> bool:
        try:
            link = await self._open(path)
        except ConnectError as error:
            say("data_refused", text=str(error), status=error.status)
            return False
        self.data = DataChannel(
            link,
            self._pairing,
            crew,
            quirks=self._conduct.quirks,
            refuses=self._conduct.refuses,
            resets_after=self._conduct.resets_after,
            stream_seen=self._stream_seen,
            traces=self._conduct.traces,
        )
        say("attached", connection=link.headers["Connection"])
        if self._conduct.vanish_at == "attached":
            self._end(Vanished("attached"))
        return True

    def _stream_seen(self) -> None:
        if self._conduct.vanish_at == "stream":
            self._end(Vanished("stream"))

    # Commands

    def interrupt(self) -> None:
        """End as Ctrl-C does: a Close without a code, and no waiting for the answer."""
        self.control.close_nowait()
        self._end()

    def cut(self) -> None:
        """Lose both connections as a network does, and notice at once."""
        self.control.abort()
        if self.data is not None:
            self.data.link.abort()
        self._end(ClientError(Kind.CONNECTION, "connection reset by peer"))

    def vanish(self) -> None:
        self._end(Vanished("command"))

    def mute(self) -> None:
        """Neither read the data channel nor answer on the control channel."""
        self._is_mute = True
        if self.data is not None:
            self.data.mute()

    async def open_data(self, path: str) -> None:
        """Open one more data channel and say what came of it; it is only held."""
        try:
            link = await self._open(path)
        except ConnectError as error:
            say("extra_data_refused", text=str(error), status=error.status)
            return
        say("extra_data_attached")
        with suppress(asyncio.CancelledError):
            while await link.receive() is not None:
                pass
            say("extra_data_closed", how=link.end)
