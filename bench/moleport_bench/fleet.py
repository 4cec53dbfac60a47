"""Many agents in one process: a thousand interpreters do not fit beside a server.

    python fleet.py AGENTS TUNNELS PREFIX ORIGIN_PORT SERVER_URL TOKEN_FILE CA_FILE

Run by the interpreter that moleport is installed for. Each agent is moleport's own, with its own
session, TLS connection and tunnels; the server cannot tell it from a process. Prints `ready` when every
tunnel has its address, and ends with SIGTERM.
"""

import asyncio
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import uvloop

from moleport_agent.agent import run_agent
from moleport_agent.events import AgentEvent, TunnelOpened
from moleport_agent.settings import AgentSettings, Secret, ServerSettings, Target, TunnelSettings

AT_ONCE = 16
"""Agents that connect at the same time; the server lets 32 of one address in before they have proved
who they are."""


class Fleet(NamedTuple):
    """What to run."""

    agents: int
    tunnels: int
    """Of all agents together; each has about as many."""
    prefix: str
    """Of the public names; a number follows."""
    origin: int
    url: str
    token_file: Path
    ca_file: Path


async def run(fleet: Fleet) -> None:
    """Run the agents until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = ServerSettings(
        url=fleet.url,
        read_token=lambda: Secret(fleet.token_file.read_text(encoding="ascii").strip()),
        ca_file=fleet.ca_file,
    )
    turn = asyncio.Semaphore(AT_ONCE)
    is_open = [asyncio.Event() for _ in range(fleet.agents)]

    async def one(number: int) -> None:
        tunnels = tuple(
            _tunnel(fleet, place) for place in range(number, fleet.tunnels, fleet.agents)
        )
        missing = len(tunnels)

        def observe(event: AgentEvent) -> None:
            nonlocal missing
            if isinstance(event, TunnelOpened):
                missing -= 1
                if not missing:
                    is_open[number].set()
                    turn.release()

        await turn.acquire()
        await run_agent(AgentSettings(server=server, tunnels=tunnels), observe, stop=stop)

    async with asyncio.TaskGroup() as tasks:
        for number in range(fleet.agents):
            tasks.create_task(one(number))
        for opened in is_open:
            await opened.wait()
        print("ready", flush=True)


def _tunnel(fleet: Fleet, place: int) -> TunnelSettings:
    return TunnelSettings(
        name=f"t{place}",
        protocol="http",
        target=Target(text=str(fleet.origin), port=fleet.origin),
        subdomain=f"{fleet.prefix}{place}",
    )


if __name__ == "__main__":
    _, _agents, _tunnels, _prefix, _origin, _url, _token_file, _ca_file = sys.argv
    uvloop.run(
        run(
            Fleet(
                agents=int(_agents),
                tunnels=int(_tunnels),
                prefix=_prefix,
                origin=int(_origin),
                url=_url,
                token_file=Path(_token_file),
                ca_file=Path(_ca_file),
            )
        )
    )
