"""`make up`: a tunnel server, a sample site and an agent on this machine, with nothing configured.

Starts the same two commands that anybody would start (`moleport-server dev`, `moleport start`), shows
the public addresses, visits both, and then shows every request until Ctrl-C. Everything lives in one
temporary directory that is removed at the end; the profile of the CLI is put back as it was. Needs no
terminal: without one the same lines are written plainly.
"""

import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from local_site import serve_locally
from moleport_server.config.environment import environment, profile_directory
from moleport_server.config.profile import FILE_NAME, ProfileOutcome, write_profile
from moleport_server.development import DEFAULT_PORTS, METRICS_PORT, TCP_PORTS
from visitor import Visit, visit_all

LOOPBACK: Final = "127.0.0.1"
OTHER_BASES: Final = range(18_000, 30_000, 1_000)
"""Where to look for room when the default ports are taken: below the ports that systems lend out."""
PORTS_OF_A_BASE: Final = (0, 1, 2, 3, 4, 100, 101)
"""Offsets that have to be free: five listeners and two ports for TCP tunnels."""
START_SECONDS: Final = 30.0
SIGNAL_SECONDS: Final = 0.2
"""How soon a signal is noticed by what waits."""
STOP_SECONDS: Final = 15.0
"""Longer than the server's drain of a demo, so that a clean end is never cut short."""
QUEUED_LINES: Final = 1000
"""A terminal that was stopped holds the agent back instead of filling memory."""

COMMANDS: Final = Path(sys.executable).parent


class Stopped(Exception):
    """Somebody asked for the end."""


class Failed(Exception):
    """It cannot go on, and why."""


Say = Callable[[str], None]


def main() -> int:
    """Run the demo until a signal; returns the exit code."""
    stopping = threading.Event()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only noted: an exception could strike while a process starts and leave it behind.
        signal.signal(number, lambda *_: stopping.set())
    try:
        with ExitStack() as stack:
            _run(stack, stopping)
    except Stopped:
        _say("everything has ended, nothing is left behind")
    except Failed as failure:
        _say(f"make up: {failure}")
        return 1
    return 0


def _run(stack: ExitStack, stopping: threading.Event) -> None:
    state = Path(tempfile.mkdtemp(prefix="moleport-demo-"))
    stack.callback(shutil.rmtree, state, ignore_errors=True)
    site_port, echo_port = stack.enter_context(serve_locally())

    base = _port_base()
    control = DEFAULT_PORTS["control"] if base is None else base + 2
    if base is not None:
        _say(f"Some of the default ports are taken, so this demo uses {base} and up.")
    _say("Starting a tunnel server, a sample site and an agent ...")
    server_state = state / "server"
    server = _Program(
        "moleport-server",
        ["dev", "--no-profile", "--data-dir", str(server_state)]
        + ([] if base is None else ["--port-base", str(base)]),
        log=state / "server.log",
        stopping=stopping,
    )
    stack.enter_context(server.running())
    server.wait_for(lambda line: "is ready" in line)

    address = f"https://localhost:{control}"
    token_file, ca_file = server_state / "admin-token", server_state / "tls" / "ca.pem"
    tunnels = state / "moleport.yaml"
    tunnels.write_text(
        f"server: {address}\n"
        f"token_file: {token_file}\n"
        f"ca_file: {ca_file}\n"
        "tunnels:\n"
        f"  site: {{ protocol: http, target: {site_port}, name: demo }}\n"
        f"  echo: {{ protocol: tcp, target: {echo_port} }}\n",
        encoding="utf-8",
    )
    agent = _Program(
        "moleport",
        ["start", "--json", "--file", str(tunnels)],
        log=state / "agent.log",
        stopping=stopping,
    )
    stack.enter_context(agent.running())
    urls = _public_urls(agent)
    prefix = stack.enter_context(_profile(state, address, token_file, ca_file))

    _say("")
    _say(f"  site  {_bold(urls['site'])}   open it in a browser")
    _say(f"  echo  {_bold(urls['echo'])}   nc {LOOPBACK} {urls['echo'].rpartition(':')[2]}")
    _say("")
    _say("Visiting both through the tunnel:")
    for visit in visit_all(urls["site"], urls["echo"]):
        _say(f"  {_mark(visit)} {visit.what}\n      {visit.result}")
        if not visit.is_good:
            raise Failed(f"a visit failed; the server says:\n{server.last_words()}")
        if stopping.is_set():
            raise Stopped
    _say("")
    _say("Your own site, from another terminal:")
    _say(f"  {prefix}{_command('moleport')} http 3000")
    _say("")
    _say("Requests as they come (Ctrl-C ends everything):")
    _show_requests(agent, server)


def _public_urls(agent: "_Program") -> Mapping[str, str]:
    urls: dict[str, str] = {}
    while len(urls) < 2:
        event = json.loads(agent.next_line(START_SECONDS))
        if event["event"] == "tunnel_opened":
            urls[event["name"]] = event["public_url"]
        elif event["event"] == "tunnel_refused":
            raise Failed(f"the server refused {event['name']}: {event['message']}")
    return urls


def _show_requests(agent: "_Program", server: "_Program") -> None:
    while True:
        line = _line(json.loads(agent.next_line(float("inf"))))
        if line is not None:
            _say(line)
        if not server.is_alive:
            raise Failed(server.how_it_ended())


