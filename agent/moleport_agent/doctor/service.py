"""The doctor's look at the server itself: API, token, clock, WebSocket, latency, streaming.

By now the way is known to work, so what fails here is the server or something in between that
understands HTTP: an ingress that drops upgrades, or a proxy that collects a stream before it passes
it on.
"""

import base64
import hashlib
import os
import socket
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import msgspec
from python_socks import ProxyError

from moleport_agent.answers import Status
from moleport_agent.doctor.findings import Finding, failed, ok, skipped, warning
from moleport_agent.doctor.route import STEP_SECONDS, Route
from moleport_agent.errors import ClientError, NotAuthorised
from moleport_agent.http_adapter import check_status, http_client, read_bounded, translate
from moleport_agent.settings import ServerSettings
from moleport_agent.trust import client_context

STREAM_SECONDS: Final = 2.0
"""The server greets at once; whoever holds that back for so long buffers."""
CLOCK_WARNING_SECONDS: Final = 30.0
CLOCK_FAILURE_SECONDS: Final = 300.0
"""Beyond five minutes certificates and token lifetimes go wrong."""
SLOW_MILLISECONDS: Final = 1000.0
PROBES: Final = 5
CONNECT_PATH: Final = "/api/v1/tunnel/connect"
SUBPROTOCOL: Final = "hoody-tunnel.v2"
_CLOSE_FRAME: Final = b"\x88\x82\x00\x00\x00\x00\x03\xe8"
"""Code 1000, masked with zeros: the probe says goodbye, so that no log calls it a lost agent."""
_ACCEPT_SUFFIX: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST_HEAD_BYTES: Final = 16 * 1024


def check_http(settings: ServerSettings, now: Callable[[], datetime]) -> tuple[Finding, Finding]:
    """Call `/api/status`; the second finding is about the clock, from the answer's date."""
    remedy = "check that the URL is the control listener's (https://host:4040), not the visitors'"
    try:
        with http_client(settings, answer_seconds=STEP_SECONDS) as http:
            before = now()
            response = http.get("/api/status", auth=None)
            after = now()
        check_status(response, response.content)
        msgspec.json.decode(response.content, type=Status)
    except ClientError as error:
        return failed("http", str(error), remedy), _no_clock()
    except httpx.HTTPError as error:
        return failed("http", str(translate(error, settings.url)), remedy), _no_clock()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        sentence = "/api/status answers, but not as a tunnel server does"
        return failed("http", sentence, remedy), _no_clock()
    server = ok("http", "/api/status answers")
    return server, _judge_clock(response.headers.get("date"), before, after)


def check_token(settings: ServerSettings) -> Finding:
    """Call `/api/tunnels` with the token."""
    try:
        with (
            http_client(settings, answer_seconds=STEP_SECONDS) as http,
            http.stream("GET", "/api/tunnels") as response,
        ):
            check_status(response, read_bounded(response))
    except NotAuthorised as error:
        return failed(
            "token",
            f"the server does not accept the token: {error}",
            "run `moleport login` with a new token from whoever runs the server",
        )
    except ClientError as error:
        return failed("token", str(error), "try again; if it stays, look at the server's log")
    except httpx.HTTPError as error:
        sentence = str(translate(error, settings.url))
        return failed("token", sentence, "try again; if it stays, look at the server's log")
    return ok("token", "the server accepts the token")


def check_websocket(route: Route, settings: ServerSettings) -> Finding:
    """Ask for the upgrade that a tunnel needs."""
    key = base64.b64encode(os.urandom(16))
    try:
        token = settings.read_token()
        head = _upgrade(route, settings, key, token)
    except (OSError, ProxyError) as error:
        return failed(
            "websocket",
            f"the connection broke during the upgrade: {error}",
            "something between cuts WebSocket connections: allow upgrades there",
        )
    lines = head.decode("latin-1").split("\r\n")
    status = lines[0][9:12] if lines[0].startswith("HTTP/1.") else "none"
    fields = {
        name.strip().lower(): value.strip()
        for name, colon, value in (line.partition(":") for line in lines[1:])
        if colon
    }
    if status in ("401", "403"):
        return failed(
            "websocket",
            f"the upgrade was refused with status {status}",
            "the token may use the API, but may not open tunnels from here: ask for its rules",
        )
    if status != "101":
        return failed(
            "websocket",
            f"the upgrade was answered with status {status} instead of 101",
            "a proxy or ingress between does not pass WebSocket upgrades: allow them for "
            f"{CONNECT_PATH}, or use the control listener's port directly",
        )
    # SHA-1 is what RFC 6455 wants here; it protects nothing.
    expected = base64.b64encode(hashlib.sha1(key + _ACCEPT_SUFFIX, usedforsecurity=False).digest())
    if fields.get("sec-websocket-accept") != expected.decode():
        return failed(
            "websocket",
            "the upgrade was answered by something that is no WebSocket server",
            "a proxy between answers by itself: connect without it (NO_PROXY)",
        )
    if fields.get("sec-websocket-protocol") != SUBPROTOCOL:
        return failed(
            "websocket",
            f"the server did not choose the subprotocol {SUBPROTOCOL}",
            "the server is too old, or a proxy drops Sec-WebSocket-Protocol: let it pass",
        )
    return ok("websocket", "the upgrade works")


