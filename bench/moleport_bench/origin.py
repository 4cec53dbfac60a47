"""The local service of every tunnel: a small nginx, the same for all peers.

`/` answers 100 bytes, `/bulk` and `/part` are sparse files that the kernel sends from memory, `/upload`
and `/never` go to the sink. One worker; its CPU time is on nobody's account.
"""

import os
import sys
from pathlib import Path

from moleport_bench.address import Address
from moleport_bench.bulk_transfer import MEBIBYTE, download
from moleport_bench.ports import Ports
from moleport_bench.processes import Processes
from moleport_bench.waiting import fetch, get, wait_until

ANSWER = "0123456789" * 10
NGINX_HEAD = """
{user} daemon off; pid {directory}/{name}.pid; error_log {directory}/{name}-error.log;
worker_rlimit_nofile 65536; worker_processes {workers};
events {{ worker_connections 32768; }}
"""
"""What the configurations of the origin and of the nginx peers begin with."""
_SERVER = """
http {{
  access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 0; proxy_read_timeout 600s;
  upstream sink {{ server 127.0.0.1:{sink}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = / {{ return 200 "{answer}"; }}
    location = /bulk {{ root {directory}; }}
    location = /part {{ root {directory}; }}
    location / {{
      proxy_pass http://sink; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_request_buffering off;
    }}
  }}
}}
"""


class Origin:
    """The running service.

    Args:
        directory: for its files.
        processes: owns what is started.
        ports: where its ports come from.
        bulk_mebibytes: size of the large file; `/part` and the upload are an eighth and a half of it.
    """

    def __init__(
        self, directory: Path, processes: Processes, ports: Ports, *, bulk_mebibytes: int
    ) -> None:
        self.bulk_bytes = bulk_mebibytes * MEBIBYTE
        self.part_bytes = self.bulk_bytes // 8
        self.upload_file = directory / "upload"
        self.port = ports.one()
        self._sink = Address(ports.one())
        sizes = {"bulk": self.bulk_bytes, "part": self.part_bytes, "upload": self.bulk_bytes // 2}
        for name, size in sizes.items():
            with (directory / name).open("wb") as file:
                file.truncate(size)
        values = {"directory": directory, "sink": self._sink.port, "port": self.port}
        text = nginx_head(directory, "origin", workers=1) + _SERVER.format(**values, answer=ANSWER)
        config = directory / "origin.conf"
        config.write_text(text, encoding="utf-8")
        source = Path(__file__).parents[1]
        processes.start(
            "sink",
            [sys.executable, "-m", "moleport_bench.sink", self._sink.port],
            {"PYTHONPATH": str(source)},
        )
        processes.start("origin", ["nginx", "-p", directory, "-c", config])
        wait_until(lambda: get(self._sink, "/pending") == 200, "the sink")
        wait_until(lambda: get(self.address) == 200, "the origin")
        for name in ("bulk", "part"):  # into memory, or the first peer would pay for it
            download(self.address, f"/{name}", expected=sizes[name])

    @property
    def address(self) -> Address:
        """Where the origin itself is, without a tunnel."""
        return Address(self.port)

    def pending(self) -> int:
        """Return how many requests wait for the answer that never comes."""
        return int(fetch(self._sink, "/pending").body)


def nginx_head(directory: Path, name: str, *, workers: int) -> str:
    """Return the first lines of an nginx configuration.

    A root user's workers would otherwise become `nobody` and could not read the directory.
    """
    user = "user root;" if os.geteuid() == 0 else ""
    return NGINX_HEAD.format(directory=directory, name=name, workers=workers, user=user)
