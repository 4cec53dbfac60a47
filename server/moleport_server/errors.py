"""Errors of the tunnel server, classified by what the handler can do about them.

    ServerError
      ConfigError                 settings or files are wrong; lists every problem
      AccessError
        Unauthenticated           no credential, or one that proves nothing
        Forbidden(reason)         proved, but not allowed
          PortPrivileged          nobody may, whatever the token says
      LimitError
        RateLimited(retry_after)  come back later
        QuotaExceeded             give something up first
      ConflictError               the name or port belongs to somebody else
        NameTaken, PortTaken
      InvalidRequest              the caller has to change the request
        PortReserved              the server needs that port itself
      NotFoundError               no such object, or not visible to the caller
      UnavailableError            nobody behind the address right now
        NoSession, UpstreamRefused, UpstreamLost, UpstreamBusy
      StoreError                  the durable side failed
        StoreFull, StoreTooNew, StoreCorrupt, StoreLocked

Statuses, wire codes and exit codes do not live here: each boundary has one table.
"""


class ServerError(Exception):
    """Root of every error that the server raises on purpose."""


class ConfigError(ServerError):
    """Settings are unusable.

    Attributes:
        problems: one sentence per problem, each starting with the path of its key.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems)


class AccessError(ServerError):
    """The caller may not do this."""


class Unauthenticated(AccessError):
    """The credential is missing (`missing=True`) or proves nothing."""

    def __init__(self, reason: str = "invalid token", *, missing: bool = False) -> None:
        super().__init__(reason)
        self.missing = missing


class Forbidden(AccessError):
    """The caller is known, and this is outside of what it was granted."""


class PortPrivileged(Forbidden):
    """A port of the system, below 1024."""


class LimitError(ServerError):
    """Something is over its limit."""


class RateLimited(LimitError):
    """Too fast; `retry_after` tells in how many seconds it may work."""

    def __init__(self, reason: str, retry_after: float) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class QuotaExceeded(LimitError):
    """Too many exist already."""


class ConflictError(ServerError):
    """The address belongs to somebody else."""


class NameTaken(ConflictError):
    """The host name is bound or leased to another token, or to a live session."""


class PortTaken(ConflictError):
    """The port is bound or leased to another token, outside the range, or none is free."""


class InvalidRequest(ServerError):
    """The request makes no sense as it is; the text says what to change."""


class PortReserved(InvalidRequest):
    """The server uses the port itself, or may do so at any time."""


class NotFoundError(ServerError):
    """No such object, or one that the caller must not know of."""


class UnavailableError(ServerError):
    """Nobody can serve this address now."""


class NoSession(UnavailableError):
    """The agent is away."""


class UpstreamRefused(UnavailableError):
    """The local service refused the connection."""


class UpstreamLost(UnavailableError):
    """The stream died before it was done."""


class UpstreamBusy(UnavailableError):
    """No stream could be opened: a stream or memory cap is reached."""


class StoreError(ServerError):
    """The durable side failed."""


class StoreFull(StoreError):
    """The disk is full; nothing was written."""


class StoreTooNew(StoreError):
    """The database was written by a newer release; it was left untouched."""


class StoreCorrupt(StoreError):
    """The database file is damaged; it was left untouched."""


class StoreLocked(StoreError):
    """Another server uses this data directory."""
