"""Why streams died under visitors, in the few words that metrics use."""

from typing import Final

from moleport_wire.hoody.frames import Code

_REASONS: Final[dict[int, str]] = {
    Code.PROTOCOL_ERROR: "protocol",
    Code.STREAM_CLOSED: "session_lost",
    Code.REFUSED: "refused",
    Code.CANCEL: "cancel",
    Code.CALM_DOWN: "calm_down",
    Code.IDLE_TIMEOUT: "idle_timeout",
    Code.TAKEOVER: "takeover",
}


def stream_error_reason(code: int) -> str:
    """Return the bounded label of a reset code."""
    return _REASONS.get(code, "other")
