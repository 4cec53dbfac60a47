"""The processes of a measurement: started with an environment made from nothing, ended for certain.

Each runs in a session of its own, so that Ctrl-C reaches only the harness, which then ends all that it
started, children too. What they print goes to files in the measurement's directory; the end of it is
shown when something fails.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from moleport_bench import procfs

STOP_SECONDS = 5.0
SHOWN_BYTES = 1500

Command = Sequence[object]
"""Program and arguments; each word is written with `str`."""


class Running:
    """A started program and its children."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def has_ended(self) -> bool:
        """Whether the program itself is gone."""
        return self._popen.poll() is not None

    def output(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def last_words(self) -> str:
        """Return the end of what it printed, for messages."""
        return self.output()[-SHOWN_BYTES:].strip()

    def pids(self) -> list[int]:
        """Return its process and all below it."""
        return procfs.tree(self._popen.pid)

    def kill(self) -> None:
        """End it and its children as a crash does."""
        _kill(self._identities())
        self._popen.wait()

    def stop(self) -> None:
        """Ask it to end; kill what is left of it and its children after a while. Idempotent."""
        everything = self._identities()
        if not self.has_ended:
            self._popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(STOP_SECONDS)
        _kill(everything)
        self._popen.wait()

    def _identities(self) -> dict[int, procfs.Stat]:
        stats = {pid: procfs.stat_of(pid) for pid in self.pids()}
        return {pid: stat for pid, stat in stats.items() if stat is not None}


def _kill(processes: Mapping[int, procfs.Stat]) -> None:
    """Kill processes, but none that has taken over the id of one that ended."""
    for pid, known in processes.items():
        now = procfs.stat_of(pid)
        if now is not None and now.started == known.started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Processes:
    """Owns the processes of one measurement; leaving the block ends the newest first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running: list[Running] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for running in reversed(self._running):
            running.stop()

    def start(
        self, name: str, command: Command, environ: Mapping[str, str] | None = None
    ) -> Running:
        """Start a program.

        Args:
            name: for messages and the file of its output.
            command: program and arguments.
            environ: added to the few variables that every process gets.
        """
        log = self._directory / f"{name}-{time.monotonic_ns()}.log"
        variables = {
            "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin",
            "HOME": str(self._directory),
            "LANG": "C.UTF-8",
            **(environ or {}),
        }
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [str(word) for word in command],
                cwd=self._directory,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(name, popen, log)
        self._running.append(running)
        return running
