"""HAProxy: one hop in HTTP mode, and two hops with TLS between them.

The two hops are a tunnel without any multiplexing: each connection of a visitor pays for a handshake.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.certificate import self_signed
from moleport_bench.peers.base import Lab, Mode, Plan, program

_GLOBAL = """
global
  nbthread 2
defaults
  mode {mode}
  timeout connect 10s
  timeout client 600s
  timeout server 600s
"""
_ONE_HOP = """
  http-reuse always
frontend public
  bind 127.0.0.1:{port}
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin}
"""
_PUBLIC_HOP = """
frontend public
  bind 127.0.0.1:{port}
  default_backend link
backend link
  server link 127.0.0.1:{link} ssl verify none
"""
_ORIGIN_HOP = """
frontend link
  bind 127.0.0.1:{link} ssl crt {certificate}
  default_backend origin
backend origin
  server origin 127.0.0.1:{origin}
"""


@dataclass(frozen=True, slots=True)
class OneHop:
    """A reverse proxy on the same machine."""

    name: str = "haproxy-1hop"
    mode: Mode = Mode.BASELINE
    leg: str = "–"
    how: str = "HTTP mode, 2 threads, `http-reuse always`"
    needs: Sequence[str] = ("haproxy",)

    def plan(self, lab: Lab) -> Plan:
        """Write haproxy.cfg."""
        port = lab.ports.one()
        text = _GLOBAL.format(mode="http") + _ONE_HOP.format(port=port, origin=lab.origin_port)
        config = lab.write("haproxy.cfg", text)
        return Plan(address=Address(port), server=[program("haproxy", lab), "-db", "-f", config])


@dataclass(frozen=True, slots=True)
class TwoHops:
    """Two processes in TCP mode with TLS between them."""

    name: str = "haproxy-2hop-tls"
    mode: Mode = Mode.BASELINE
    leg: str = "TLS"
    how: str = "two processes in TCP mode with TLS between them: two hops without multiplexing"
    needs: Sequence[str] = ("haproxy",)

    def plan(self, lab: Lab) -> Plan:
        """Write two files; the hop beside the origin plays the agent, though it is dialled."""
        port, link = lab.ports.one(), lab.ports.one()
        pair = self_signed(lab.directory)
        public = _PUBLIC_HOP.format(port=port, link=link)
        origin = _ORIGIN_HOP.format(link=link, origin=lab.origin_port, certificate=pair.both)
        configs = [
            lab.write(f"{name}.cfg", _GLOBAL.format(mode="tcp") + text)
            for name, text in (("public", public), ("origin", origin))
        ]
        commands = [[program("haproxy", lab), "-db", "-f", config] for config in configs]
        return Plan(address=Address(port), server=commands[0], agent=commands[1])


PEERS = (OneHop(), TwoHops())
