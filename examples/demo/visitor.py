"""The visits that the demo makes itself: to both public addresses, and what came back.

They go through the whole way: public listener, tunnel server, agent, local service. `*.localhost` is
resolved by browsers and curl but not by Python, so the connection goes to loopback and the name
travels in the Host header.
"""

import http.client
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

LOOPBACK: Final = "127.0.0.1"
VISIT_SECONDS: Final = 10.0
"""A visit on one machine takes milliseconds; the stream below ticks every second."""
GREETING: Final = b"hello, is anybody there?\n"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request or connection and its result."""

    what: str
    result: str
    is_good: bool


def visit_all(site_url: str, echo_url: str) -> Iterator[Visit]:
    """Make every visit, one after the other."""
    for what, attempt, url in (
        (f"GET {site_url}/", _page, site_url),
        (f"GET {site_url}/clock (a live stream)", _stream, site_url),
        (echo_url, _echo, echo_url),
    ):
        began = time.perf_counter()
        try:
            result, is_good = attempt(url)
        except (OSError, http.client.HTTPException) as error:
            result, is_good = f"failed: {error or type(error).__name__}", False
        milliseconds = (time.perf_counter() - began) * 1000
        yield Visit(what, f"{result}, {milliseconds:.0f} ms", is_good)


def _page(site_url: str) -> tuple[str, bool]:
    connection, host = _connect(site_url)
    try:
        connection.request("GET", "/", headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    is_good = answer.status == 200 and b"behind the tunnel" in body
    return f"{answer.status} {answer.reason}, {len(body)} bytes", is_good


def _stream(site_url: str) -> tuple[str, bool]:
    """Read two ticks: the second can only come from a stream that nobody collects first."""
    connection, host = _connect(site_url)
    try:
        connection.request("GET", "/clock", headers={"Host": host})
        answer = connection.getresponse()
        ticks = [_tick(answer), _tick(answer)]
    finally:
        connection.close()
    text = " then ".join(ticks)
    return f"{answer.status} {answer.reason}, {text}", answer.status == 200 and all(ticks)


def _tick(answer: http.client.HTTPResponse) -> str:
    line = answer.readline(1024)
    answer.readline(1024)  # the empty line behind each event
    return line.decode("utf-8", "replace").removeprefix("data:").strip()


def _echo(echo_url: str) -> tuple[str, bool]:
    address = urlsplit(echo_url)
    with socket.create_connection((LOOPBACK, address.port or 0), timeout=VISIT_SECONDS) as visitor:
        visitor.sendall(GREETING)
        visitor.shutdown(socket.SHUT_WR)
        received = b""
        while chunk := visitor.recv(4096):
            received += chunk
    said, heard = GREETING.decode().strip(), received.decode("utf-8", "replace").strip()
    return f"said {said!r}, heard {heard!r}", received == GREETING


def _connect(site_url: str) -> tuple[http.client.HTTPConnection, str]:
    address = urlsplit(site_url)
    connection = http.client.HTTPConnection(LOOPBACK, address.port or 80, timeout=VISIT_SECONDS)
    return connection, address.netloc
