"""Tokens and policies between the domain and the columns of a table.

Grants, limits and policies are JSON documents, read strictly: a member that is missing or unknown would be a
restriction that silently does not hold, so it is an error. A release that adds a member therefore
brings a migration that says what older rows mean.
"""

import sqlite3
from collections.abc import Iterable
from ipaddress import ip_network
from itertools import groupby
from typing import TypeVar

import msgspec

from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Grant, Limits, Owner, Token
from moleport_server.domain.tunnel import BasicCredential, IPNetwork, TunnelProtocol
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
    max_connections_per_tunnel: int | None
    requests_per_second: float | None
    burst: float | None
    request_body_bytes: int | None
    bandwidth: int | None
    idle_seconds: float | None


class _PolicyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    protocols: tuple[TunnelProtocol, ...] | None
    hostnames: tuple[str, ...] | None
    tcp_ports: tuple[tuple[int, int], ...] | None
    agent_cidrs: tuple[str, ...] | None
    client_cidrs: tuple[str, ...] | None
    denied_client_cidrs: tuple[str, ...]
    limits: _LimitsRecord
    max_lifetime_seconds: float | None
    max_tokens: int | None
    requires_rotation: bool
    requires_tls: bool
    basic_auth: tuple[tuple[str, str], ...] | None
    is_auth_unresolved: bool


_Record = TypeVar("_Record", _GrantRecord, _LimitsRecord, _PolicyRecord)


def encode_grant(grant: Grant) -> str:
    """Return the JSON text of a grant."""
    record = _GrantRecord(
        protocols=grant.protocols,
        hostnames=grant.hostnames,
        tcp_ports=grant.tcp_ports,
        container_ports=grant.container_ports,
        agent_cidrs=_texts(grant.agent_cidrs),
    )
    return msgspec.json.encode(record).decode()


def decode_grant(text: str, *, token_id: str) -> Grant:
    """Return the grant of a JSON text.

    Raises:
        StoreCorrupt: the text is not what `encode_grant` makes.
    """
    what = f"token {token_id}"
    record = _decode(text, _GrantRecord, what)
    return Grant(
        protocols=record.protocols,
        hostnames=record.hostnames,
        tcp_ports=record.tcp_ports,
        container_ports=record.container_ports,
        agent_cidrs=_networks(record.agent_cidrs, what),
    )


def encode_limits(limits: Limits) -> str:
    """Return the JSON text of limits."""
    return msgspec.json.encode(_limits_record(limits)).decode()


def decode_limits(text: str, *, token_id: str) -> Limits:
    """Return the limits of a JSON text.

    Raises:
        StoreCorrupt: the text is not what `encode_limits` makes.
    """
    return _limits(_decode(text, _LimitsRecord, f"token {token_id}"))


def encode_policy(policy: Policy) -> str:
    """Return the JSON text of what a policy says; id, owner and version are columns."""
    users = policy.basic_auth
    record = _PolicyRecord(
        protocols=policy.protocols,
        hostnames=policy.hostnames,
        tcp_ports=policy.tcp_ports,
        agent_cidrs=_texts(policy.agent_cidrs),
        client_cidrs=_texts(policy.client_cidrs),
        denied_client_cidrs=tuple(map(str, policy.denied_client_cidrs)),
        limits=_limits_record(policy.limits),
        max_lifetime_seconds=policy.max_lifetime_seconds,
        max_tokens=policy.max_tokens,
        requires_rotation=policy.requires_rotation,
        requires_tls=policy.requires_tls,
        basic_auth=None if users is None else tuple((u.user, u.password_hash) for u in users),
        is_auth_unresolved=policy.is_auth_unresolved,
    )
    return msgspec.json.encode(record).decode()


def policy_columns(policy: Policy) -> dict[str, str | int | None]:
    """Return the values of a row of `policies`, by column."""
    return {
        "id": policy.id,
        **_owner_columns(policy.owner),
        "body": encode_policy(policy),
        "version": policy.version,
    }


