"""The audit log: who logged in, which tunnels came and went, which tokens were made and deleted.

One JSON object per line, appended to a file that is opened for each batch, so that it may be rotated by
renaming. Event names and keys are those of rustunnel servers, whose logs people already read by machine;
`token_id` is the id of the token and never its secret.

Recording never waits: a bounded queue, one writer. What does not fit is dropped and counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from moleport_server.clock import Clock

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 512
"""Lines that wait for the disk; some hundred bytes each."""
FILE_MODE: Final = 0o600
"""Addresses and names of tunnels are nobody else's business."""


class AuditLog:
    """Collects events for a file; records nothing without one.

    The owner runs `run` and calls `flush` at the end.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._queue: deque[str] = deque()
        self._ready = asyncio.Event()
        self.dropped = 0
        """Events that were not written, because the disk was too slow or failed."""

    def auth_attempt(self, peer: str, *, success: bool, token_id: str | None = None) -> None:
        """Note a login of a client; `token_id` is None for the admin and for failures."""
        keys: dict[str, Any] = {"peer": peer, "success": success}
        if success:
            keys["token_id"] = token_id
        self._record("auth_attempt", keys)

    def tunnel_registered(
        self, *, session_id: str, tunnel_id: str, protocol: str, label: str
    ) -> None:
        """Note a tunnel that a client was given."""
        self._record(
            "tunnel_registered",
            {
                "session_id": session_id,
                "tunnel_id": tunnel_id,
                "protocol": protocol,
                "label": label,
            },
        )

    def tunnel_removed(self, *, tunnel_id: str, label: str) -> None:
        """Note a tunnel that its client gave back."""
        self._record("tunnel_removed", {"tunnel_id": tunnel_id, "label": label})

    def token_created(self, *, token_id: str, label: str, admin: bool) -> None:
        """Note a new token; `admin`: whether the admin made it."""
        self._record("token_created", {"token_id": token_id, "label": label, "admin": admin})

    def token_deleted(self, *, token_id: str, admin: bool) -> None:
        """Note a token that was deleted."""
        self._record("token_deleted", {"token_id": token_id, "admin": admin})

    async def run(self) -> None:
        """Write until cancelled; what is queued then is for `flush`."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what is queued; blocks for the disk. A failure is logged, and the lines are lost."""
        lines = []
        while self._queue:
            lines.append(self._queue.popleft())
        if not lines or self._path is None:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, FILE_MODE)
            with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor
                file.writelines(lines)
        except OSError as error:
            self.dropped += len(lines)
            logger.warning(
                "audit log cannot be written",
                extra={"path": str(self._path), "error": str(error), "events": len(lines)},
            )

    def _record(self, event: str, keys: dict[str, Any]) -> None:
        if self._path is None:
            return
        if len(self._queue) >= MAX_QUEUED:
            self.dropped += 1
            return
        moment = datetime.fromtimestamp(self._clock.now(), UTC).isoformat()
        line = json.dumps({"ts": moment, "event": event, **keys}, ensure_ascii=False)
        self._queue.append(f"{line}\n")
        self._ready.set()
