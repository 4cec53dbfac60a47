"""Bulk transfers by curl: one process, which copies nothing to disk."""

import json
import subprocess
import time
from pathlib import Path

from moleport_bench.address import Address
from moleport_bench.errors import LoadError

PATIENCE_SECONDS = 90
MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20


def download(address: Address, path: str, *, expected: int, streams: int = 1) -> float:
    """Fetch a file over so many connections at the same time.

    Args:
        address: the public side.
        path: of the file.
        expected: bytes of one file; less is an error, because truncation would look fast.
        streams: how many connections.

    Returns:
        Megabytes (10^6) per second, all streams together.

    Raises:
        LoadError: curl failed, or not everything came.
    """
    each = ["-o", "/dev/null", address.url(path)] * streams
    parallel = ["--parallel", "--parallel-immediate", "--parallel-max", str(streams)]
    return _transfer(
        address, [*(parallel if streams > 1 else ()), *each], "size_download", expected
    )


def upload(address: Address, path: str, file: Path) -> float:
    """Send a file by PUT.

    Returns:
        Megabytes (10^6) per second.

    Raises:
        LoadError: curl failed, or not everything went.
    """
    words = ["-H", "Expect:", "-T", str(file), "-o", "/dev/null", address.url(path)]
    return _transfer(address, words, "size_upload", file.stat().st_size)


def _curl(address: Address) -> list[str]:
    return ["curl", "-sSk", "--http1.1", "-H", f"Host: {address.host}"]


def _transfer(address: Address, words: list[str], counter: str, expected: int) -> float:
    command = [*_curl(address), "-w", "%{json}\n", *words]
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"the transfer took longer than {PATIENCE_SECONDS} s") from None
    seconds = time.perf_counter() - began
    if done.returncode:
        raise LoadError(f"curl failed ({done.returncode}): {done.stderr.strip()[:200]}")
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    statuses = {report["http_code"] for report in reports}
    if statuses != {200}:
        raise LoadError(f"curl got status {', '.join(map(str, sorted(statuses))) or 'none'}")
    total = 0
    for report in reports:
        if report[counter] != expected:
            raise LoadError(f"{report[counter]} of {expected} bytes were transferred")
        total += report[counter]
    return float(total / seconds / MEGABYTE)