def _line(event: Mapping[str, Any]) -> str | None:
    """Say an event of the agent in one line; None: not worth one."""
    match event["event"]:
        case "request_seen" if event["status"]:
            what = f"{event['method']} {event['path']}  {event['status']}"
        case "request_seen":
            what = f"connection from {event['peer']}"
        case "requests_skipped":
            return f"  {event['count']} more requests"
        case "disconnected":
            return f"  offline: {event['reason']}"
        case "connected":
            return "  online again" if event["resumed"] else None
        case "upstream_failed":
            return f"  {event['name']}: {event['reason']}"
        case _:
            return None
    clock = event["at"][11:19]
    return f"  {clock}  {event['name']:<5} {what}  {event['duration_ms']:.0f} ms"


class _Program:
    """One of our commands as a process; its output is read line by line.

    It gets a process group of its own: Ctrl-C reaches this script only, which then ends the agent
    before the server.
    """

    def __init__(
        self, command: str, arguments: list[str], *, log: Path, stopping: threading.Event
    ) -> None:
        self._name = command
        self._arguments = [str(COMMANDS / command), *arguments]
        self._log = log
        self._stopping = stopping
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUED_LINES)
        self._process: subprocess.Popen[str] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it; at the end ask it to end, and insist when it does not."""
        # What a developer has set for another server must not lead this demo there.
        environ = {k: v for k, v in environment().items() if not k.startswith("MOLEPORT_")}
        with self._log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command with our own arguments
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                text=True,
                process_group=0,
            )
        self._process = process
        assert process.stdout is not None  # noqa: S101 - asked for above
        reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            process.terminate()
            threading.Thread(target=self._discard, daemon=True).start()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def next_line(self, seconds: float) -> str:
        """Return its next line.

        Raises:
            Failed: it has ended, or said nothing for so long.
            Stopped: a signal came first.
        """
        deadline = time.monotonic() + seconds
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                line = self._lines.get(timeout=SIGNAL_SECONDS)
                if line is not None:
                    return line
                raise Failed(self.how_it_ended())
            if time.monotonic() > deadline:
                raise Failed(f"{self._name} said nothing for {seconds:.0f} s\n{self.last_words()}")
        raise Stopped

    def wait_for(self, is_wanted: Callable[[str], bool]) -> None:
        """Read lines until the wanted one."""
        while not is_wanted(self.next_line(START_SECONDS)):
            pass

    def how_it_ended(self) -> str:
        """Say that it has ended, by what, and what it said last."""
        assert self._process is not None  # noqa: S101 - asked about what was running
        code = self._process.wait(STOP_SECONDS)
        by = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        words = self.last_words()
        return f"{self._name} has ended {by}" + (f"; its last words:\n{words}" if words else "")

    def last_words(self) -> str:
        """Return the end of its log."""
        with suppress(OSError):
            return "\n".join(self._log.read_text(encoding="utf-8").splitlines()[-10:])
        return ""

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)

    def _discard(self) -> None:
        """Take what nobody reads any more, so that a full queue cannot delay its end."""
        while self._lines.get() is not None:
            pass


@contextmanager
def _profile(state: Path, server: str, token_file: Path, ca_file: Path) -> Iterator[str]:
    """Point the CLI at this server for a while; yields what a command line needs in front.

    A profile that somebody wrote on purpose is left alone: then the demo has one of its own.
    """
    directory = profile_directory(environment())
    path = directory / FILE_NAME
    before = path.read_bytes() if path.is_file() else None
    try:
        outcome = write_profile(directory, server=server, token_file=token_file, ca_file=ca_file)
    except OSError:
        outcome = ProfileOutcome.KEPT
    if outcome is ProfileOutcome.KEPT:
        own = state / "profile"
        write_profile(own, server=server, token_file=token_file, ca_file=ca_file)
        yield f"MOLEPORT_CONFIG_DIR={own} "
        return
    written = path.read_bytes()
    try:
        yield ""
    finally:
        with suppress(OSError):
            if path.read_bytes() == written:
                if before is None:
                    path.unlink()
                else:
                    path.write_bytes(before)


def _port_base() -> int | None:
    """Return the first base with room; None: the default ports are free."""
    if _are_free([*DEFAULT_PORTS.values(), METRICS_PORT, *TCP_PORTS]):
        return None
    for base in OTHER_BASES:
        if _are_free([base + offset for offset in PORTS_OF_A_BASE]):
            return base
    raise Failed("no free ports were found on loopback")


def _are_free(ports: Iterable[int]) -> bool:
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def _command(name: str) -> str:
    path = COMMANDS / name
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _say(text: str) -> None:
    # Whoever watched may be gone; that must not keep us from ending cleanly.
    with suppress(OSError):
        print(text, flush=True)


def _bold(text: str) -> str:
    return f"\033[1;36m{text}\033[0m" if _is_coloured() else text


def _mark(visit: Visit) -> str:
    if not _is_coloured():
        return "ok  " if visit.is_good else "FAIL"
    return "\033[32m✓\033[0m" if visit.is_good else "\033[31m✗\033[0m"


def _is_coloured() -> bool:
    return sys.stdout.isatty() and not environment().get("NO_COLOR") and os.name == "posix"


if __name__ == "__main__":
    sys.exit(main())
