"""Errors of the operator, classified by what a reconcile can do about them.

    OperatorError
      ConfigError(problems)          settings, files or rights are wrong: fix them and start again
      InvalidResource(reason)        an object that only its author can repair: say so and wait
      Conflict                       somebody was faster: read again, then decide again
      Denied                         the API server does not let us: rights are missing
      Rejected(code, message)        the tunnel server understood and said no; a retry changes nothing
        ForeignOwner                   the id belongs to somebody else: never touch it
      Unavailable(retry_after)       nobody answered, or said «later»: back off
        ServerUnavailable              … the tunnel server
        ClusterUnavailable             … the API server

How long to wait is not decided here: `controller.py` has the one table.
"""

from __future__ import annotations

from collections.abc import Sequence


class OperatorError(Exception):
    """Root of every error that the operator raises on purpose."""


class ConfigError(OperatorError):
    """The operator cannot start.

    Attributes:
        problems: one sentence per problem, each of which says what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class InvalidResource(OperatorError):
    """A resource passed the schema and still makes no sense; the text is for its author."""


class Conflict(OperatorError):
    """What was decided on is not there any more: observe again."""


class Denied(OperatorError):
    """The API server refuses the call for lack of rights; the text names the call."""


class Rejected(OperatorError):
    """The tunnel server says no, and will say so again.

    Attributes:
        code: the machine-readable code of the answer, or its status as text.
        message: the server's own sentence.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class ForeignOwner(Rejected):
    """An object of this id exists and belongs to another cluster or another resource."""


class Unavailable(OperatorError):
    """No answer, or the advice to come back later.

    Attributes:
        retry_after: seconds to wait at least, or None when nobody said.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerUnavailable(Unavailable):
    """The tunnel server does not answer, or does not accept our credential."""


class ClusterUnavailable(Unavailable):
    """The API server does not answer."""
