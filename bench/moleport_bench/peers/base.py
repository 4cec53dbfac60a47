"""What a peer is to the harness: a name, how it works, and a plan of two programs.

A module per peer writes the configuration that the peer's public documentation describes and says which
programs to start; everything else (starting, waiting, measuring, killing, the relay in between) is the
same for all and lives in `deployment`.
"""

import enum
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moleport_bench.address import Address
from moleport_bench.ports import Ports
from moleport_bench.processes import Command


class Mode(enum.Enum):
    """What a peer does with the bytes; compare within one mode first."""

    BASELINE = "no tunnel"
    """Proxies that dial the service, or nothing at all: what the machine can do."""
    HTTP = "HTTP mode: routes requests by Host"
    TCP_ONE = "TCP mode, one connection carries all"
    TCP_EACH = "TCP mode, one connection each"

    @property
    def is_tcp(self) -> bool:
        """Whether the peer only copies bytes."""
        return self in (Mode.TCP_ONE, Mode.TCP_EACH)


VARIANTS = frozenset({"moleport-http-nocapture", "moleport-https", "moleport-rustunnel"})
"""Rows that differ from `moleport-http` under load; the long figures leave them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """What a plan may use."""

    directory: Path
    """For configuration files; empty for each deployment."""
    cache: Path
    """Where the harness keeps what it installed."""
    moleport_bin: Path
    """Where moleport's commands are."""
    ports: Ports
    origin_port: int
    relay_port: int | None = None
    """Where the agent connects to instead of the server, when the link is to be cut."""
    more_agents: int = 0
    """For how many further agents the server has to be prepared."""
    settings: Sequence[str] = ()
    """Further settings of the peer under test, for figures that need a higher limit."""

    def link(self, port: int) -> int:
        """Return where the agent finds the server that listens on this port."""
        return port if self.relay_port is None else self.relay_port

    def write(self, name: str, text: str) -> Path:
        """Write a configuration file."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to run a peer."""

    address: Address
    """What visitors use."""
    server: Command | None = None
    """None: visitors go straight to the origin."""
    agent: Command | None = None
    """None: one program is both."""
    link_port: int | None = None
    """Where the server waits for agents."""
    ready_port: int | None = None
    """Where `/readyz` answers 200 when agents may come, if listening is not enough to know."""
    another_agent: Callable[[int], Command] | None = None
    """The n-th further agent, with an address of its own; for memory per agent."""
    fleet: Callable[[int], Command] | None = None
    """So many agents in one process, instead of a process each."""
    agent_is_back: str | None = None
    """What the agent prints when its tunnel has its address."""


class Peer(Protocol):
    """A program to compare with, or moleport itself."""

    @property
    def name(self) -> str:
        """Unique; rows of the tables and `--peers` use it."""

    @property
    def mode(self) -> Mode:
        """How it works."""

    @property
    def leg(self) -> str:
        """How the connection between agent and server is encrypted."""

    @property
    def how(self) -> str:
        """One line for the page: how it was run."""

    @property
    def needs(self) -> Sequence[str]:
        """Programs that have to be on PATH or in the cache."""

    def plan(self, lab: Lab) -> Plan:
        """Write the configuration and say what to start."""


def find_program(name: str, cache: Path) -> str | None:
    """Return the path of a program: on PATH, in sbin, or installed by the harness."""
    return shutil.which(name) or next(
        (
            str(folder / name)
            for folder in (cache / "bin", Path("/usr/sbin"), Path("/usr/local/sbin"))
            if (folder / name).exists()
        ),
        None,
    )


def program(name: str, lab: Lab) -> str:
    """Return the path of a program that is known to be there."""
    return find_program(name, lab.cache) or name
