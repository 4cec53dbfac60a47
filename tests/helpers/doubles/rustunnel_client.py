"""A double of the stock rustunnel client, for tests: run it as a process of its own.

    python -m helpers.doubles.rustunnel_client --server localhost:4040 --ca-file ca.pem \\
        --token-file token --release 0.3.6 --tunnel http:127.0.0.1:8080:demo

It follows the family's protocol document (sections 1 to 3) in what each release does, and shares no
code with the server. Every event is a JSON line on stdout; commands come in on stdin (`COMMANDS`).
The exit code is the stock client's; 9 after it was told to vanish.
"""

import argparse
import asyncio
import signal
import ssl
import sys
from pathlib import Path

from helpers.doubles.crew import Crew
from helpers.doubles.events import Commands, say
from helpers.doubles.link import Target
from helpers.doubles.naive_yamux import Quirks
from helpers.doubles.rustunnel_frames import FIRST_FRAMES
from helpers.doubles.rustunnel_mischief import misbehave_on_control, misbehave_on_data
from helpers.doubles.rustunnel_release import Backoff, ClientError, Release
from helpers.doubles.rustunnel_session import (
    Conduct,
    Session,
    Tunnel,
    Vanished,
)

VANISHED_EXIT_CODE = 9
COMMANDS = """commands on stdin:
  stats                   say the counters of the data channel
  interrupt               end as with Ctrl-C (so does SIGINT)
  cut                     lose both connections and come back
  vanish                  reset both connections and end at once
  mute                    read and answer nothing from now on
  control KIND [BYTES]    send garbage on the control channel
  data KIND               break the data channel
  open-data PATH          open another data channel; `same` stands for this session's path
"""


def parse_tunnel(text: str) -> Tunnel:
    """Read `PROTOCOL:HOST:PORT[:SUBDOMAIN]`."""
    protocol, host, port, *subdomain = text.split(":")
    return Tunnel(protocol, host, int(port), subdomain[0] if subdomain else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rustunnel-double",
        epilog=COMMANDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--server", required=True, metavar="HOST:PORT")
    parser.add_argument("--connect", metavar="HOST", help="connect here instead of to that host")
    parser.add_argument("--token-file", type=Path, help="without one the token is empty")
    parser.add_argument("--ca-file", type=Path)
    parser.add_argument("--insecure", action="store_true")
    parser.add_argument("--release", type=Release.parse, default=Release(0, 3, 6))
    parser.add_argument("--tunnel", type=parse_tunnel, action="append", required=True)
    parser.add_argument("--no-reconnect", action="store_true")
    parser.add_argument("--heartbeat-seconds", type=float, default=30.0)
    parser.add_argument(
        "--pause-seconds", type=float, default=0.0, help="be slow between the first steps"
    )
    parser.add_argument("--trace", action="store_true", help="an event for each stream")
    wrong = parser.add_argument_group("misbehaviour")
    wrong.add_argument("--first-frame", choices=[*FIRST_FRAMES, "silence"])
    wrong.add_argument(
        "--vanish-at",
        choices=["connected", "authenticated", "registered", "attached", "stream"],
    )
    wrong.add_argument("--never-attach", action="store_true")
    wrong.add_argument("--never-acknowledge", action="store_true")
    wrong.add_argument("--never-grant", action="store_true", help="no credit on any stream")
    wrong.add_argument("--never-pong", action="store_true", help="no answer to pings of yamux")
    wrong.add_argument("--refuse", action="store_true", help="reset each stream, dial nothing")
    wrong.add_argument("--reset-after", type=int, metavar="BYTES", help="reset answers half way")
    wrong.add_argument("--max-streams", type=int, default=Quirks.max_streams)
    return parser


def _target(options: argparse.Namespace) -> Target:
    host, _, port = options.server.partition(":")
    tls = ssl.create_default_context(cafile=options.ca_file)
    if options.insecure:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return Target(options.connect or host, int(port or 443), tls, host)


class Client:
    """The process: sessions one after the other, and the commands for the one that is."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._release: Release = options.release
        self._token = options.token_file.read_text().strip() if options.token_file else ""
        self._session: Session | None = None
        self._was_up = False
        self._is_interrupted = asyncio.Event()
        self._crew: Crew

    async def run(self) -> int:
        """Connect until there is a reason to end; returns the exit code."""
        commands = Commands()
        await commands.open()
        async with Crew() as crew:
            self._crew = crew
            crew.start(self._obey(commands))
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)
            code = await self._attempts()
        say("exit", code=code)
        return code

    async def _attempts(self) -> int:
        backoff = Backoff()
        while True:
            say("connecting", attempt=backoff.attempt + 1)
            try:
                await self._one_session()
            except Vanished as vanished:
                say("vanished", at=str(vanished))
                return VANISHED_EXIT_CODE
            except ClientError as error:
                say("error", text=str(error), fatal=self._release.is_fatal(error))
                if self._options.no_reconnect:
                    return 1
                if self._release.is_fatal(error):
                    return self._release.fatal_exit_code
            else:
                return 0
            seconds = backoff.take()
            say("reconnecting", seconds=seconds, attempt=backoff.attempt)
            try:
                async with asyncio.timeout(seconds):
                    await self._is_interrupted.wait()
            except TimeoutError:
                continue
            return 0

    async def _one_session(self) -> None:
        options = self._options
        conduct = Conduct(
            first_frame=options.first_frame,
            vanish_at=options.vanish_at,
            attaches=not options.never_attach,
            refuses=options.refuse,
            resets_after=options.reset_after,
            traces=options.trace,
            heartbeat_seconds=options.heartbeat_seconds,
            pause_seconds=options.pause_seconds,
            quirks=Quirks(
                acknowledges=not options.never_acknowledge,
                grants=not options.never_grant,
                answers_pings=not options.never_pong,
                max_streams=options.max_streams,
            ),
        )
        self._session = Session(
            self._release, _target(options), self._token, options.tunnel, conduct
        )
        try:
            await self._session.run()
        finally:
            self._was_up = self._was_up or bool(self._session.session_id)
            self._session = None

    def _interrupt(self) -> None:
        if self._session is not None and self._session.session_id:
            self._session.interrupt()
        elif not self._was_up or self._release >= Release(0, 8, 0):
            self._is_interrupted.set()
        # Else the handler of the session that was swallows it: the wait goes on.

    async def _obey(self, commands: Commands) -> None:
        while True:
            words = await commands.next()
            try:
                self._obey_one(words)
            except (ValueError, IndexError, AssertionError) as error:
                say("bad_command", words=words, text=repr(error))

    def _obey_one(self, words: list[str]) -> None:
        session = self._session
        if session is None:
            say("no_session", words=words)
            return
        match words:
            case ["stats"]:
                say("stats", **(session.data.stats() if session.data else {}))
            case ["interrupt"]:
                self._interrupt()
            case ["cut"]:
                session.cut()
            case ["vanish"]:
                session.vanish()
            case ["mute"]:
                session.mute()
            case ["control", kind, *size]:
                misbehave_on_control(session, kind, int(size[0]) if size else 0)
            case ["data", kind]:
                misbehave_on_data(session, kind)
            case ["open-data", path]:
                own = f"/_data/{session.session_id}"
                self._crew.start(session.open_data(own if path == "same" else path))
            case _:
                raise ValueError(words)


def main() -> None:
    """Run the double with the arguments of the command line."""
    options = _parser().parse_args()
    sys.exit(asyncio.run(_main(options)))


async def _main(options: argparse.Namespace) -> int:
    return await Client(options).run()


if __name__ == "__main__":
    main()
