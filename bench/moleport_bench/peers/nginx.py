"""nginx as a reverse proxy on the same machine: what one hop costs, and the yardstick of the ratios."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.address import Address
from moleport_bench.certificate import self_signed
from moleport_bench.origin import nginx_head
from moleport_bench.peers.base import Lab, Mode, Plan, program

_SERVER = """
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; proxy_read_timeout 600s;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} {tls} backlog=4096;
    {certificate}
    location / {{
      proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """One hop with a keep-alive pool to the origin."""

    name: str
    tls: bool
    how: str
    mode: Mode = Mode.BASELINE
    needs: Sequence[str] = ("nginx",)

    @property
    def leg(self) -> str:
        """There is no second leg."""
        return "–"

    def plan(self, lab: Lab) -> Plan:
        """Write nginx.conf."""
        port = lab.ports.one()
        certificate = ""
        if self.tls:
            pair = self_signed(lab.directory)
            certificate = f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};"
        text = nginx_head(lab.directory, "hop", workers=2) + _SERVER.format(
            origin=lab.origin_port,
            port=port,
            tls="ssl" if self.tls else "",
            certificate=certificate,
        )
        config = lab.write("nginx.conf", text)
        return Plan(
            address=Address(port, tls=self.tls),
            server=[program("nginx", lab), "-p", lab.directory, "-c", config],
        )


PEERS = (
    Nginx(
        "nginx-1hop", tls=False, how="reverse proxy, 2 workers, 128 idle connections to the origin"
    ),
    Nginx("nginx-1hop-https", tls=True, how="the same with TLS (P-256) for visitors"),
)
