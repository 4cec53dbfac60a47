"""moleport beside nginx: requests per second and CPU, in interleaved rounds on this machine.

    python bench/beside_nginx.py [--rounds 3] [--seconds 6] [--connections 64]

A small nginx is the local service; another nginx in front of it is the yardstick (one hop, keep-alive
upstream, two workers). moleport runs as its users run it: TLS on the agent leg, capture and metrics on.
Everything shares this machine and talks over loopback, load comes from wrk. Absolute numbers move with
the machine, so compare the ratio of one run, and the CPU seconds of server and agent together.

Needs nginx and wrk (`apt-get install nginx-light wrk`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

START_SECONDS = 20.0
HOST = "bench.localhost"

ORIGIN = """
worker_processes 1; daemon off; pid {dir}/origin.pid; error_log {dir}/origin.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  server {{ listen 127.0.0.1:{origin} backlog=4096; location / {{ return 200 "{answer}"; }} }} }}
"""
HOP = """
worker_processes 2; daemon off; pid {dir}/hop.pid; error_log {dir}/hop.log;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{hop} backlog=4096; location / {{ proxy_pass http://origin;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr; }} }} }}
"""


class Load(NamedTuple):
    """What wrk measured."""

    per_second: float
    requests: int
    p50_ms: float
    p99_ms: float
    errors: int


class Round(NamedTuple):
    """Both sides of one round."""

    nginx: Load
    moleport: Load
    server_cpu: float
    """Seconds per 100,000 requests; the same for the agent."""
    agent_cpu: float


def main() -> None:
    """Run all rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    missing = [tool for tool in ("nginx", "wrk") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} missing; for example: apt-get install nginx-light wrk")
    with tempfile.TemporaryDirectory(prefix="moleport-bench-") as name, contextlib.ExitStack() as s:
        rounds = run(Path(name), s, options)
    show(rounds)


def run(directory: Path, stack: contextlib.ExitStack, options: argparse.Namespace) -> list[Round]:
    """Start everything and measure."""
    origin, hop = free_port(), free_port()
    base = free_base()
    texts = {"dir": directory, "origin": origin, "hop": hop, "answer": "0123456789" * 10}
    for name, text in (("origin", ORIGIN), ("hop", HOP)):
        config = directory / f"{name}.conf"
        config.write_text(text.format(**texts))
        stack.enter_context(process(["nginx", "-p", str(directory), "-c", str(config)], directory))
    bin_dir = Path(sys.executable).parent
    server = stack.enter_context(
        process(
            [
                bin_dir / "moleport-server",
                *("dev", "--data-dir", directory / "data", "--port-base", base),
            ],
            directory,
        )
    )
    wait_for(lambda: get(f"http://127.0.0.1:{base + 4}/readyz") == 200, "the server")
    agent = stack.enter_context(
        process([bin_dir / "moleport", "http", str(origin), "--name", "bench"], directory)
    )
    wait_for(lambda: get(f"http://127.0.0.1:{base}/", HOST) == 200, "the tunnel")
    wait_for(lambda: get(f"http://127.0.0.1:{hop}/") == 200, "nginx")
    print(f"idle: server {resident(server):.0f} MiB, agent {resident(agent):.0f} MiB resident")
    load(f"http://127.0.0.1:{base}/", 1, options.connections)  # warm-up
    rounds = []
    for number in range(options.rounds):
        nginx = load(f"http://127.0.0.1:{hop}/", options.seconds, options.connections)
        before = cpu(server), cpu(agent)
        mole = load(f"http://127.0.0.1:{base}/", options.seconds, options.connections)
        spent = [now - then for now, then in zip((cpu(server), cpu(agent)), before, strict=True)]
        result = Round(nginx, mole, *(seconds / mole.requests * 100_000 for seconds in spent))
        print(
            f"round {number + 1}: nginx {nginx.per_second:,.0f}/s, moleport {mole.per_second:,.0f}/s, "
            f"ratio {mole.per_second / nginx.per_second:.2f}, p99 {mole.p99_ms:.1f} ms, "
            f"CPU per 100k {result.server_cpu:.2f} + {result.agent_cpu:.2f} s, errors {mole.errors}",
            flush=True,
        )
        rounds.append(result)
    one = load(f"http://127.0.0.1:{base}/", 2, 1)
    print(
        f"one connection: {one.per_second:,.0f}/s, p50 {one.p50_ms:.3f} ms, p99 {one.p99_ms:.2f} ms"
    )
    print(
        f"after load: server {resident(server):.0f} MiB, agent {resident(agent):.0f} MiB resident"
    )
    return rounds


def show(rounds: list[Round]) -> None:
    """Print medians with their ranges."""

    def line(name: str, pick: Callable[[Round], float], form: str) -> None:
        values = [pick(one) for one in rounds]
        middle, low, high = (format(f(values), form) for f in (statistics.median, min, max))
        print(f"  {name:<34} {middle:>9}  ({low}-{high})")

    print("median (range)")
    line("nginx one hop, requests/s", lambda r: r.nginx.per_second, ",.0f")
    line("moleport, requests/s", lambda r: r.moleport.per_second, ",.0f")
    line("moleport / nginx", lambda r: r.moleport.per_second / r.nginx.per_second, ".2f")
    line("CPU seconds per 100k, server", lambda r: r.server_cpu, ".2f")
    line("CPU seconds per 100k, agent", lambda r: r.agent_cpu, ".2f")
    line("CPU seconds per 100k, both", lambda r: r.server_cpu + r.agent_cpu, ".2f")


def load(url: str, seconds: int, connections: int) -> Load:
    """Run wrk."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Host: {HOST}", url]
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=seconds + 30
    ).stdout
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sockets = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text
    )
    errors = (int(bad[1]) if bad else 0) + sum(map(int, sockets.groups()) if sockets else [])
    return Load(
        per_second=float(find(r"Requests/sec:\s+([\d.]+)", text)[1]),
        requests=int(find(r"(\d+) requests in", text)[1]),
        p50_ms=milliseconds(find(r"50%\s+([\d.]+)(us|ms|s)", text)),
        p99_ms=milliseconds(find(r"99%\s+([\d.]+)(us|ms|s)", text)),
        errors=errors,
    )


def find(pattern: str, text: str) -> re.Match[str]:
    """Return the match, or end: wrk prints something else than expected."""
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"unexpected output of wrk:\n{text}")
    return match


def milliseconds(match: re.Match[str]) -> float:
    """Return wrk's duration in milliseconds."""
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def cpu(running: subprocess.Popen[bytes]) -> float:
    """Return user and system seconds of a process so far."""
    fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(running: subprocess.Popen[bytes]) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{running.pid}/status").read_text()
    return int(find(r"VmRSS:\s+(\d+)", status)[1]) / 1024


@contextlib.contextmanager
def process(command: list[object], directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process as long as the block; its output goes to a file in the directory."""
    words = [str(word) for word in command]
    with (directory / f"{Path(words[0]).name}-{time.monotonic_ns()}.log").open("wb") as log:
        running = subprocess.Popen(
            words,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"MOLEPORT_CONFIG_DIR": str(directory / "config")},
        )
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def wait_for(is_there: Callable[[], bool], what: str) -> None:
    """Wait until something answers."""
    deadline = time.monotonic() + START_SECONDS
    while not is_there():
        if time.monotonic() > deadline:
            sys.exit(f"{what} did not start in {START_SECONDS:g} s")
        time.sleep(0.05)


def get(url: str, host: str = "localhost") -> int:
    """Return the status of a GET, 0 without an answer."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers={"Host": host}), timeout=2
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except OSError:
        return 0


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def free_base() -> int:
    """Return a port base whose listeners are free now."""
    for base in range(21000, 60000, 250):
        with contextlib.ExitStack() as stack:
            try:
                for port in (*range(base, base + 5), base + 100):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    sys.exit("no free ports")


if __name__ == "__main__":
    main()
