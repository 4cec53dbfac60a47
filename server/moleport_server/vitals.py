"""What the process uses now: memory and descriptors, for health calls."""

import os
import resource
import sys
from pathlib import Path

from moleport_server.api.ports import Vitals

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")


def read_vitals() -> Vitals:
    """Read them; costs some microseconds per open descriptor."""
    try:
        pages = [int(number) for number in _STATM.read_text().split()]
        page_bytes = resource.getpagesize()
        # The fifth number is data and stack: what a language calls its heap.
        resident, heap = pages[1] * page_bytes, pages[5] * page_bytes
        descriptors: int | None = sum(1 for _ in _DESCRIPTORS.iterdir())
    except OSError:  # not Linux
        unit = 1 if sys.platform == "darwin" else 1024
        resident = heap = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        descriptors = None
    return Vitals(
        pid=os.getpid(), heap_bytes=heap, resident_bytes=resident, descriptors=descriptors
    )
