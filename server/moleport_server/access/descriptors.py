"""The descriptor budget: visitors are refused in words before the process runs out of file descriptors.

A process without a free descriptor fails where it hurts: it cannot accept, open its database or answer a
health check. So visitors' connections take a permit each, and the budget leaves out what agents, callers
of the API, handshakes and the server itself have or may have. At its end visitors get 503 (HTTP) or a
reset (TCP); nobody meets «too many open files».
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Final

RESERVE: Final = 192
"""Listeners, databases, logs, the event loop, connections that are being refused, and what agents
and callers of the API may gain between two looks at them."""
MOST: Final = 1 << 20
"""More than any server here can use; kernels account for the table of descriptors by its size."""
HANDSHAKES: Final = 4096
"""Connections of visitors in their TLS handshake, if there is room for so many."""


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it.

    The soft limit is low for the sake of old programs that use `select`; servers raise it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return soft  # a sandbox may forbid it
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else soft


class DescriptorBudget:
    """Permits for visitors' connections.

    Args:
        open_files: how many the process may have.
        wished: the operator's own limit for connections; 0: none.
    """

    def __init__(self, open_files: int, *, wished: int = 0) -> None:
        self.handshakes = max(16, min(HANDSHAKES, open_files // 8))
        """Of visitors at the same time; they are left out of the budget."""
        room = max(1, open_files - RESERVE - self.handshakes)
        self.limit = min(room, wished) if wished else room
        """Connections of all kinds."""
        self._visitors = 0
        self._others = 0
        self.count_others: Callable[[], int] = lambda: 0
        """Counts the connections of agents and of callers of the API."""

    @property
    def available(self) -> int:
        """Permits that are left; never negative."""
        return max(0, self.limit - self._visitors - self._others)

    def take(self) -> bool:
        """Take a permit for one visitor; False: refuse it, and do not give back."""
        if self._visitors + self._others >= self.limit:
            return False
        self._visitors += 1
        return True

    def give_back(self) -> None:
        """Give back one permit that was taken."""
        self._visitors -= 1

    def look(self) -> None:
        """Count the others again; called once a second, because counting them costs a little."""
        self._others = self.count_others()
