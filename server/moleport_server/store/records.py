"""Tokens between the domain and the columns of a table.

Grants and limits are JSON documents, read strictly: a member that is missing or unknown would be a
restriction that silently does not hold, so it is an error. A release that adds a member therefore
brings a migration that says what older rows mean.
"""

import sqlite3
from collections.abc import Iterable
from ipaddress import ip_network
from itertools import groupby
from typing import TypeVar

import msgspec

from moleport_server.domain.token import Credential, Grant, Limits, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import StoreCorrupt
from moleport_server.store.base import TokenRow


class _GrantRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    protocols: tuple[TunnelProtocol, ...] | None
    hostnames: tuple[str, ...] | None
    tcp_ports: tuple[tuple[int, int], ...] | None
    container_ports: tuple[tuple[int, int], ...] | None
    agent_cidrs: tuple[str, ...] | None


class _LimitsRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_tunnels: int | None
    max_agents: int | None
    max_connections: int | None
    requests_per_second: float | None


_Record = TypeVar("_Record", _GrantRecord, _LimitsRecord)


def encode_grant(grant: Grant) -> str:
    """Return the JSON text of a grant."""
    record = _GrantRecord(
        protocols=grant.protocols,
        hostnames=grant.hostnames,
        tcp_ports=grant.tcp_ports,
        container_ports=grant.container_ports,
        agent_cidrs=None if grant.agent_cidrs is None else tuple(map(str, grant.agent_cidrs)),
    )
    return msgspec.json.encode(record).decode()


def decode_grant(text: str, *, token_id: str) -> Grant:
    """Return the grant of a JSON text.

    Raises:
        StoreCorrupt: the text is not what `encode_grant` makes.
    """
    record = _decode(text, _GrantRecord, token_id=token_id)
    try:
        agent_cidrs = (
            None if record.agent_cidrs is None else tuple(map(ip_network, record.agent_cidrs))
        )
    except ValueError as error:
        raise _unreadable(token_id, error) from error
    return Grant(
        protocols=record.protocols,
        hostnames=record.hostnames,
        tcp_ports=record.tcp_ports,
        container_ports=record.container_ports,
        agent_cidrs=agent_cidrs,
    )


def encode_limits(limits: Limits) -> str:
    """Return the JSON text of limits."""
    record = _LimitsRecord(
        max_tunnels=limits.max_tunnels,
        max_agents=limits.max_agents,
        max_connections=limits.max_connections,
        requests_per_second=limits.requests_per_second,
    )
    return msgspec.json.encode(record).decode()


def decode_limits(text: str, *, token_id: str) -> Limits:
    """Return the limits of a JSON text.

    Raises:
        StoreCorrupt: the text is not what `encode_limits` makes.
    """
    record = _decode(text, _LimitsRecord, token_id=token_id)
    return Limits(
        max_tunnels=record.max_tunnels,
        max_agents=record.max_agents,
        max_connections=record.max_connections,
        requests_per_second=record.requests_per_second,
    )


def token_columns(token: Token) -> dict[str, str | float | bool | None]:
    """Return the values of a row of `tokens`, by column."""
    return {
        "id": token.id,
        "label": token.label,
        "scope": token.scope,
        "access": encode_grant(token.grant),
        "limits": encode_limits(token.limits),
        "created_at": token.created_at,
        "last_used_at": token.last_used_at,
        "expires_at": token.expires_at,
        "suspended": token.suspended,
    }


def read_token(row: sqlite3.Row) -> Token:
    """Return the token of a row that has all columns of `tokens`.

    Raises:
        StoreCorrupt: its grant or limits cannot be read.
    """
    token_id: str = row["id"]
    return Token(
        id=token_id,
        label=row["label"],
        scope=row["scope"],
        grant=decode_grant(row["access"], token_id=token_id),
        limits=decode_limits(row["limits"], token_id=token_id),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        suspended=bool(row["suspended"]),
    )


def read_credential(row: sqlite3.Row) -> Credential:
    """Return the credential of a row that joins a token (`id`) with one of its slots."""
    return Credential(
        token_id=row["id"],
        revision=row["revision"],
        sha256=row["sha256"],
        not_after=row["not_after"],
        last_used_at=row["credential_last_used_at"],
    )


def read_token_rows(rows: Iterable[sqlite3.Row]) -> list[TokenRow]:
    """Fold joined rows, those of one token next to each other, into one entry per token.

    Raises:
        StoreCorrupt: a grant or limits cannot be read.
    """
    entries: list[TokenRow] = []
    for _, group in groupby(rows, key=lambda row: row["id"]):
        slots = list(group)
        entries.append(
            TokenRow(
                token=read_token(slots[0]),
                # An outer join: a token without slots has one row without a revision.
                credentials=tuple(
                    read_credential(slot) for slot in slots if slot["revision"] is not None
                ),
                tunnel_count=slots[0]["tunnel_count"],
            )
        )
    return entries


def _decode(text: str, record_type: type[_Record], *, token_id: str) -> _Record:
    try:
        return msgspec.json.decode(text, type=record_type)
    except msgspec.DecodeError as error:
        raise _unreadable(token_id, error) from error


def _unreadable(token_id: str, error: Exception) -> StoreCorrupt:
    return StoreCorrupt(
        f"token {token_id} cannot be read ({error}); delete it and issue a new one, "
        "or restore a backup"
    )
