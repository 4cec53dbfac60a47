"""What Linux tells about processes: CPU time and resident memory of a process and all below it.

CPU time counts in ticks of 10 ms and leaves out what the kernel does for the network on nobody's
account; memory is RSS, so pages that forked processes share count once for each of them.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_ESTABLISHED, _LISTEN = "01", "0A"
"""States in /proc/net/tcp."""


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that matter here."""

    parent: int
    ticks: int
    """User and system time of the process and of its children that have ended."""
    started: int
    """Tells a process from a later one with the same id."""


def parse_stat(text: str) -> Stat:
    """Read /proc/PID/stat; the program's name may hold spaces and parentheses."""
    fields = text.rpartition(")")[2].split()
    return Stat(parent=int(fields[1]), ticks=sum(map(int, fields[11:15])), started=int(fields[19]))


def tree(root: int) -> list[int]:
    """Return a process and everything that it started, parents first."""
    children: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := stat_of(int(entry.name))) is not None:
            children[stat.parent].append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children[pid])
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of processes; one that is gone counts nothing."""
    stats = (stat_of(pid) for pid in pids)
    return sum(stat.ticks for stat in stats if stat is not None) / TICKS_PER_SECOND


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of processes; one that is gone counts nothing."""
    return sum(_resident(pid) for pid in pids)


def is_listening(port: int, table: str | None = None) -> bool:
    """Tell whether somebody listens on a port, without connecting to it.

    Args:
        port: the local port.
        table: contents of /proc/net/tcp; None: read it.
    """
    return _count(port, _LISTEN, table) > 0


def established(port: int, table: str | None = None) -> int:
    """Count the connections of a local port, seen from the listening side; see `is_listening`."""
    return _count(port, _ESTABLISHED, table)


def _count(port: int, state: str, table: str | None) -> int:
    text = Path("/proc/net/tcp").read_text(encoding="ascii") if table is None else table
    suffix = f":{port:04X}"
    rows = (line.split() for line in text.splitlines()[1:])
    return sum(row[1].endswith(suffix) and row[3] == state for row in rows)


def stat_of(pid: int) -> Stat | None:
    """Return what is known of a process, None when it is gone."""
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
