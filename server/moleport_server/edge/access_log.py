"""The access log: one line per request, off unless asked for.

Its logger is configured by `logs` with a format of its own; the path is masked like every output.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from moleport_server.capture.masking import mask_target

if TYPE_CHECKING:
    from moleport_server.edge.exchange import Exchange


class AccessLog:
    """Writes finished exchanges."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def log(self, exchange: Exchange, seconds: float) -> None:
        """Write one line."""
        tunnel = exchange.tunnel
        self._logger.info(
            "request",
            extra={
                "peer": exchange.connection.peer,
                "host": exchange.hostname,
                "method": exchange.method.decode("latin-1"),
                "path": mask_target(exchange.target),
                "status": exchange.status,
                "request_bytes": exchange.request_bytes,
                "response_bytes": exchange.response_bytes,
                "duration_ms": round(seconds * 1000, 3),
                "request_id": (exchange.request_id or b"").decode("latin-1"),
                "tunnel": "" if tunnel is None else str(tunnel.id),
            },
        )
