"""One peer, running: the same steps for every plan, from the first process to its end."""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from moleport_bench import procfs
from moleport_bench.address import Address
from moleport_bench.errors import NotReady
from moleport_bench.origin import Origin
from moleport_bench.peers.base import Lab, Peer, Plan
from moleport_bench.ports import Ports
from moleport_bench.processes import Command, Processes, Running
from moleport_bench.waiting import get, wait_until


class Sides(NamedTuple):
    """A figure of the server's processes and of the agent's."""

    server: float
    agent: float

    @property
    def both(self) -> float:
        """Their sum: what the peer takes from the machine."""
        return self.server + self.agent

    def since(self, before: "Sides") -> "Sides":
        """Return what was added."""
        return Sides(self.server - before.server, self.agent - before.agent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all measurements of a run share."""

    cache: Path
    moleport_bin: Path
    origin: Origin
    ports: Ports


class Deployment:
    """Runs a peer as long as the block; every measurement gets fresh processes.

    Args:
        bench: what is shared.
        peer: which one.
        relay_port: where its agent connects to instead of the server; None: straight to it.
        more_agents: for how many further agents the server is prepared.
        settings: further settings of moleport.
    """

    def __init__(
        self,
        bench: Bench,
        peer: Peer,
        *,
        relay_port: int | None = None,
        more_agents: int = 0,
        settings: tuple[str, ...] = (),
    ) -> None:
        self._stack = ExitStack()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="moleport-bench-"))
        self._lab = Lab(
            directory=Path(directory),
            cache=bench.cache,
            moleport_bin=bench.moleport_bin,
            ports=bench.ports,
            origin_port=bench.origin.port,
            relay_port=relay_port,
            more_agents=more_agents,
            settings=settings,
        )
        self._peer = peer
        self._processes = self._stack.enter_context(Processes(self._lab.directory))
        self._server: Running | None = None
        self._agent: Running | None = None
        try:
            self.plan: Plan = peer.plan(self._lab)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        self.open()
        return self

    def open(self) -> None:
        """Start both sides and wait until a request comes back through them.

        Raises:
            NotReady: it did not work; everything is ended again.
        """
        try:
            self.start_server()
            self.wait_for_link()
            self.start_agent()
            self.wait_until_it_serves()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End everything that was started; idempotent."""
        self._stack.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> Address:
        """What visitors use."""
        return self.plan.address

    @property
    def directory(self) -> Path:
        """For files of a figure; gone with the deployment."""
        return self._lab.directory

    @property
    def agent(self) -> Running | None:
        """The agent's program."""
        return self._agent

    def start_server(self) -> None:
        """Start the server, again after a kill."""
        if self.plan.server is not None:
            self._server = self._processes.start(f"{self._peer.name}-server", self.plan.server)

    def start_agent(self) -> None:
        """Start the agent, again after a kill."""
        if self.plan.agent is not None:
            self._agent = self._processes.start(f"{self._peer.name}-agent", self.plan.agent)

    def kill_server(self) -> None:
        """End the server as a crash does."""
        if self._server is not None:
            self._server.kill()

    def kill_agent(self) -> None:
        """End the agent as a crash does."""
        if self._agent is not None:
            self._agent.kill()

    def start_another(self, name: str, command: Command) -> Running:
        """Start a further process that ends with the deployment and counts for neither side."""
        return self._processes.start(name, command)

    def wait_for_link(self) -> None:
        """Wait until the server lets agents in, so that no agent begins with a pause.

        Raises:
            NotReady: it never does.
        """
        port = self.plan.link_port
        if port is not None:
            wait_until(lambda: self._listens(port), "the server", words=self._last_words)
        ready = self.plan.ready_port
        if ready is not None:
            address = Address(ready)
            wait_until(lambda: get(address, "/readyz") == 200, "the server", words=self._last_words)

    def wait_until_it_serves(self) -> None:
        """Wait until a request comes back through the tunnel.

        Raises:
            NotReady: none does.
        """
        wait_until(self._serves, "the tunnel", words=self._last_words)

    def cpu(self) -> Sides:
        """Return the CPU seconds of both sides so far."""
        return Sides(*(procfs.cpu_seconds(pids) for pids in self._pids()))

    def resident(self) -> Sides:
        """Return the resident bytes of both sides now."""
        return Sides(*(procfs.resident_bytes(pids) for pids in self._pids()))

    def _listens(self, port: int) -> bool:
        self._check_alive()
        return procfs.is_listening(port)

    def _serves(self) -> bool:
        self._check_alive()
        return get(self.address) == 200

    def _check_alive(self) -> None:
        for running in (self._server, self._agent):
            if running is not None and running.has_ended:
                raise NotReady(f"{running.name} ended: {running.last_words()}")

    @property
    def is_alive(self) -> bool:
        """Whether none of the programs has ended."""
        return not any(
            running.has_ended for running in (self._server, self._agent) if running is not None
        )

    def _pids(self) -> tuple[list[int], list[int]]:
        server, agent = (
            [] if running is None else running.pids() for running in (self._server, self._agent)
        )
        return server, agent

    def _last_words(self) -> str:
        said = (
            running.last_words() for running in (self._server, self._agent) if running is not None
        )
        return " | ".join(filter(None, said))
