"""A double of the stock hoody-tunnel driver, for tests: run it as a process of its own.

    python -m helpers.doubles.hoody_client --url wss://localhost:4040/api/v1/tunnel/connect \\
        --ca-file ca.pem --token-file token --generation new --sockets 4 --expose 0:127.0.0.1:8080

It follows the family's protocol document in what each generation does, wrong as that may be, and
shares no code with the server. Every event is a JSON line on stdout; commands come in on stdin
(`COMMANDS`). The exit code is 1 for a refusal, 0 for an end, 9 after it was told to vanish.
"""

import argparse
import asyncio
import base64
import ssl
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from helpers.doubles.crew import Crew
from helpers.doubles.events import Commands, say
from helpers.doubles.hoody_binds import BindRefused
from helpers.doubles.hoody_frames import PATH, V1, V2
from helpers.doubles.hoody_hello import Generation, Refused
from helpers.doubles.hoody_http import open_http
from helpers.doubles.hoody_local import Service
from helpers.doubles.hoody_mischief import (
    FIRST_MESSAGES,
    RESPONSES,
    Response,
    join_again,
    misbehave,
)
from helpers.doubles.hoody_session import Handler, Session
from helpers.doubles.hoody_sockets import Door
from helpers.doubles.hoody_tcp import TcpStream
from helpers.doubles.link import ConnectError, Link, Target

VANISHED_EXIT_CODE = 9
RESUME_SECONDS = 60.0
RESUME_PAUSES = (0.0, 0.5, 1.0, 2.0, 4.0, 5.0)
COMMANDS = """commands on stdin:
  stats                   say the counters
  close                   end as the driver's close() does
  vanish                  reset all sockets and end at once
  drop [INDEX]            lose all sockets, or one, without a word
  resume                  connect again and take the session up, whatever became of it
  bind KIND MODE PORT [takeover] [HOST]
  unbind                  give all ports back
  freeze                  read nothing any more
  misbehave KIND [INDEX]  break a rule on a socket
  join used|nonce|index   open one more socket with a bad ticket
"""


def parse_bind(text: str) -> tuple[int, str, int]:
    """Read `CONTAINERPORT:HOST:PORT`."""
    container_port, host, port = text.split(":")
    return int(container_port), host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hoody-double",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", required=True, help=f"ws:// or wss://; the path is {PATH}")
    parser.add_argument("--connect", metavar="HOST", help="connect here instead of to that host")
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--token-file", type=Path)
    parser.add_argument(
        "--credential",
        default=None,
        help="hello, bearer, basic, none, header:NAME or query:NAME; by default what the "
        "generation does by itself: hello for the old, bearer for the new",
    )
    parser.add_argument("--generation", type=Generation, default=Generation.NEW)
    parser.add_argument("--sockets", type=int, default=1, help="more than one means v2")
    parser.add_argument("--expose", type=parse_bind, metavar="CONTAINERPORT:HOST:PORT")
    parser.add_argument("--pull", type=parse_bind, metavar="CONTAINERPORT:HOST:PORT")
    parser.add_argument("--label")
    parser.add_argument("--takeover", action="store_true")
    parser.add_argument("--pull-host")
    parser.add_argument("--resume", metavar="SESSION")
    parser.add_argument("--keep-alive", action="store_true", help="resume by itself, new only")
    wrong = parser.add_argument_group("misbehaviour")
    wrong.add_argument("--subprotocol", help="only try this one, and say what came of it")
    wrong.add_argument("--first-message", choices=[*FIRST_MESSAGES, "silence"])
    wrong.add_argument("--response", choices=RESPONSES, help="what is wrong with every answer")
    wrong.add_argument("--wrong-socket", action="store_true")
    wrong.add_argument(
        "--late-frames", action="store_true", help="answer each RESET with all of it"
    )
    return parser


