"""The exit codes of `moleport`, and the one table from errors to them."""

from enum import IntEnum

from moleport_agent.errors import (
    BadAnswer,
    ClientError,
    ConfigError,
    ConnectError,
    NotAuthorised,
    Rejected,
)


class Exit(IntEnum):
    """What the shell gets; scripts rely on these numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_AUTHORISED = 4
    REFUSED = 5
    INTERRUPTED = 130


MEANINGS: dict[Exit, str] = {
    Exit.OK: "worked, or ended cleanly by a signal",
    Exit.FAILED: "failed for another reason",
    Exit.USAGE: "wrong usage or settings",
    Exit.UNREACHABLE: "the server cannot be reached",
    Exit.NOT_AUTHORISED: "the token is missing, unknown or not allowed to do this",
    Exit.REFUSED: "the server refused: name taken, not found, over a limit",
    Exit.INTERRUPTED: "interrupted twice",
}

_TABLE: tuple[tuple[type[ClientError], Exit], ...] = (
    (ConfigError, Exit.USAGE),
    (ConnectError, Exit.UNREACHABLE),
    (NotAuthorised, Exit.NOT_AUTHORISED),
    (Rejected, Exit.REFUSED),
    (BadAnswer, Exit.FAILED),
)


def exit_code(error: ClientError) -> Exit:
    """Find the exit code of an error."""
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return code
    return Exit.FAILED
