"""piko: HTTP by Host over a WebSocket, with TLS towards the server and without.

Its time limits are raised, because the defaults would cut the bulk transfers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.certificate import self_signed
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command

_SERVER = """
proxy:
  bind_addr: 127.0.0.1:{port}
  timeout: 600s
upstream:
  bind_addr: 127.0.0.1:{link}
{tls}
admin:
  bind_addr: 127.0.0.1:{admin}
gossip:
  bind_addr: 127.0.0.1:{gossip}
log:
  level: error
"""
_SERVER_TLS = """
  tls:
    enabled: true
    cert: {certificate}
    key: {key}
"""
_AGENT = """
listeners:
  - endpoint_id: {name}
    addr: 127.0.0.1:{origin}
    protocol: http
    timeout: 600s
connect:
  url: {scheme}://127.0.0.1:{link}
{tls}
server:
  enabled: false
log:
  level: error
"""
_AGENT_TLS = """
  tls:
    root_cas: {certificate}
"""


@dataclass(frozen=True, slots=True)
class Piko:
    """One server node and its agent."""

    name: str
    tls: bool
    mode: Mode = Mode.HTTP
    how: str = "`piko server`, `piko agent start`; time limits raised"
    needs: Sequence[str] = ("piko",)

    @property
    def leg(self) -> str:
        """TLS when it is configured."""
        return "TLS" if self.tls else "none"

    def plan(self, lab: Lab) -> Plan:
        """Write two YAML files."""
        port, link, admin, gossip = (lab.ports.one() for _ in range(4))
        tls = {"server": "", "agent": ""}
        if self.tls:
            pair = self_signed(lab.directory)
            tls["server"] = _SERVER_TLS.format(certificate=pair.certificate, key=pair.key)
            tls["agent"] = _AGENT_TLS.format(certificate=pair.certificate)
        text = _SERVER.format(port=port, link=link, admin=admin, gossip=gossip, tls=tls["server"])
        server = lab.write("piko-server.yaml", text)

        def agent(name: str) -> Command:
            config = _AGENT.format(
                name=name,
                origin=lab.origin_port,
                scheme="https" if self.tls else "http",
                link=lab.link(link),
                tls=tls["agent"],
            )
            path = lab.write(f"piko-{name}.yaml", config)
            return [program("piko", lab), "agent", "start", "--config.path", path]

        return Plan(
            address=Address(port, "bench.localhost"),
            server=[program("piko", lab), "server", "--config.path", server],
            agent=agent("bench"),
            link_port=link,
            another_agent=lambda number: agent(f"agent{number}"),
        )


PEERS = (Piko("piko-http", tls=False), Piko("piko-http-tls", tls=True))
