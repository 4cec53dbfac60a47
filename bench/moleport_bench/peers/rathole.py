"""rathole: TCP tunnels from TOML files, with and without Noise between server and client."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.errors import NotReady
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command

_SECRET = "bench-only"  # noqa: S105 - both ends run on loopback for some seconds
_SERVER = """
[server]
bind_addr = "127.0.0.1:{link}"
default_token = "{secret}"
{transport}
"""
_SERVER_SERVICE = """
[server.services.{name}]
bind_addr = "127.0.0.1:{port}"
"""
_CLIENT = """
[client]
remote_addr = "127.0.0.1:{link}"
default_token = "{secret}"
{transport}
[client.services.{name}]
local_addr = "127.0.0.1:{origin}"
"""
_NOISE = """
[{side}.transport]
type = "noise"
[{side}.transport.noise]
{key}
"""


@dataclass(frozen=True, slots=True)
class Rathole:
    """One TCP connection per public connection, from a small pool."""

    name: str
    noise: bool
    how: str
    mode: Mode = Mode.TCP_EACH
    needs: Sequence[str] = ("rathole",)

    @property
    def leg(self) -> str:
        """Noise, or in the clear."""
        return "Noise" if self.noise else "none"

    def plan(self, lab: Lab) -> Plan:
        """Write server.toml and one client.toml per client."""
        link = lab.ports.one()
        public = {"bench": lab.ports.one()}
        public |= {f"agent{number}": lab.ports.one() for number in range(lab.more_agents)}
        transport = {"server": "", "client": ""}
        if self.noise:
            private, shared = self._keys(lab)
            keys = {"server": f'local_private_key = "{private}"'}
            keys["client"] = f'remote_public_key = "{shared}"'
            transport = {side: _NOISE.format(side=side, key=key) for side, key in keys.items()}
        text = _SERVER.format(link=link, secret=_SECRET, transport=transport["server"])
        for name, port in public.items():
            text += _SERVER_SERVICE.format(name=name, port=port)
        server = lab.write("server.toml", text)

        def agent(name: str) -> Command:
            config = _CLIENT.format(
                link=lab.link(link),
                secret=_SECRET,
                transport=transport["client"],
                name=name,
                origin=lab.origin_port,
            )
            path = lab.write(f"client-{name}.toml", config)
            return [program("rathole", lab), "--client", path]

        return Plan(
            address=Address(public["bench"]),
            server=[program("rathole", lab), "--server", server],
            agent=agent("bench"),
            link_port=link,
            another_agent=lambda number: agent(f"agent{number}"),
        )

    @staticmethod
    def _keys(lab: Lab) -> tuple[str, str]:
        printed = subprocess.run(
            [program("rathole", lab), "--genkey"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        keys = re.findall(r"^([A-Za-z0-9+/=]{43,44})$", printed, re.MULTILINE)
        if len(keys) != 2:
            raise NotReady("rathole --genkey printed no pair of keys")
        return keys[0], keys[1]


PEERS = (
    Rathole("rathole", noise=False, how="server.toml and client.toml with the defaults"),
    Rathole("rathole-noise", noise=True, how="the same with the Noise transport"),
)
