"""Errors of the agent and its command line, classified by what the caller can do about them.

    ClientError
      ConfigError(problems)       settings, files or arguments are wrong: fix them
      ConnectError                the server could not be reached, or went away: try later
      Rejected(status, reason)    the server understood and said no
        NotAuthorised               the token is missing, wrong, or not allowed to do this
        NotFound                    no such object, or not visible with this token
      BadAnswer                   something answered that is not a moleport server

Exit codes do not live here: `cli/exits.py` has the one table.
"""

from collections.abc import Sequence


class ClientError(Exception):
    """Root of every error that the agent and its commands raise on purpose."""


class ConfigError(ClientError):
    """Settings are unusable.

    Attributes:
        problems: one sentence per problem, each of which says what to write instead.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)


class ConnectError(ClientError):
    """The server could not be reached; the same call may work later."""


class Rejected(ClientError):
    """The server answered, and the answer is no.

    Attributes:
        status: the HTTP status.
        reason: the server's own sentence.
        code: the machine-readable code of the answer, when it has one.
    """

    def __init__(self, status: int, reason: str, code: str | None = None) -> None:
        super().__init__(status, reason, code)
        self.status = status
        self.reason = reason
        self.code = code

    def __str__(self) -> str:
        return self.reason


class NotAuthorised(Rejected):
    """The token is missing or unknown, or not allowed to do this."""


class NotFound(Rejected):
    """No such object, or one that this token must not know of."""


class BadAnswer(ClientError):
    """What answered does not speak the API of a moleport server."""
