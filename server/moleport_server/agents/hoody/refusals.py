"""The one table from server errors to what an agent is told: BIND_ERR codes and GOAWAY codes."""

from typing import Final

from moleport_server.errors import (
    ConflictError,
    Forbidden,
    InvalidRequest,
    PortPrivileged,
    PortReserved,
    PortTaken,
    QuotaExceeded,
    RateLimited,
    ServerError,
    Unauthenticated,
)
from moleport_wire.hoody.frames import Code


class InvalidKind(InvalidRequest):
    """Another pair of kind and mode than HTTP EXPOSE and TCP PULL, or a takeover of a PULL."""


class InvalidHost(InvalidRequest):
    """A PULL somewhere else than on loopback."""


_BIND_CODES: Final[tuple[tuple[type[ServerError], str, bool], ...]] = (
    (PortPrivileged, "PRIVILEGED_PORT", True),
    (Forbidden, "FORBIDDEN", True),
    (InvalidKind, "INVALID_KIND", True),
    (InvalidHost, "INVALID_HOST", True),
    (PortReserved, "RESERVED_PORT", True),
    (InvalidRequest, "INVALID_REQUEST", True),
    (PortTaken, "PORT_IN_USE", False),
    (ConflictError, "ALREADY_BOUND", False),
    (QuotaExceeded, "BIND_CAP_EXCEEDED", False),
    (ServerError, "INTERNAL", False),
)

_GOAWAY_CODES: Final[tuple[tuple[type[ServerError], Code, int], ...]] = (
    (Unauthenticated, Code.AUTH, 1008),
    (Forbidden, Code.AUTH, 1008),
    (RateLimited, Code.CALM_DOWN, 1013),
    (QuotaExceeded, Code.EXHAUSTED, 1013),
    (ServerError, Code.INTERNAL, 1011),
)


def bind_refusal(error: ServerError) -> tuple[str, bool]:
    """Return the BIND_ERR code of an error, and whether asking again is pointless."""
    return next((code, final) for kind, code, final in _BIND_CODES if isinstance(error, kind))


def session_refusal(error: ServerError) -> tuple[Code, int]:
    """Return the GOAWAY code and the WebSocket close code of an error."""
    return next((code, close) for kind, code, close in _GOAWAY_CODES if isinstance(error, kind))
