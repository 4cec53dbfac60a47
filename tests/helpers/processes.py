"""Real servers and agents as child processes, with everything they print kept and timed.

A test reads what a process says (`wait_line`), asks it to end, or kills it. Each wait has a deadline,
and its failure shows the end of the output. Environments are made from nothing, so that proxies,
profiles and settings of the machine stay outside.
"""

import asyncio
import atexit
import contextlib
import fcntl
import functools
import itertools
import json
import os
import random
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self

PATIENCE_SECONDS = 20.0
"""For whatever takes less than a second on an idle machine; both cores may be busy."""
PORTS_PER_SERVER = 200
FIRST_PORT, LAST_PORT = 12_000, 31_800
"""Below the ephemeral ports of Linux, so that no outgoing connection sits on one of ours."""
SHOWN_LINES = 60


class Running(asyncio.SubprocessProtocol):
    """A child process and its output, line by line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        self.exit_code: int | None = None
        self._partial = {1: b"", 2: b""}
        self._changed = asyncio.Event()
        self._transport: asyncio.SubprocessTransport

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str | Path], environ: Mapping[str, str]
    ) -> Self:
        _, running = await asyncio.get_running_loop().subprocess_exec(
            lambda: cls(name),
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,  # so that `kill` gets its children as well
        )
        return running

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *whole, self._partial[fd] = (self._partial[fd] + data).split(b"\n")
        self.lines += [line.decode("utf-8", "backslashreplace") for line in whole]
        self._wake()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if self._partial[fd]:
            self.pipe_data_received(fd, b"\n")

    def process_exited(self) -> None:
        self.exit_code = self._transport.get_returncode()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._transport.get_pid()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def wait_until(
        self, condition: Callable[[], bool], what: str, *, seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until a condition on the output or the exit holds."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name}: {what} not within {seconds} s\n{self}") from None

    async def wait_line(
        self, text: str, *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> str:
        """Wait for a line with `text`, not looking at the first `since` lines."""

        def found() -> list[str]:
            return [line for line in self.lines[since:] if text in line]

        await self.wait_until(
            lambda: bool(found()) or self.exit_code is not None, f"{text!r}", seconds=seconds
        )
        if not found():
            raise AssertionError(f"{self.name} ended without {text!r}\n{self}")
        return found()[0]

    async def wait_exit(self, *, seconds: float = PATIENCE_SECONDS) -> int:
        """Wait for the end; returns the exit code, negative for a signal."""
        await self.wait_until(lambda: self.exit_code is not None, "the end", seconds=seconds)
        assert self.exit_code is not None
        return self.exit_code

    def send_signal(self, number: signal.Signals) -> None:
        self._transport.send_signal(number)

    async def kill(self) -> None:
        """End it as a crash does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.wait_exit()

    async def aclose(self) -> None:
        """Kill what still runs and free the pipes; idempotent."""
        if self.exit_code is None:
            await self.kill()
        self._transport.close()

    @property
    def resident_bytes(self) -> int:
        return self._status_bytes("VmRSS")

    @property
    def peak_resident_bytes(self) -> int:
        return self._status_bytes("VmHWM")

    def _status_bytes(self, key: str) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {key} of {self.name}")

    def __str__(self) -> str:
        return "\n".join((f"--- the end of what {self.name} said", *self.lines[-SHOWN_LINES:]))


class Server(Running):
    """A `moleport-server`."""


class Agent(Running):
    """A `moleport http`, `tcp` or `start`, which prints JSON lines."""

    def events(self, kind: str, *, since: int = 0) -> list[dict[str, Any]]:
        """Return the events of one kind, oldest first."""
        marker = f'"event":"{kind}"'
        return [json.loads(line) for line in self.lines[since:] if marker in line]

    async def wait_event(
        self, kind: str, *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> dict[str, Any]:
        """Wait for an event; see `wait_line`."""
        line = await self.wait_line(f'"event":"{kind}"', since=since, seconds=seconds)
        event: dict[str, Any] = json.loads(line)
        return event

    async def wait_opened(
        self, count: int = 1, *, since: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait until so many tunnels have their addresses."""
        await self.wait_until(
            lambda: (
                len(self.events("tunnel_opened", since=since)) >= count
                or self.exit_code is not None
            ),
            f"{count} tunnels",
            seconds=seconds,
        )
        opened = self.events("tunnel_opened", since=since)
        assert len(opened) >= count, str(self)
        return opened


def moment(event: Mapping[str, Any]) -> datetime:
    """Return when an event of an agent happened."""
    return datetime.fromisoformat(event["at"])


def command(name: str) -> Path:
    """Return the path of one of the installed commands."""
    return Path(sys.executable).with_name(name)


@contextlib.contextmanager
def port_block() -> Iterator[int]:
    """Keep a block of ports for one server and give its first one.

    A server that is down for a moment has its ports back afterwards: a lock on a file keeps other test
    processes of this machine away from the whole block.
    """
    locks = Path(tempfile.gettempdir(), f"moleport-test-ports-{os.getuid()}")
    locks.mkdir(exist_ok=True)
    bases = list(range(FIRST_PORT, LAST_PORT - PORTS_PER_SERVER, PORTS_PER_SERVER))
    random.shuffle(bases)
    for base in bases:
        with (locks / str(base)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if _is_free(base):
                yield base
                return
    raise AssertionError("no block of free ports")


def _is_free(base: int) -> bool:
    try:
        with ExitStack() as stack:
            for port in range(base, base + PORTS_PER_SERVER):
                listening = stack.enter_context(socket.socket())
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def free_port() -> int:
    """Find one port that nobody listens on now.

    It is none that the kernel gives to outgoing connections or to whoever asks for any port, and no
    other test process looks here: it is still free when the test comes to use it.
    """
    for _ in range(PORTS_PER_SERVER):
        port = next(_own_ports())
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no free port")


@functools.cache
def _own_ports() -> Iterator[int]:
    """Keep a block of ports for this process and go round in it."""
    block = ExitStack()
    base = block.enter_context(port_block())
    atexit.register(block.close)
    return itertools.cycle(range(base, base + PORTS_PER_SERVER))
