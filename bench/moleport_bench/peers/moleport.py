"""moleport as its users run it: installed from a wheel, TLS on the agent leg, capture and metrics on.

The server is `moleport-server dev`: SQLite, a local certificate authority, everything else with the
defaults. One more variant has captures turned off, to show what they cost; further ones carry visitors
over TLS and over TCP.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan
from moleport_bench.ports import MOLEPORT_BLOCK
from moleport_bench.processes import Command

LINK_OFFSET, METRICS_OFFSET, TCP_OFFSET = 2, 4, 100
FLEET = Path(__file__).parents[1] / "fleet.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moleport:
    """A server and one agent with one tunnel, unless a figure asks for more."""

    name: str
    how: str
    mode: Mode = Mode.HTTP
    tls: bool = False
    """Whether visitors use TLS."""
    settings: Sequence[str] = ()
    connections: int = 1
    tunnels: int = 1
    leg: str = "TLS"
    needs: Sequence[str] = ("moleport", "moleport-server")

    def plan(self, lab: Lab) -> Plan:
        """Write the admin token."""
        programs = lab.moleport_bin
        base = lab.ports.block(MOLEPORT_BLOCK)
        token = lab.write("admin-token", secrets.token_urlsafe(32))
        data = lab.directory / "data"
        settings = [*self.settings, *lab.settings]
        if self.tunnels > 1:
            settings.append(f"limits.tunnels_per_session={self.tunnels}")
        changes = [word for change in settings for word in ("--set", change)]
        link = base + LINK_OFFSET
        server = {
            "--server": f"https://localhost:{lab.link(link)}",
            "--token-file": token,
            "--ca-file": data / "tls" / "ca.pem",
        }
        where: Command = [word for pair in server.items() for word in pair]
        address, agent = self._agent(lab, base)

        def fleet(agents: int, tunnels: int, prefix: str) -> Command:
            return [
                *(programs / "python", FLEET, agents, tunnels, prefix, lab.origin_port),
                *(f"https://localhost:{link}", token, server["--ca-file"]),
            ]

        more = ("--connections", self.connections, "--json")
        return Plan(
            address=address,
            server=[
                *(programs / "moleport-server", "dev", "--no-profile", "--data-dir", data),
                *("--port-base", base, "--admin-token-file", token, *changes),
            ],
            agent=[programs / "moleport", *agent, *more, *where]
            if self.tunnels == 1
            else fleet(1, self.tunnels, "bench"),
            link_port=link,
            ready_port=base + METRICS_OFFSET,
            fleet=lambda count: fleet(count, count, "fleet"),
            agent_is_back='"event":"tunnel_opened"',
        )

    def _agent(self, lab: Lab, base: int) -> tuple[Address, Command]:
        if self.mode.is_tcp:
            port = base + TCP_OFFSET
            return Address(port), ["tcp", lab.origin_port, "--port", port]
        address = Address(base + (1 if self.tls else 0), tunnel_host(0), tls=self.tls)
        return address, ["http", lab.origin_port, "--name", tunnel_host(0).split(".")[0]]


def tunnel_host(number: int) -> str:
    """Return the public name of the n-th tunnel."""
    return f"bench{number}.localhost"


PEERS = (
    Moleport(
        name="moleport-http", how="`moleport-server dev`, `moleport http`; capture and metrics on"
    ),
    Moleport(
        name="moleport-http-nocapture",
        how="the same with `capture.enabled=false`",
        settings=("capture.enabled=false",),
    ),
    Moleport(name="moleport-https", how="capture on, visitors over TLS too", tls=True),
    Moleport(name="moleport-tcp", how="`moleport tcp`", mode=Mode.TCP_ONE),
)