def read_policy(row: sqlite3.Row) -> Policy:
    """Return the policy of a row that has all columns of `policies`.

    Raises:
        StoreCorrupt: its body cannot be read.
    """
    what = f"policy {row['id']}"
    record = _decode(row["body"], _PolicyRecord, what)
    users = record.basic_auth
    return Policy(
        id=row["id"],
        owner=_read_owner(row),
        protocols=record.protocols,
        hostnames=record.hostnames,
        tcp_ports=record.tcp_ports,
        agent_cidrs=_networks(record.agent_cidrs, what),
        client_cidrs=_networks(record.client_cidrs, what),
        denied_client_cidrs=_networks(record.denied_client_cidrs, what) or (),
        limits=_limits(record.limits),
        max_lifetime_seconds=record.max_lifetime_seconds,
        max_tokens=record.max_tokens,
        requires_rotation=record.requires_rotation,
        requires_tls=record.requires_tls,
        basic_auth=None
        if users is None
        else tuple(BasicCredential(user=user, password_hash=text) for user, text in users),
        is_auth_unresolved=record.is_auth_unresolved,
        version=row["version"],
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
        **_owner_columns(token.owner),
        "policy_ids": msgspec.json.encode(token.policy_ids).decode(),
        "version": token.version,
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
        owner=_read_owner(row),
        policy_ids=_read_policy_ids(row),
        version=row["version"],
    )


def read_credential(row: sqlite3.Row) -> Credential:
    """Return the credential of a row that joins a token (`id`) with one of its slots."""
    return Credential(
        token_id=row["id"],
        revision=row["revision"],
        sha256=row["sha256"],
        not_after=row["not_after"],
        created_at=row["credential_created_at"],
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


def _limits_record(limits: Limits) -> _LimitsRecord:
    return _LimitsRecord(
        max_tunnels=limits.max_tunnels,
        max_agents=limits.max_agents,
        max_connections=limits.max_connections,
        max_connections_per_tunnel=limits.max_connections_per_tunnel,
        requests_per_second=limits.requests_per_second,
        burst=limits.burst,
        request_body_bytes=limits.request_body_bytes,
        bandwidth=limits.bandwidth,
        idle_seconds=limits.idle_seconds,
    )


def _limits(record: _LimitsRecord) -> Limits:
    return Limits(
        max_tunnels=record.max_tunnels,
        max_agents=record.max_agents,
        max_connections=record.max_connections,
        max_connections_per_tunnel=record.max_connections_per_tunnel,
        requests_per_second=record.requests_per_second,
        burst=record.burst,
        request_body_bytes=record.request_body_bytes,
        bandwidth=record.bandwidth,
        idle_seconds=record.idle_seconds,
    )


def _texts(networks: tuple[IPNetwork, ...] | None) -> tuple[str, ...] | None:
    return None if networks is None else tuple(map(str, networks))


def _networks(texts: tuple[str, ...] | None, what: str) -> tuple[IPNetwork, ...] | None:
    try:
        return None if texts is None else tuple(map(ip_network, texts))
    except ValueError as error:
        raise _unreadable(what, error) from error


def _owner_columns(owner: Owner | None) -> dict[str, str | None]:
    return {
        "owner_cluster": None if owner is None else owner.cluster,
        "owner_namespace": None if owner is None else owner.namespace,
        "owner_name": None if owner is None else owner.name,
        "owner_uid": None if owner is None else owner.uid,
    }


def _read_owner(row: sqlite3.Row) -> Owner | None:
    if row["owner_cluster"] is None:
        return None
    return Owner(
        cluster=row["owner_cluster"],
        namespace=row["owner_namespace"],
        name=row["owner_name"],
        uid=row["owner_uid"],
    )


def _read_policy_ids(row: sqlite3.Row) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(row["policy_ids"], type=tuple[str, ...])
    except msgspec.DecodeError as error:
        raise _unreadable(f"token {row['id']}", error) from error


def _decode(text: str, record_type: type[_Record], what: str) -> _Record:
    try:
        return msgspec.json.decode(text, type=record_type)
    except msgspec.DecodeError as error:
        raise _unreadable(what, error) from error


def _unreadable(what: str, error: Exception) -> StoreCorrupt:
    return StoreCorrupt(
        f"{what} cannot be read ({error}); delete it and make it anew, or restore a backup"
    )
