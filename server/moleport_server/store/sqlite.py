"""Tokens, policies, leases, sessions and the tunnel log in one SQLite file, `state.db`.

The default store of a single server. A commit has reached the disk when its method returns
(WAL with synchronous FULL), so that a crash forgets nothing that a caller was told. What the
columns mean stands in `migrations/state`; foreign keys carry the consequences of a deleted token.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self
from uuid import uuid4

import aiosqlite

from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import ConflictError, InvalidRequest, NotFoundError
from moleport_server.store import statements as sql
from moleport_server.store.base import (
    HistoryQuery,
    Lease,
    PolicyRow,
    StoredSession,
    TokenRow,
    TunnelLogEntry,
)
from moleport_server.store.database import Database
from moleport_server.store.records import (
    policy_columns,
    read_credential,
    read_policy,
    read_token,
    read_token_rows,
    token_columns,
)
from moleport_server.store.schema import state_schema


class SqliteStateStore:
    """The durable `StateStore` of one server; made by `open`, closed by its owner."""

    def __init__(self, database: Database, instance_id: str) -> None:
        self._database = database
        self._instance_id = instance_id

    @classmethod
    async def open(cls, path: Path) -> Self:
        """Open or create `state.db`; the caller holds the lock of its directory and closes it.

        Raises:
            StoreCorrupt: the file is damaged or not ours; it is untouched.
            StoreTooNew: a newer release wrote it; it is untouched.
            StoreFull: there is no room to create or migrate it.
            StoreError: it cannot be opened.
        """
        database = await Database.open(path, state_schema(), synchronous="FULL")
        try:
            async with database.transaction() as connection:
                await connection.execute(
                    "INSERT OR IGNORE INTO meta (key, value) VALUES ('instance_id', ?)",
                    [str(uuid4())],
                )
                ((instance_id,),) = await connection.execute_fetchall(
                    "SELECT value FROM meta WHERE key = 'instance_id'"
                )
        except BaseException:
            await database.aclose()
            raise
        return cls(database, instance_id)

    async def instance_id(self) -> str:
        """Return the id that was made with the database."""
        return self._instance_id

    async def aclose(self) -> None:
        """Wait for running transactions, then close; idempotent."""
        await self._database.aclose()

    async def create_token(self, token: Token, credential: Credential | None = None) -> None:
        """See `TokenStore.create_token`."""
        if credential is not None and credential.token_id != token.id:
            raise ValueError("the credential belongs to another token")
        columns = token_columns(token)
        async with self._database.transaction() as connection:
            await _require_policies(connection, columns["policy_ids"])
            try:
                await connection.execute(sql.INSERT_INTO_TOKENS, columns)
                if credential is not None:
                    await connection.execute(sql.INSERT_INTO_CREDENTIALS, asdict(credential))
            except sqlite3.IntegrityError as error:
                raise ConflictError("a token with this id or credential exists") from error

    async def replace_token(self, token: Token, *, version: int) -> bool:
        """See `TokenStore.replace_token`."""
        columns = token_columns(token) | {"version": version}
        async with self._database.transaction() as connection:
            cursor = await connection.execute(sql.UPDATE_TOKENS, columns)
            if cursor.rowcount > 0:
                await _require_policies(connection, columns["policy_ids"])
        return cursor.rowcount > 0

    async def list_tokens(
        self,
        *,
        after: str | None = None,
        limit: int | None = None,
        owner_cluster: str | None = None,
    ) -> list[TokenRow]:
        """See `TokenStore.list_tokens`."""
        async with self._database.transaction() as connection:
            created_at = 0.0
            if after is not None:
                places = await connection.execute_fetchall(
                    "SELECT created_at FROM tokens WHERE id = ?", [after]
                )
                if not places:
                    raise InvalidRequest("the cursor names no token; start again without it")
                ((created_at,),) = places
            rows = await connection.execute_fetchall(
                sql.TOKENS_PAGE,
                {
                    "after": after,
                    "created_at": created_at,
                    "limit": _bounded(limit),
                    "owner_cluster": owner_cluster,
                },
            )
        return read_token_rows(rows)

    async def get_token(self, token_id: str) -> TokenRow | None:
        """See `TokenStore.get_token`."""
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(sql.TOKEN_BY_ID, [token_id])
        entries = read_token_rows(rows)
        return entries[0] if entries else None

    async def find_credential(self, sha256: str) -> tuple[Token, Credential] | None:
        """See `TokenStore.find_credential`."""
        async with self._database.transaction() as connection:
            rows = list(await connection.execute_fetchall(sql.FIND_CREDENTIAL, [sha256]))
        return (read_token(rows[0]), read_credential(rows[0])) if rows else None

    async def delete_token(self, token_id: str) -> bool:
        """See `TokenStore.delete_token`."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute("DELETE FROM tokens WHERE id = ?", [token_id])
        return cursor.rowcount > 0

    async def put_credential(self, credential: Credential) -> bool:
        """See `TokenStore.put_credential`."""
        async with self._database.transaction() as connection:
            known = await connection.execute_fetchall(
                "SELECT EXISTS (SELECT 1 FROM credentials WHERE token_id = ? AND revision = ?)"
                " FROM tokens WHERE id = ?",
                [credential.token_id, credential.revision, credential.token_id],
            )
            if not known:
                raise NotFoundError("the token does not exist any more")
            try:
                await connection.execute(sql.PUT_CREDENTIAL, asdict(credential))
            except sqlite3.IntegrityError as error:
                raise ConflictError("another credential has this digest") from error
        ((was_filled,),) = known
        return not was_filled

    async def delete_credential(self, token_id: str, revision: int) -> bool:
        """See `TokenStore.delete_credential`."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                "DELETE FROM credentials WHERE token_id = ? AND revision = ?", [token_id, revision]
            )
        return cursor.rowcount > 0

    async def touch_credentials(self, used_at: dict[tuple[str, int], float]) -> None:
        """See `TokenStore.touch_credentials`."""
        if not used_at:
            return
        uses = [
            {"token_id": token_id, "revision": revision, "at": at}
            for (token_id, revision), at in used_at.items()
        ]
        async with self._database.transaction() as connection:
            await connection.executemany(sql.TOUCH_SLOTS, uses)
            await connection.executemany(sql.TOUCH_OWNERS, uses)

    async def create_policy(self, policy: Policy) -> None:
        """See `PolicyStore.create_policy`."""
        async with self._database.transaction() as connection:
            try:
                await connection.execute(sql.INSERT_INTO_POLICIES, policy_columns(policy))
            except sqlite3.IntegrityError as error:
                raise ConflictError("a policy with this id exists") from error

    async def replace_policy(self, policy: Policy, *, version: int) -> bool:
        """See `PolicyStore.replace_policy`."""
        async with self._database.transaction() as connection:
            cursor = await connection.execute(
                sql.UPDATE_POLICIES, policy_columns(policy) | {"version": version}
            )
        return cursor.rowcount > 0

    async def find_policies(self, ids: Collection[str]) -> list[Policy]:
        """See `PolicyStore.find_policies`."""
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(sql.FIND_POLICIES, [json.dumps(list(ids))])
        return [read_policy(row) for row in rows]

    async def list_policies(
        self, *, ids: Collection[str] | None = None, owner_cluster: str | None = None
    ) -> list[PolicyRow]:
        """See `PolicyStore.list_policies`."""
        chosen = None if ids is None else json.dumps(list(ids))
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(
                sql.LIST_POLICIES, {"ids": chosen, "owner_cluster": owner_cluster}
            )
        return [
            PolicyRow(policy=read_policy(row), attached_tokens=row["attached_tokens"])
            for row in rows
        ]

    async def delete_policy(self, policy_id: str) -> bool:
        """See `PolicyStore.delete_policy`."""
        async with self._database.transaction() as connection:
            if list(await connection.execute_fetchall(sql.IS_ATTACHED, [policy_id])):
                raise ConflictError("the policy is attached to tokens")
            cursor = await connection.execute("DELETE FROM policies WHERE id = ?", [policy_id])
        return cursor.rowcount > 0

    async def save_lease(self, lease: Lease) -> None:
        """See `LeaseStore.save_lease`."""
        await self._save(sql.SAVE_LEASE, lease)

    async def delete_leases(self, tunnel_ids: Sequence[str]) -> None:
        """See `LeaseStore.delete_leases`."""
        if not tunnel_ids:
            return
        async with self._database.transaction() as connection:
            await connection.executemany(
                "DELETE FROM leases WHERE tunnel_id = ?",
                [(tunnel_id,) for tunnel_id in tunnel_ids],
            )

    async def park_leases(self, session_id: str, until: float) -> None:
        """See `LeaseStore.park_leases`."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "UPDATE leases SET until = ? WHERE session_id = ?", [until, session_id]
            )

    async def load_leases(self) -> list[Lease]:
        """See `LeaseStore.load_leases`."""
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(
                "SELECT * FROM leases ORDER BY protocol, address"
            )
        return [Lease(**{**dict(row), "protocol": TunnelProtocol(row["protocol"])}) for row in rows]

    async def save_session(self, session: StoredSession) -> None:
        """See `LeaseStore.save_session`."""
        await self._save(sql.SAVE_SESSION, session)

    async def delete_session(self, session_id: str) -> None:
        """See `LeaseStore.delete_session`."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM sessions WHERE id = ?", [session_id])

    async def load_sessions(self) -> list[StoredSession]:
        """See `LeaseStore.load_sessions`."""
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall("SELECT * FROM sessions ORDER BY id")
        return [StoredSession(**dict(row)) for row in rows]

    async def add_log_entry(self, entry: TunnelLogEntry) -> None:
        """See `TunnelLogStore.add_log_entry`."""
        async with self._database.transaction() as connection:
            try:
                await connection.execute(sql.ADD_LOG_ENTRY, asdict(entry))
            except sqlite3.IntegrityError as error:
                raise ConflictError("a row of the tunnel log with this id exists") from error

    async def close_log_entries(self, tunnel_ids: Sequence[str], at: float) -> None:
        """See `TunnelLogStore.close_log_entries`."""
        if not tunnel_ids:
            return
        async with self._database.transaction() as connection:
            await connection.executemany(
                sql.CLOSE_LOG_ENTRIES, [(at, tunnel_id) for tunnel_id in tunnel_ids]
            )

    async def query_history(self, query: HistoryQuery) -> tuple[list[TunnelLogEntry], int]:
        """See `TunnelLogStore.query_history`."""
        parameters = asdict(query) | {
            "limit": _bounded(query.limit),
            "offset": _bounded(query.offset),
        }
        order = sql.HISTORY_ORDER.get(
            (query.sort_by, query.ascending), sql.HISTORY_ORDER["started", query.ascending]
        )
        async with self._database.transaction() as connection:
            rows = await connection.execute_fetchall(
                f"{sql.LIST_HISTORY} ORDER BY {order} LIMIT :limit OFFSET :offset", parameters
            )
            ((total,),) = await connection.execute_fetchall(sql.COUNT_HISTORY, parameters)
        return [TunnelLogEntry(**dict(row)) for row in rows], total

    async def _save(self, statement: str, record: Lease | StoredSession) -> None:
        async with self._database.transaction() as connection:
            try:
                await connection.execute(statement, asdict(record))
            except sqlite3.IntegrityError as error:
                raise NotFoundError("the token does not exist any more") from error


async def _require_policies(connection: aiosqlite.Connection, policy_ids: object) -> None:
    for (missing,) in await connection.execute_fetchall(sql.MISSING_POLICIES, [policy_ids]):
        raise NotFoundError(f"there is no policy {missing}")


def _bounded(count: int | None) -> int:
    return sql.MOST_ROWS if count is None else max(0, min(count, sql.MOST_ROWS))
