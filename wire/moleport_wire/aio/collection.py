"""Garbage collection for a process that serves: rare, and never over what was there at the start.

Reference counting frees what requests leave behind; the cyclic collector finds only the few cycles of
closed connections. By default it runs after every 700 new containers and now and then walks through
every module and class, which shows as pauses of tens of milliseconds.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""New containers before the youngest generation is looked at: some ten MiB at most."""


@contextmanager
def postponed() -> Iterator[None]:
    """Collect nothing until the process settles: what a start makes stays, and is walked in vain."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def settle() -> None:
    """Call once, when everything is built; takes some tens of milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    gc.enable()
