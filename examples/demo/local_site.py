"""The sample services that the demo exposes: a small web site and a TCP echo.

Standard library only, so that this file is also the smallest example of «your own service»: nothing
in it knows that a tunnel exists. The site answers a page at `/`, a stream of server-sent events at
`/clock` and what it received at `/headers`; the echo returns every line to its sender.
"""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

LOOPBACK: Final = "127.0.0.1"
TICK_SECONDS: Final = 1.0
IDLE_SECONDS: Final = 300.0
"""A visitor that says nothing for so long gives its thread back."""
LONGEST_LINE_BYTES: Final = 64 * 1024

PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello from behind the tunnel</title>
<style>
  body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 34rem; margin: 4rem auto; padding: 0 1rem }
  output { font-variant-numeric: tabular-nums; font-weight: 600 }
</style>
<h1>Hello from behind the tunnel</h1>
<p>This page is served by a program that listens on loopback only. An agent beside it dialled out to
the tunnel server, which gave it this address.</p>
<p>The clock below is a stream of server-sent events: <output>waiting for the first tick</output></p>
<p><a href="/headers">What the site sees of your request</a></p>
<script>
  const output = document.querySelector("output");
  new EventSource("/clock").onmessage = (event) => { output.textContent = event.data };
</script>
</html>
"""


class _SiteRequest(BaseHTTPRequestHandler):
    """One visitor of the site."""

    protocol_version = "HTTP/1.1"
    server_version = "local-site"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer one of the three paths."""
        path = self.path.partition("?")[0]
        if path == "/":
            self._answer(200, "text/html; charset=utf-8", PAGE.encode())
        elif path == "/headers":
            received = json.dumps(dict(self.headers.items()), indent=2) + "\n"
            self._answer(200, "application/json", received.encode())
        elif path == "/clock":
            self._stream_clock()
        else:
            self._answer(404, "text/plain; charset=utf-8", b"There is no such page.\n")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing: the demo shows what the tunnel saw."""

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream_clock(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        # The end of the connection is the end of the stream.
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while self.command != "HEAD":
                self.wfile.write(f"data: {time.strftime('%H:%M:%S')}\n\n".encode())
                time.sleep(TICK_SECONDS)
        except OSError:
            return  # the visitor left, which is how every clock ends


class _EchoConnection(socketserver.StreamRequestHandler):
    """One visitor of the echo."""

    timeout = IDLE_SECONDS

    def handle(self) -> None:
        """Return every line until the visitor has said its last."""
        try:
            while line := self.rfile.readline(LONGEST_LINE_BYTES):
                self.wfile.write(line)
        except OSError:
            return  # silent for too long, or gone


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


class _SiteServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: visitors may leave at any moment."""


@contextmanager
def serve_locally() -> Iterator[tuple[int, int]]:
    """Run both services on loopback; yields the port of the site and the port of the echo."""
    with (
        _SiteServer((LOOPBACK, 0), _SiteRequest) as site,
        _EchoServer((LOOPBACK, 0), _EchoConnection) as echo,
    ):
        services: tuple[socketserver.BaseServer, ...] = (site, echo)
        for service in services:
            threading.Thread(target=service.serve_forever, daemon=True).start()
        try:
            yield site.server_port, int(echo.server_address[1])
        finally:
            for service in services:
                service.shutdown()
