"""Many agents in one process, for what an agent costs the server: a thousand interpreters do not fit.

    python fleet.py COUNT ORIGIN_PORT SERVER_URL TOKEN_FILE CA_FILE

Run by the interpreter that moleport is installed for. Each agent is moleport's own, with its own
session, TLS connection and tunnel; the server cannot tell it from a process. Prints `ready` when every
tunnel has its address, and ends with SIGTERM.
"""

import asyncio
import signal
import sys
from pathlib import Path

from moleport_agent.agent import run_agent
from moleport_agent.events import AgentEvent, TunnelOpened
from moleport_agent.settings import AgentSettings, Secret, ServerSettings, Target, TunnelSettings

AT_ONCE = 16
"""Agents that connect at the same time; the server lets 32 of one address in before they have proved
who they are."""


async def run(count: int, origin: int, url: str, token_file: Path, ca_file: Path) -> None:
    """Run the agents until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = ServerSettings(
        url=url,
        read_token=lambda: Secret(token_file.read_text(encoding="ascii").strip()),
        ca_file=ca_file,
    )
    turn = asyncio.Semaphore(AT_ONCE)
    is_open = [asyncio.Event() for _ in range(count)]

    async def one(number: int) -> None:
        tunnel = TunnelSettings(
            name="bench",
            protocol="http",
            target=Target(text=str(origin), port=origin),
            subdomain=f"fleet{number}",
        )

        def observe(event: AgentEvent) -> None:
            if isinstance(event, TunnelOpened):
                is_open[number].set()
                turn.release()

        await turn.acquire()
        await run_agent(AgentSettings(server=server, tunnels=(tunnel,)), observe, stop=stop)

    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            tasks.create_task(one(number))
        for opened in is_open:
            await opened.wait()
        print("ready", flush=True)


if __name__ == "__main__":
    _, _count, _origin, _url, _token_file, _ca_file = sys.argv
    asyncio.run(run(int(_count), int(_origin), _url, Path(_token_file), Path(_ca_file)))
