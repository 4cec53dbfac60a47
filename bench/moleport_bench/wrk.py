"""Load by wrk: requests as fast as the tunnel answers, over a fixed number of connections.

wrk waits for an answer before it sends the next request on a connection, so its latencies tell how
long answers take at full speed, not at a given rate.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from moleport_bench.address import Address
from moleport_bench.errors import LoadError

PATIENCE_SECONDS = 30
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_DURATION = r"([\d.]+)(us|ms|s|m)"


class Load(NamedTuple):
    """What wrk measured."""

    per_second: float
    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    """Answers outside of 2xx and 3xx, and connections that failed or timed out."""


def load(
    address: Address,
    *,
    connections: int,
    seconds: int,
    path: str = "/",
    fields: Sequence[str] = (),
    script: Path | None = None,
) -> Load:
    """Run wrk with one thread.

    Args:
        address: the public side.
        connections: how many at the same time.
        seconds: how long.
        path: what to ask for.
        fields: further lines of the head.
        script: a Lua file that chooses the requests.

    Raises:
        LoadError: wrk failed, or nothing was answered.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    for field in (f"Host: {address.host}", *fields):
        command += ["-H", field]
    if script is not None:
        command += ["-s", str(script)]
    try:
        done = subprocess.run(
            [*command, address.url(path)],
            capture_output=True,
            text=True,
            timeout=seconds + PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"wrk did not end within {seconds + PATIENCE_SECONDS} s") from None
    if done.returncode:
        raise LoadError(f"wrk failed: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout)


def parse(text: str) -> Load:
    """Read wrk's report.

    Raises:
        LoadError: it is none, or nothing was answered.
    """
    requests = int(_find(r"(\d+) requests in", text)[1])
    if not requests:
        raise LoadError("no request was answered")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    return Load(
        per_second=float(_find(r"Requests/sec:\s+([\d.]+)", text)[1]),
        requests=requests,
        p50_ms=_milliseconds(_find(rf"50%\s+{_DURATION}", text)),
        p99_ms=_milliseconds(_find(rf"99%\s+{_DURATION}", text)),
        max_ms=_milliseconds(_find(rf"Latency\s+[\d.]+\w+\s+[\d.]+\w+\s+{_DURATION}", text)),
        errors=(int(refused[1]) if refused else 0)
        + (sum(map(int, broken.groups())) if broken else 0),
    )


def _find(pattern: str, text: str) -> re.Match[str]:
    match = re.search(pattern, text)
    if match is None:
        raise LoadError(f"unexpected output of wrk: {text.strip()[:300]}")
    return match


def _milliseconds(match: re.Match[str]) -> float:
    return float(match[1]) * _UNITS[match[2]]
