"""The ports of the store: what the rest of the server may ask of durable memory.

Declared here, on the side of the users; `memory` and `sqlite` implement them and both pass one
conformance suite. Every method may raise `StoreError`; `StoreFull` means that nothing was written.
Every method is one transaction: cancelled or failed, it took place wholly or not at all.
No method is called per request: counters live in memory and come in batches.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Token
from moleport_server.domain.tunnel import TunnelProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A token together with what listings tell about it."""

    token: Token
    credentials: tuple[Credential, ...]
    """Ascending by revision."""
    tunnel_count: int
    """How many tunnels were ever registered with it."""


class TokenStore(Protocol):
    """Tokens and their credential slots."""

    async def create_token(self, token: Token, credential: Credential | None = None) -> None:
        """Store a new token with its first credential, if there is one yet; both or neither.

        Raises:
            ConflictError: the id or the digest of the credential exists already.
            NotFoundError: it names a policy that does not exist.
        """
        ...

    async def replace_token(self, token: Token, *, version: int) -> bool:
        """Replace what is wished of a token if it still has this version; the caller reads it anew.

        Keeps `created_at`, `last_used_at` and the credentials. False: it changed meanwhile, or
        there is none.

        Raises:
            NotFoundError: it names a policy that does not exist.
        """
        ...

    async def list_tokens(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        owner_cluster: str | None = None,
    ) -> list[TokenRow]:
        """Return tokens, newest first (ties by id), those behind the token id `after` only.

        With `owner_cluster` those that the operator of this cluster owns.

        Raises:
            InvalidRequest: there is no token `after` (any more), so its place is unknown.
        """
        ...

    async def get_token(self, token_id: str) -> TokenRow | None:
        """Return one token, or None if there is none."""
        ...

    async def find_credential(self, sha256: str) -> tuple[Token, Credential] | None:
        """Return the token and the slot that hold this digest, or None."""
        ...

    async def delete_token(self, token_id: str) -> bool:
        """Delete a token, its credentials, leases and sessions; False if it was unknown.

        Rows of the tunnel log stay, with `token_id` and `token_label` None.
        """
        ...

    async def put_credential(self, credential: Credential) -> bool:
        """Fill a revision slot and return whether it was empty before.

        The same digest again changes `not_after` alone, another one is a new secret, never used.

        Raises:
            NotFoundError: there is no such token.
            ConflictError: another slot, of whatever token, has this digest.
        """
        ...

    async def delete_credential(self, token_id: str, revision: int) -> bool:
        """Empty a revision slot; False if it was empty."""
        ...

    async def touch_credentials(self, used_at: dict[tuple[str, int], float]) -> None:
        """Record when credentials (token id, revision) were last used; unknown ones are ignored.

        Never moves a time backwards; `last_used_at` of the token is the latest of its slots.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """A policy together with what listings tell about it."""

    policy: Policy
    attached_tokens: int
    """How many tokens name it."""


class PolicyStore(Protocol):
    """Policies; tokens name them by id, and may not name one that does not exist."""

    async def create_policy(self, policy: Policy) -> None:
        """Store a new policy.

        Raises:
            ConflictError: the id exists already.
        """
        ...

    async def replace_policy(self, policy: Policy, *, version: int) -> bool:
        """Replace a policy if it still has this version; False: it changed meanwhile, or is gone."""
        ...

    async def find_policies(self, ids: Collection[str]) -> list[Policy]:
        """Return those policies of some ids that exist, without counting who names them.

        Every login and every view of a token asks this; what it costs must not grow with other tokens.
        """
        ...

    async def list_policies(
        self, *, ids: Collection[str] | None = None, owner_cluster: str | None = None
    ) -> list[PolicyRow]:
        """Return policies by id: all, or those of `ids` that exist, or those of a cluster."""
        ...

    async def delete_policy(self, policy_id: str) -> bool:
        """Delete a policy; False if it was unknown.

        Raises:
            ConflictError: a token names it; without it the token would be allowed more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """An address kept for a token; every live binding has one as well, so that a crash keeps it."""

    tunnel_id: str
    protocol: TunnelProtocol
    address: str
    """Host name in lower case, or the port as decimal text; unique per protocol."""
    token_id: str | None
    """None: the admin's."""
    session_id: str
    bind_id: int
    settings: str
    """JSON of what the agent asked for (visitor rules, host header); opaque here."""
    opened_at: float
    until: float | None
    """Unix seconds when an absent agent loses it; None while its session is live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session that may be resumed."""

    id: str
    token_id: str | None
    protocol: str
    opened_at: float


