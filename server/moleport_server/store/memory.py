"""Stores that live as long as the process: the reference for the conformance suite.

For tests and for servers that are meant to forget. Methods never wait, so each is one transaction
by nature. Nothing here is bounded but captures: what fills it is bounded by its users.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import uuid4

from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Token
from moleport_server.errors import ConflictError, InvalidRequest, NotFoundError
from moleport_server.store.base import (
    CaptureRow,
    HistoryQuery,
    Lease,
    PolicyRow,
    StoredSession,
    TokenRow,
    TunnelLogEntry,
)

_ROW_BYTES = 256
"""What a capture costs beside its texts, roughly."""


class MemoryStateStore:
    """A `StateStore` without a file."""

    def __init__(self) -> None:
        self._instance_id = str(uuid4())
        self._tokens: dict[str, Token] = {}
        self._credentials: dict[tuple[str, int], Credential] = {}
        self._policies: dict[str, Policy] = {}
        self._leases: dict[tuple[str, str], Lease] = {}
        self._sessions: dict[str, StoredSession] = {}
        self._log: dict[str, TunnelLogEntry] = {}

    async def instance_id(self) -> str:
        """Return the id that was made with this object."""
        return self._instance_id

    async def aclose(self) -> None:
        """Do nothing; there is nothing to flush."""

    async def create_token(self, token: Token, credential: Credential | None = None) -> None:
        """See `TokenStore.create_token`."""
        if credential is not None and credential.token_id != token.id:
            raise ValueError("the credential belongs to another token")
        has_digest = credential is not None and self._find(credential.sha256) is not None
        if token.id in self._tokens or has_digest:
            raise ConflictError("a token with this id or credential exists")
        self._require_policies(token.policy_ids)
        self._tokens[token.id] = token
        if credential is not None:
            self._credentials[token.id, credential.revision] = credential

    async def replace_token(self, token: Token, *, version: int) -> bool:
        """See `TokenStore.replace_token`."""
        current = self._tokens.get(token.id)
        if current is None or current.version != version:
            return False
        self._require_policies(token.policy_ids)
        self._tokens[token.id] = replace(
            token,
            created_at=current.created_at,
            last_used_at=current.last_used_at,
            version=version + 1,
        )
        return True

    async def list_tokens(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        owner_cluster: str | None = None,
    ) -> list[TokenRow]:
        """See `TokenStore.list_tokens`."""
        tokens = sorted(self._tokens.values(), key=lambda token: (-token.created_at, token.id))
        start = 0
        if after is not None:
            if after not in self._tokens:
                raise InvalidRequest("the cursor names no token; start again without it")
            start = tokens.index(self._tokens[after]) + 1
        chosen = [token for token in tokens[start:] if _is_owned(token, owner_cluster)]
        return [self._row(token) for token in chosen[: None if limit is None else max(0, limit)]]

    async def get_token(self, token_id: str) -> TokenRow | None:
        """See `TokenStore.get_token`."""
        token = self._tokens.get(token_id)
        return None if token is None else self._row(token)

    async def find_credential(self, sha256: str) -> tuple[Token, Credential] | None:
        """See `TokenStore.find_credential`."""
        credential = self._find(sha256)
        return None if credential is None else (self._tokens[credential.token_id], credential)

    async def delete_token(self, token_id: str) -> bool:
        """See `TokenStore.delete_token`."""
        if self._tokens.pop(token_id, None) is None:
            return False
        for slot in [slot for slot in self._credentials if slot[0] == token_id]:
            del self._credentials[slot]
        for place in [place for place, kept in self._leases.items() if kept.token_id == token_id]:
            del self._leases[place]
        for session in [s for s in self._sessions.values() if s.token_id == token_id]:
            del self._sessions[session.id]
        for entry in [entry for entry in self._log.values() if entry.token_id == token_id]:
            self._log[entry.id] = replace(entry, token_id=None)
        return True

    async def put_credential(self, credential: Credential) -> bool:
        """See `TokenStore.put_credential`."""
        self._require_token(credential.token_id)
        slot = (credential.token_id, credential.revision)
        other = self._find(credential.sha256)
        if other is not None and (other.token_id, other.revision) != slot:
            raise ConflictError("another credential has this digest")
        current = self._credentials.get(slot)
        if current is not None and current.sha256 == credential.sha256:
            credential = replace(current, not_after=credential.not_after)
        self._credentials[slot] = credential
        return current is None

    async def delete_credential(self, token_id: str, revision: int) -> bool:
        """See `TokenStore.delete_credential`."""
        return self._credentials.pop((token_id, revision), None) is not None

    async def touch_credentials(self, used_at: dict[tuple[str, int], float]) -> None:
        """See `TokenStore.touch_credentials`."""
        for slot, at in used_at.items():
            credential = self._credentials.get(slot)
            if credential is None:
                continue
            token = self._tokens[credential.token_id]
            self._credentials[slot] = replace(
                credential, last_used_at=_later(credential.last_used_at, at)
            )
            self._tokens[token.id] = replace(token, last_used_at=_later(token.last_used_at, at))

    async def create_policy(self, policy: Policy) -> None:
        """See `PolicyStore.create_policy`."""
        if policy.id in self._policies:
            raise ConflictError("a policy with this id exists")
        self._policies[policy.id] = policy

    async def replace_policy(self, policy: Policy, *, version: int) -> bool:
        """See `PolicyStore.replace_policy`."""
        current = self._policies.get(policy.id)
        if current is None or current.version != version:
            return False
        self._policies[policy.id] = replace(policy, version=version + 1)
        return True

    async def find_policies(self, ids: Collection[str]) -> list[Policy]:
        """See `PolicyStore.find_policies`."""
        return [policy for policy_id, policy in sorted(self._policies.items()) if policy_id in ids]

    async def list_policies(
        self, *, ids: Collection[str] | None = None, owner_cluster: str | None = None
    ) -> list[PolicyRow]:
        """See `PolicyStore.list_policies`."""
        return [
            PolicyRow(policy=policy, attached_tokens=self._count_attached(policy_id))
            for policy_id, policy in sorted(self._policies.items())
            if (ids is None or policy_id in ids) and _is_owned(policy, owner_cluster)
        ]

    async def delete_policy(self, policy_id: str) -> bool:
        """See `PolicyStore.delete_policy`."""
        if self._count_attached(policy_id):
            raise ConflictError("the policy is attached to tokens")
        return self._policies.pop(policy_id, None) is not None

    async def save_lease(self, lease: Lease) -> None:
        """See `LeaseStore.save_lease`."""
        self._require_token(lease.token_id)
        self._leases[lease.protocol, lease.address] = lease

    async def delete_leases(self, tunnel_ids: Sequence[str]) -> None:
        """See `LeaseStore.delete_leases`."""
        gone = set(tunnel_ids)
        for place in [place for place, kept in self._leases.items() if kept.tunnel_id in gone]:
            del self._leases[place]

    async def park_leases(self, session_id: str, until: float) -> None:
        """See `LeaseStore.park_leases`."""
        for place, lease in self._leases.items():
            if lease.session_id == session_id:
                self._leases[place] = replace(lease, until=until)

    async def load_leases(self) -> list[Lease]:
        """See `LeaseStore.load_leases`."""
        return [lease for _, lease in sorted(self._leases.items(), key=lambda item: item[0])]

    async def save_session(self, session: StoredSession) -> None:
        """See `LeaseStore.save_session`."""
        self._require_token(session.token_id)
        self._sessions[session.id] = session

    async def delete_session(self, session_id: str) -> None:
        """See `LeaseStore.delete_session`."""
        self._sessions.pop(session_id, None)

    async def load_sessions(self) -> list[StoredSession]:
        """See `LeaseStore.load_sessions`."""
        return [self._sessions[session_id] for session_id in sorted(self._sessions)]

    async def add_log_entry(self, entry: TunnelLogEntry) -> None:
        """See `TunnelLogStore.add_log_entry`."""
        if entry.id in self._log:
            raise ConflictError("a row of the tunnel log with this id exists")
        token_id = entry.token_id if entry.token_id in self._tokens else None
        self._log[entry.id] = replace(entry, token_id=token_id)

    async def close_log_entries(self, tunnel_ids: Sequence[str], at: float) -> None:
        """See `TunnelLogStore.close_log_entries`."""
        ended = set(tunnel_ids)
        for entry in self._log.values():
            if entry.tunnel_id in ended and entry.unregistered_at is None:
                self._log[entry.id] = replace(entry, unregistered_at=at)

    async def query_history(self, query: HistoryQuery) -> tuple[list[TunnelLogEntry], int]:
        """See `TunnelLogStore.query_history`."""
        entries = [
            replace(entry, token_label=self._label(entry.token_id))
            for entry in self._log.values()
            if (query.protocol is None or entry.protocol == query.protocol)
            and (query.token_id is None or entry.token_id == query.token_id)
            and (query.active is None or (entry.unregistered_at is None) == query.active)
        ]
        # Sorting is stable, so the last key comes first. A reversed sort keeps equal rows in place.
        entries.sort(key=lambda entry: entry.id)
        newest_first = query.sort_by in {"duration", "protocol"} or not query.ascending
        entries.sort(key=lambda entry: entry.registered_at, reverse=newest_first)
        if query.sort_by == "duration":
            entries.sort(key=lambda entry: _duration(entry, query.now), reverse=not query.ascending)
        elif query.sort_by == "protocol":
            entries.sort(key=lambda entry: entry.protocol, reverse=not query.ascending)
        start = max(0, query.offset)
        return entries[start : start + max(0, query.limit)], len(entries)

    def _find(self, sha256: str) -> Credential | None:
        return next((slot for slot in self._credentials.values() if slot.sha256 == sha256), None)

    def _row(self, token: Token) -> TokenRow:
        slots = [slot for slot in self._credentials.values() if slot.token_id == token.id]
        return TokenRow(
            token=token,
            credentials=tuple(sorted(slots, key=lambda slot: slot.revision)),
            tunnel_count=sum(entry.token_id == token.id for entry in self._log.values()),
        )

    def _label(self, token_id: str | None) -> str | None:
        return None if token_id is None else self._tokens[token_id].label

    def _count_attached(self, policy_id: str) -> int:
        return sum(policy_id in token.policy_ids for token in self._tokens.values())

    def _require_policies(self, policy_ids: tuple[str, ...]) -> None:
        for policy_id in policy_ids:
            if policy_id not in self._policies:
                raise NotFoundError(f"there is no policy {policy_id}")

    def _require_token(self, token_id: str | None) -> None:
        if token_id is not None and token_id not in self._tokens:
            raise NotFoundError("the token does not exist any more")


class MemoryCaptureStore:
    """A `CaptureStore` without a file.

    Args:
        max_bytes: cap of the texts and of what a row costs beside them; as much as the ring
            buffers before it may take.
    """

    def __init__(self, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._rows: dict[str, CaptureRow] = {}
        """By id, in the order of arrival."""

    async def aclose(self) -> None:
        """Do nothing; there is nothing to flush."""

    async def add_captures(self, rows: Sequence[CaptureRow]) -> None:
        """See `CaptureStore.add_captures`."""
        for row in rows:
            self._discard(row.id)
            self._rows[row.id] = row
            self._used_bytes += _size(row)
        while self._used_bytes > self._max_bytes:
            self._discard(next(iter(self._rows)))

    async def list_captures(self, tunnel_id: str, *, limit: int) -> list[CaptureRow]:
        """See `CaptureStore.list_captures`; a negative limit counts as 0."""
        rows = [row for row in reversed(self._rows.values()) if row.tunnel_id == tunnel_id]
        rows.sort(key=lambda row: row.captured_at, reverse=True)
        return rows[: max(0, limit)]

    async def get_capture(self, capture_id: str) -> CaptureRow | None:
        """See `CaptureStore.get_capture`."""
        return self._rows.get(capture_id)

    def _discard(self, capture_id: str) -> None:
        row = self._rows.pop(capture_id, None)
        if row is not None:
            self._used_bytes -= _size(row)


def _is_owned(record: Token | Policy, cluster: str | None) -> bool:
    return cluster is None or (record.owner is not None and record.owner.cluster == cluster)


def _later(known: float | None, at: float) -> float:
    return at if known is None else max(known, at)


def _duration(entry: TunnelLogEntry, now: float) -> float:
    return (now if entry.unregistered_at is None else entry.unregistered_at) - entry.registered_at


def _size(row: CaptureRow) -> int:
    texts = (row.path, row.request_head, row.response_head, row.request_body, row.response_body)
    return _ROW_BYTES + sum(len(text) for text in texts if text is not None)
