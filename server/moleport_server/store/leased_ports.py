"""Which TCP ports the last run gave out: read at once, so that they listen while the server starts.

A look without a lock and without the checks of `open`, at a file that may be damaged, of another
release, or in use by another server. It only says what is worth listening on early; what a lease
really is, restoration finds out, and whoever opens the store tells what is wrong with it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from moleport_server.store.schema import connect_for_reading

MOST_PORTS: Final = 500
"""Each takes a descriptor, and a process begins with 1024 on most systems; the start raises that."""


def leased_ports(path: Path) -> list[int]:
    """Return the ports of leased TCP tunnels in the state at `path`, none if it cannot tell."""
    try:
        if not path.stat().st_size:
            return []
        with closing(connect_for_reading(path)) as connection:
            # Container ports begin with a colon; where they listen is not for this file to say.
            rows = connection.execute(
                "SELECT CAST(address AS INTEGER) FROM leases"
                " WHERE protocol = 'tcp' AND address NOT GLOB '*[^0-9]*' LIMIT ?",
                [MOST_PORTS],
            ).fetchall()
    except (sqlite3.Error, OSError):
        return []
    return [port for (port,) in rows if 0 < port < 65_536]