class LeaseStore(Protocol):
    """Addresses and sessions, written on claim, park and release."""

    async def save_lease(self, lease: Lease) -> None:
        """Insert the lease, or replace the one of the same protocol and address.

        Raises:
            NotFoundError: its token was deleted; the address must not be kept.
        """
        ...

    async def delete_leases(self, tunnel_ids: Sequence[str]) -> None:
        """Forget these; unknown ids are ignored."""
        ...

    async def park_leases(self, session_id: str, until: float) -> None:
        """Set `until` on all leases of a session, in one transaction."""
        ...

    async def load_leases(self) -> list[Lease]:
        """Return every lease; for the start of the server."""
        ...

    async def save_session(self, session: StoredSession) -> None:
        """Insert or replace a session.

        Raises:
            NotFoundError: its token was deleted; the session must not be resumable.
        """
        ...

    async def delete_session(self, session_id: str) -> None:
        """Forget a session; its leases stay. Unknown ids are ignored."""
        ...

    async def load_sessions(self) -> list[StoredSession]:
        """Return every session; for the start of the server."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelLogEntry:
    """One row of the history: from registration to the end of a tunnel."""

    id: str
    tunnel_id: str
    protocol: str
    label: str
    session_id: str
    token_id: str | None
    token_label: str | None
    registered_at: float
    unregistered_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryQuery:
    """Filters, order and page of the history; a negative limit or offset counts as 0."""

    limit: int = 50
    offset: int = 0
    protocol: str | None = None
    token_id: str | None = None
    active: bool | None = None
    sort_by: str = "started"
    """`started`, `duration` (open rows count until `now`) or `protocol`; else like `started`.
    Equal durations and protocols: newest first, then by id."""
    ascending: bool = False
    now: float


class TunnelLogStore(Protocol):
    """The history of tunnels."""

    async def add_log_entry(self, entry: TunnelLogEntry) -> None:
        """Insert a row; `token_label` is read from the token when listed, not stored twice.

        A token that was deleted meanwhile counts as None.

        Raises:
            ConflictError: a row with this id exists.
        """
        ...

    async def close_log_entries(self, tunnel_ids: Sequence[str], at: float) -> None:
        """Set the end of the open rows of these tunnels."""
        ...

    async def query_history(self, query: HistoryQuery) -> tuple[list[TunnelLogEntry], int]:
        """Return a page (newest first by default, ties by id) and the number of matching rows."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureRow:
    """One captured request as it is stored: heads masked, bodies only if asked for."""

    id: str
    tunnel_id: str
    token_id: str | None
    connection_id: str
    method: str
    path: str
    """With query, secrets masked."""
    status: int
    request_bytes: int
    response_bytes: int
    duration_ms: int
    captured_at: float
    request_head: str
    response_head: str
    request_body: str | None
    response_body: str | None


class CaptureStore(Protocol):
    """Captures behind the ring buffers; a database of its own, losable."""

    async def add_captures(self, rows: Sequence[CaptureRow]) -> None:
        """Insert a batch in one transaction; the oldest rows go when the size cap is reached.

        Rows that exist are replaced, so a batch whose fate is unknown may be sent again.
        """
        ...

    async def list_captures(self, tunnel_id: str, *, limit: int) -> list[CaptureRow]:
        """Return the newest `limit` rows of a tunnel, newest first."""
        ...

    async def get_capture(self, capture_id: str) -> CaptureRow | None:
        """Return one row, or None."""
        ...


class StateStore(TokenStore, PolicyStore, LeaseStore, TunnelLogStore, Protocol):
    """What `state.db` holds, as one collaborator."""

    async def instance_id(self) -> str:
        """Return the id (UUID text) made when the database was; a new database has a new one."""
        ...

    async def aclose(self) -> None:
        """Flush and close; idempotent."""
        ...