def check_latency(settings: ServerSettings) -> Finding:
    """Measure some round trips on one connection."""
    taken: list[float] = []
    try:
        with http_client(settings, answer_seconds=STEP_SECONDS) as http:
            http.get("/api/status", auth=None)
            for _ in range(PROBES):
                start = time.perf_counter()
                http.get("/api/status", auth=None)
                taken.append((time.perf_counter() - start) * 1000)
    except httpx.HTTPError as error:
        sentence = str(translate(error, settings.url))
        return failed("latency", sentence, "the connection is not stable: try another network")
    sentence = (
        f"{min(taken):.0f} / {statistics.median(taken):.0f} / {max(taken):.0f} ms "
        f"(fastest, median and slowest of {PROBES})"
    )
    if statistics.median(taken) > SLOW_MILLISECONDS:
        return warning("latency", sentence, "the network or the server is slow or overloaded")
    return ok("latency", sentence)


def check_streaming(settings: ServerSettings) -> Finding:
    """Open the live events and see whether their first bytes come at once."""
    slow = failed(
        "streaming",
        f"no byte of a stream arrived within {STREAM_SECONDS:.0f} s",
        "something between collects answers before it passes them on: turn its buffering off "
        "(nginx: proxy_buffering off), or server-sent events will not work for visitors either",
    )
    try:
        with (
            http_client(settings, answer_seconds=STREAM_SECONDS) as http,
            http.stream("GET", "/api/events", headers={"Accept": "text/event-stream"}) as response,
        ):
            if response.status_code != 200:
                check_status(response, read_bounded(response))
            if not next((chunk for chunk in response.iter_bytes() if chunk), b""):
                return failed(
                    "streaming", "a stream ended at once", "look at the log of the server"
                )
    except httpx.ReadTimeout:
        return slow
    except ClientError as error:
        return failed("streaming", str(error), "look at the log of the server")
    except httpx.HTTPError as error:
        return failed("streaming", str(translate(error, settings.url)), "try again")
    return ok("streaming", "streams arrive at once")


def _judge_clock(date: str | None, before: datetime, after: datetime) -> Finding:
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        theirs = None
    if theirs is None or theirs.tzinfo is None:
        return warning("clock", "the server does not tell the time", "nothing, if all else works")
    ours = before + (after - before) / 2
    # The header has whole seconds, so half a second is added on average.
    seconds = abs((ours - theirs.astimezone(UTC)).total_seconds() - 0.5)
    if seconds < CLOCK_WARNING_SECONDS:
        return ok("clock", "the clocks of this machine and of the server agree")
    sentence = f"the clocks of this machine and of the server differ by {seconds:.0f} s"
    remedy = "let both machines follow a time server (NTP)"
    if seconds < CLOCK_FAILURE_SECONDS:
        return warning("clock", sentence, remedy)
    return failed("clock", sentence, remedy)


def _no_clock() -> Finding:
    return skipped("clock", "http")


def _upgrade(route: Route, settings: ServerSettings, key: bytes, token: str) -> bytes:
    host = f"[{route.host}]" if ":" in route.host else route.host
    request = (
        f"GET {CONNECT_PATH} HTTP/1.1\r\n"
        f"Host: {host}:{route.port}\r\n"
        "Connection: Upgrade\r\n"
        "Upgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key.decode()}\r\n"
        f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    with route.connect() as connection:
        if not route.tls:
            return _exchange(connection, request.encode())
        context = client_context(settings.ca_file, insecure=settings.insecure)
        with context.wrap_socket(connection, server_hostname=route.host) as secured:
            return _exchange(secured, request.encode())


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send the request and read the head of the answer, or as much as there is of it."""
    connection.sendall(request)
    deadline = time.monotonic() + STEP_SECONDS
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer within {STEP_SECONDS:.0f} s")
        connection.settimeout(left)
        chunk = connection.recv(4096)
        if not chunk:
            break
        head += chunk
    if head.startswith(b"HTTP/1.1 101"):
        connection.sendall(_CLOSE_FRAME)
    return bytes(head)
