"""What the two generations of hoody-tunnel drivers say first, and what they make of the answer."""

import enum
from typing import Any

from helpers.doubles.events import say
from helpers.doubles.hoody_frames import MAX_PAYLOAD_BYTES
from helpers.doubles.link import Link

DEFAULT_STREAM_WINDOW = 1_048_576
DEFAULT_SESSION_WINDOW = 16_777_216


class Generation(enum.StrEnum):
    """Which of the two drivers."""

    OLD = "old"
    """beta.1 to beta.12."""
    NEW = "new"
    """The newest that was read."""


class Refused(Exception):
    """No session came of it; `code` is how the driver calls the reason."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def hello_fields(
    version: str, sockets: int, token: str | None, resume: str | None
) -> dict[str, object]:
    """Return what HELLO says; `token` is the old driver's credential."""
    fields: dict[str, object] = {"version": version}
    if token is not None:
        fields["auth"] = {"kind": "bearer", "token": token}
    fields["capabilities"] = ["multi-ws"] if sockets > 1 else []
    if sockets > 1:
        fields["maxConnections"] = sockets
    if resume is not None:
        fields["resume"] = {"sessionId": resume}
    return fields


def window_of(answer: dict[str, Any], name: str, default: int) -> int:
    """Return a window of HELLO_OK as the drivers check it.

    Raises:
        Refused: It is no positive number; absent means the default.
    """
    value = answer.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise Refused("BAD_HELLO_OK", f"{name} is {value!r}")
    if value < MAX_PAYLOAD_BYTES:
        say("violation", text=f"{name} of {value} never lets a full frame through")
    return int(value)


def refusal(
    generation: Generation, link: Link, goaway: dict[str, Any] | None, *, is_resuming: bool
) -> Refused:
    """Return how a driver reports an end before HELLO_OK; the old one cannot tell."""
    if generation is Generation.OLD:
        return Refused("CLOSED", "closed before HELLO_OK")
    if goaway is not None:
        message = str(goaway.get("message", ""))
        if goaway.get("code") == 14:
            return Refused("SESSION_LIMIT", message)
        if "resume expired" in message or "resume grace expired" in message:
            return Refused("RESUME_EXPIRED", message)
        return Refused("REFUSED", message)
    if link.close_code == 1013 and "session limit" in link.close_reason:
        return Refused("SESSION_LIMIT", link.close_reason)
    if link.close_code == 1008 and is_resuming:
        return Refused("RESUME_EXPIRED", link.close_reason)
    if link.close_reason:
        return Refused("REFUSED", link.close_reason)
    return Refused("CLOSED_BEFORE_HELLO", "there may be a session limit")