class Client:
    """The process: a session, and the commands for it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._generation: Generation = options.generation
        self._door = self._make_door()
        self._service: Service | None = None
        self._local_tcp: tuple[str, int] | None = None
        if options.expose:
            self._service = Service(*options.expose[1:])
        if options.pull:
            self._local_tcp = options.pull[1:]
        self._session: Session
        self._closing = False
        self._is_resuming = False
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def _make_door(self) -> Door:
        options = self._options
        url = urlsplit(options.url)
        tls = None
        if url.scheme == "wss":
            tls = ssl.create_default_context(cafile=options.ca_file)
            if options.insecure:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
        assert url.hostname is not None
        port = url.port or (443 if tls else 80)
        target = Target(options.connect or url.hostname, port, tls, url.hostname)
        path = (url.path or PATH) + (f"?{url.query}" if url.query else "")
        token = options.token_file.read_text().strip() if options.token_file else ""
        kind, _, name = (
            options.credential or ("hello" if self._generation is Generation.OLD else "bearer")
        ).partition(":")
        match kind:
            case "hello":
                return Door(target, path, hello_token=token)
            case "bearer":
                return Door(target, path, {"Authorization": f"Bearer {token}"})
            case "basic":
                pair = base64.b64encode(f"user:{token}".encode()).decode()
                return Door(target, path, {"Authorization": f"Basic {pair}"})
            case "header":
                return Door(target, path, {name: token})
            case "query":
                return Door(target, f"{path}{'&' if '?' in path else '?'}{name}={quote(token)}")
            case "none":
                return Door(target, path)
            case _:
                raise ValueError(kind)

    async def run(self) -> int:
        """Live until there is a reason to end; returns the exit code."""
        commands = Commands()
        await commands.open()
        async with Crew() as crew:
            self._crew = crew
            if self._options.subprotocol or self._options.first_message:
                code = await self._knock()
            else:
                crew.start(self._obey(commands))
                crew.start(self._live())
                code = await self._exit
        say("exit", code=code)
        return code

    def _end(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    # A session

    def _new_session(self, sockets: int) -> Session:
        session = Session(
            self._generation, self._door, self._crew, sockets=sockets, opener=self._open_stream
        )
        session.wrong_socket = self._options.wrong_socket
        session.late_frames = self._options.late_frames
        return session

    async def _live(self) -> None:
        options = self._options
        try:
            self._session = self._new_session(options.sockets)
            await self._session.connect(options.resume)
            if not self._session.was_resumed:
                await self._bind_all()
        except (Refused, ConnectError) as error:
            status = error.status if isinstance(error, ConnectError) else None
            headers = error.headers if isinstance(error, ConnectError) else {}
            code = error.code if isinstance(error, Refused) else "CONNECT"
            say("refused", code=code, text=str(error), status=status, headers=headers)
            self._end(1)
            return
        except BindRefused:
            # The helpers of the drivers close the session when a bind fails.
            await self._session.close()
            await self._session.ended.wait()
            self._end(1)
            return
        session = self._session
        await session.ended.wait()
        say("session_lost", session_id=session.session_id)
        if self._is_resuming or self._session is not session:
            return  # a command takes it up again
        if options.keep_alive and not self._closing:
            await self._keep_alive()
        elif self._closing or self._generation is Generation.NEW:
            self._end(0)
        # An old driver stays, and its other sockets with it.

    async def _bind_all(self) -> None:
        options = self._options
        extras: dict[str, object] = {"label": options.label} if options.label else {}
        if options.expose:
            takeover: dict[str, object] = {"takeover": True} if options.takeover else {}
            await self._bind("http", "expose", options.expose[0], **extras, **takeover)
        if options.pull:
            host: dict[str, object] = {"host": options.pull_host} if options.pull_host else {}
            await self._bind("tcp", "pull", options.pull[0], **extras, **host)

    async def _bind(self, kind: str, mode: str, port: int, **extras: object) -> None:
        try:
            answer = await self._session.binds.bind(kind, mode, port, **extras)
        except BindRefused as refused:
            say("bind_refused", code=refused.code, message=refused.message)
            raise
        say(
            "bound",
            mode=mode,
            bind_id=answer["bindId"],
            container_port=answer["containerPort"],
            public_url=answer.get("publicUrl"),
        )

    async def _keep_alive(self) -> None:
        clock = asyncio.get_running_loop().time
        until, attempt = clock() + RESUME_SECONDS, 0
        while clock() < until:
            await asyncio.sleep(RESUME_PAUSES[min(attempt, len(RESUME_PAUSES) - 1)])
            attempt += 1
            say("resuming", attempt=attempt)
            code = await self._resume()
            if code == "RESUMED":
                await self._session.ended.wait()
                say("session_lost", session_id=self._session.session_id)
                until, attempt = clock() + RESUME_SECONDS, 0
            elif code == "RESUME_EXPIRED":
                break
        self._end(1)

    async def _resume(self) -> str:
        self._is_resuming = True
        try:
            return await self._resume_once()
        finally:
            self._is_resuming = False

    async def _resume_once(self) -> str:
        old_id, old_binds = self._session.session_id, self._session.binds.held
        session = self._new_session(
            1 if self._generation is Generation.NEW else self._options.sockets
        )
        try:
            await session.connect(old_id)
        except (Refused, ConnectError) as error:
            code = error.code if isinstance(error, Refused) else "CONNECT"
            say("refused", code=code, text=str(error))
            return code
        if not session.was_resumed:
            say("fresh_session", session_id=session.session_id)
            await session.close()
            return "FRESH"
        if set(session.binds.held) != set(old_binds):
            say("violation", text=f"binds {list(session.binds.held)} after {list(old_binds)}")
        self._session = session
        return "RESUMED"

    def _open_stream(self, session: Session, stream_id: int, head: object) -> Handler | None:
        kind = head.get("kind") if isinstance(head, dict) else None
        if isinstance(head, dict):
            if kind == "http" and self._service is not None:
                response = Response(self._options.response)
                return open_http(session, stream_id, head, self._service, response)
            if kind == "tcp" and self._local_tcp is not None:
                return TcpStream(session, stream_id, *self._local_tcp)
        say("violation", text=f"a stream of kind {kind!r} that nothing here serves")
        if self._generation is Generation.NEW:
            session.refuse(stream_id, "no-target")
        return None

    # Only the first steps

    async def _knock(self) -> int:
        options = self._options
        version = options.subprotocol or (V2 if options.sockets > 1 else V1)
        try:
            link = await Link.open(
                self._door.target,
                self._door.path,
                headers=self._door.headers,
                subprotocols=None if version == "none" else [version],
            )
        except ConnectError as error:
            say(
                "refused",
                code="CONNECT",
                text=str(error),
                status=error.status,
                headers=error.headers,
            )
            return 1
        say("upgraded", subprotocol=link.subprotocol)
        kind = options.first_message
        if kind is not None and kind != "silence":
            data, text = FIRST_MESSAGES[kind]
            link.send_nowait(data, text=text)
        elif kind is None:
            return 0
        while (message := await link.receive()) is not None:
            say("answer", data=repr(getattr(message, "data", message)))
        say("socket_closed", index=0, how=link.end, code=link.close_code, reason=link.close_reason)
        return 0

    # Commands

    async def _obey(self, commands: Commands) -> None:
        while True:
            words = await commands.next()
            try:
                await self._obey_one(words)
            except (ValueError, IndexError, AttributeError) as error:
                say("bad_command", words=words, text=repr(error))
            except BindRefused:
                continue

    async def _obey_one(self, words: list[str]) -> None:
        session = self._session
        match words:
            case ["stats"]:
                say("stats", **self._stats(session))
            case ["close"]:
                self._closing = True
                await session.close()
                await session.ended.wait()
                self._end(0)
            case ["vanish"]:
                session.sockets.drop()
                self._end(VANISHED_EXIT_CODE)
            case ["drop", *index]:
                session.sockets.drop(int(index[0]) if index else None)
            case ["resume"]:
                await self._resume()
            case ["bind", kind, mode, port, *more]:
                extras: dict[str, Any] = {}
                for word in more:
                    extras |= {"takeover": True} if word == "takeover" else {"host": word}
                await self._bind(kind, mode, int(port), **extras)
            case ["unbind"]:
                await session.binds.release()
            case ["freeze"]:
                session.sockets.freeze()
            case ["misbehave", kind, *index]:
                await misbehave(session, kind, int(index[0]) if index else 0)
            case ["join", kind]:
                self._crew.start(join_again(session, kind))
            case _:
                raise ValueError(words)

    def _stats(self, session: Session) -> dict[str, object]:
        return {
            **asdict(session.counts),
            "open_streams": len(session.streams),
            "bad_messages": session.sockets.bad_messages,
            "sockets_open": sum(link.is_open for link in session.sockets.links),
            "session_credit": session.session_credit,
        }


async def _main(options: argparse.Namespace) -> int:
    return await Client(options).run()


def main() -> None:
    """Run the double with the arguments of the command line."""
    sys.exit(asyncio.run(_main(_parser().parse_args())))


if __name__ == "__main__":
    main()
