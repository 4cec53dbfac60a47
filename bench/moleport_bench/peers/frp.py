"""frp: HTTP by Host and TCP, with TLS between server and client (its default) and without."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.peers.base import Lab, Mode, Plan, program
from moleport_bench.processes import Command

_SERVER = """
bindAddr = "127.0.0.1"
proxyBindAddr = "127.0.0.1"
bindPort = {link}
{vhost}
log.level = "error"
"""
_CLIENT = """
serverAddr = "127.0.0.1"
serverPort = {link}
loginFailExit = false
transport.tls.enable = {tls}
log.level = "error"
[[proxies]]
name = "{name}"
type = "{kind}"
localIP = "127.0.0.1"
localPort = {origin}
{where}
"""


@dataclass(frozen=True, slots=True)
class Frp:
    """frps and frpc with the defaults of their documentation."""

    name: str
    mode: Mode
    how: str
    tls: bool = True
    needs: Sequence[str] = ("frps", "frpc")

    @property
    def leg(self) -> str:
        """TLS unless it is turned off."""
        return "TLS" if self.tls else "none"

    def plan(self, lab: Lab) -> Plan:
        """Write frps.toml and frpc.toml."""
        link, port = lab.ports.one(), lab.ports.one()
        is_http = self.mode is Mode.HTTP
        server = _SERVER.format(link=link, vhost=f"vhostHTTPPort = {port}" if is_http else "")

        def agent(name: str, public: int) -> Command:
            host = f'customDomains = ["{name}.localhost"]'
            text = _CLIENT.format(
                link=lab.link(link),
                tls=str(self.tls).lower(),
                name=name,
                kind="http" if is_http else "tcp",
                origin=lab.origin_port,
                where=host if is_http else f"remotePort = {public}",
            )
            return [program("frpc", lab), "-c", lab.write(f"frpc-{name}.toml", text)]

        return Plan(
            address=Address(port, "bench.localhost") if is_http else Address(port),
            server=[program("frps", lab), "-c", lab.write("frps.toml", server)],
            agent=agent("bench", port),
            link_port=link,
            another_agent=lambda number: agent(f"agent{number}", lab.ports.one()),
        )


PEERS = (
    Frp("frp-http", Mode.HTTP, "`vhostHTTPPort` and `customDomains`"),
    Frp("frp-tcp", Mode.TCP_ONE, "`remotePort`"),
    Frp("frp-tcp-plain", Mode.TCP_ONE, "`remotePort`, `transport.tls.enable = false`", tls=False),
)
