"""Keep what bulk transfers free instead of giving it back to the kernel at once.

glibc gives the end of its heap back as soon as 128 KiB of it are free. Each read and each message of a bulk
transfer allocates about as much and frees it again, so every one of them grew and shrank the heap, and
touched fresh pages, which showed as a fifth of the CPU time of a transfer. glibc moves both of its limits
by itself once a larger block was freed; so one is.
"""

from typing import Final

KEPT_BYTES: Final = 2 * 1024 * 1024
"""Twice as much stays in the process, after whatever needed it once."""


def keep_freed_memory() -> None:
    """Raise what this process keeps; call it once, before the first transfer."""
    block = bytes(KEPT_BYTES)  # zero pages that nobody touches
    del block
