"""What machine this is and which versions take part, so that a reader knows what the numbers stand on."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from moleport_bench.installation import DISTRIBUTION, interpreter
from moleport_bench.peers.base import find_program

VERSION_COMMANDS: Mapping[str, Sequence[str]] = {
    "nginx": ("nginx", "-v"),
    "wrk": ("wrk", "-v"),
    "curl": ("curl", "--version"),
    "haproxy": ("haproxy", "-v"),
    "ssh": ("ssh", "-V"),
    "rathole": ("rathole", "--version"),
    "bore": ("bore", "--version"),
    "frps": ("frps", "--version"),
    "chisel": ("chisel", "--version"),
    "piko": ("piko", "--version"),
    "wstunnel": ("wstunnel", "--version"),
}
# Not the seconds of a time: rathole tells when it was built before it tells its version.
_NUMBER = re.compile(r"(?<![\d:.])\d+\.\d+[\w.+:~-]*")
PATIENCE_SECONDS = 10


def describe_machine() -> dict[str, str]:
    """Return what matters for the numbers."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": str(os.cpu_count() or 0),
        "memory": f"{_memory_gibibytes():.0f} GiB",
        "system": _field("/etc/os-release", "PRETTY_NAME", "=").strip('"') or platform.system(),
        "kernel": platform.release(),
        "python": _version(interpreter(), ["--version"])
        + (" of the distribution" if interpreter() == DISTRIBUTION else ""),
    }


def versions(cache: Path) -> dict[str, str]:
    """Return the versions of the programs that are there."""
    found: dict[str, str] = {}
    for name, (command, *flags) in VERSION_COMMANDS.items():
        path = find_program(command, cache)
        if path is not None:
            found[name] = _version(path, flags)
    return found


def _version(path: str, flags: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            [path, *flags], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return first_version(done.stdout + done.stderr)


def first_version(text: str) -> str:
    """Find the first thing in a program's words that looks like a version."""
    match = _NUMBER.search(text)
    return match[0].rstrip(".,") if match else "unknown"


def _field(path: str, name: str, separator: str = ":") -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return ""


def _memory_gibibytes() -> float:
    total = _field("/proc/meminfo", "MemTotal").split()
    return int(total[0]) / (1 << 20) if total else 0.0
