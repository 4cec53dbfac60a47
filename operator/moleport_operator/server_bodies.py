"""JSON of the tunnel server's REST API: what its answers say, and what its bodies have to say.

Answers of hundreds of tokens are read every minute, so the rows are typed: what nobody here asks for is
skipped by the parser and never becomes an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from moleport_operator.errors import ServerUnavailable
from moleport_operator.plan.policy import PolicyWish, ServerPolicy
from moleport_operator.plan.records import Owner, ServerToken, Slot, TokenWish, Usage
from moleport_operator.quantities import parse_time_or_none


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What the server says about itself."""

    instance_id: str
    version: str
    domains: tuple[str, ...]
    https_port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedToken:
    """One row of the list of our tokens: who owns it and how it is used."""

    id: str
    label: str
    owner: Owner
    usage: Usage


class _Public(msgspec.Struct, frozen=True):
    https_port: int | None = None


class _Facts(msgspec.Struct, frozen=True):
    instance_id: str
    version: str = ""
    domains: tuple[str, ...] = ()
    public: _Public = _Public()


class _Owner(msgspec.Struct, frozen=True):
    cluster: str
    name: str
    uid: str
    namespace: str = ""


class _Usage(msgspec.Struct, frozen=True):
    active_tunnels: int = 0
    active_agents: int = 0


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """A token of the list, without what only its round needs."""

    id: str
    label: str
    owner: _Owner | None = None
    usage: _Usage = _Usage()
    last_used_at: str | None = None


class _Range(msgspec.Struct, frozen=True):
    start: int
    end: int | None = None


class _Access(msgspec.Struct, frozen=True):
    protocols: tuple[str, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    tcp_ports: tuple[_Range, ...] | None = None
    agent_cidrs: tuple[str, ...] | None = None


class _Limits(msgspec.Struct, frozen=True):
    max_tunnels: int | None = None
    max_agents: int | None = None
    max_connections: int | None = None
    requests_per_second: float | None = None
    bandwidth: int | None = None


class _Slot(msgspec.Struct, frozen=True):
    revision: int
    fingerprint: str
    not_after: str | None = None


class _Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token in full."""

    etag: str
    label: str
    owner: _Owner | None = None
    access: _Access = _Access()
    limits: _Limits = _Limits()
    suspended: bool = False
    policy_ids: tuple[str, ...] = ()
    credentials: tuple[_Slot, ...] = ()
    usage: _Usage = _Usage()
    last_used_at: str | None = None
    effective: dict[str, Any] = {}


class _PageToken(_Token, frozen=True, kw_only=True):
    """A token of the list, in full."""

    id: str


class _Policy(msgspec.Struct, frozen=True, kw_only=True):
    etag: str
    owner: _Owner | None = None


class _PolicyRow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    owner: _Owner | None = None


_FACTS: Final = msgspec.json.Decoder(_Facts)
_ROWS: Final = msgspec.json.Decoder(tuple[_Row, ...])
_TOKEN: Final = msgspec.json.Decoder(_Token)
_PAGE: Final = msgspec.json.Decoder(tuple[_PageToken, ...])
_SLOT: Final = msgspec.json.Decoder(_Slot)
_POLICY: Final = msgspec.json.Decoder(_Policy)
_POLICIES: Final = msgspec.json.Decoder(tuple[_PolicyRow, ...])

_T = TypeVar("_T")


def read_facts(raw: bytes) -> ServerFacts:
    """Read what the server says about itself.

    Raises:
        ServerUnavailable: it is something else; likewise of all functions here.
    """
    facts = _decode(_FACTS, raw)
    return ServerFacts(
        instance_id=facts.instance_id,
        version=facts.version,
        domains=facts.domains,
        https_port=facts.public.https_port,
    )


def read_token(raw: bytes) -> ServerToken:
    """Read a token in full."""
    return _server_token(_decode(_TOKEN, raw))


def read_slot(raw: bytes) -> Slot:
    """Read a revision."""
    return _slot(_decode(_SLOT, raw))


def read_policy(raw: bytes) -> ServerPolicy:
    """Read a policy."""
    policy = _decode(_POLICY, raw)
    return ServerPolicy(etag=policy.etag, owner=_owner(policy.owner))


def read_policies(raw: bytes) -> list[tuple[str, Owner]]:
    """Read ids and owners of a list of policies; those without an owner are left out."""
    owners = ((row.id, _owner(row.owner)) for row in _decode(_POLICIES, raw))
    return [(policy_id, owner) for policy_id, owner in owners if owner is not None]


def read_rows(raw: bytes) -> tuple[list[ListedToken], str | None, int]:
    """Read a page of tokens without their rules.

    Returns:
        Those with an owner, the id of the last row, and the number of all rows.
    """
    rows = _decode(_ROWS, raw)
    return _listed(rows), rows[-1].id if rows else None, len(rows)


def read_page(raw: bytes) -> tuple[list[ListedToken], dict[str, ServerToken], str | None, int]:
    """Read a page of tokens in full.

    Returns:
        As `read_rows`, and behind the rows what a round sees of each, by id.
    """
    rows = _decode(_PAGE, raw)
    states = {row.id: _server_token(row) for row in rows}
    return _listed(rows), states, rows[-1].id if rows else None, len(rows)


def _decode(decoder: msgspec.json.Decoder[_T], raw: bytes) -> _T:
    try:
        return decoder.decode(raw)
    except msgspec.DecodeError as error:
        # A proxy in between, or a server much older or newer than we are.
        raise ServerUnavailable(f"the tunnel server's answer cannot be read: {error}") from error


def write_token(wish: TokenWish) -> dict[str, Any]:
    """Return what a token should be."""
    return {
        "label": wish.label,
        "owner": _write_owner(wish.owner),
        "access": {
            "protocols": wish.protocols,
            "hostnames": wish.hostnames,
            "tcp_ports": _write_ranges(wish.tcp_ports),
            # Ports of the server's own pod: no resource can grant them.
            "container_ports": [],
            "agent_cidrs": wish.agent_cidrs,
        },
        "limits": {
            "max_tunnels": wish.max_tunnels,
            "max_agents": wish.max_agents,
            "max_connections": wish.max_connections,
            "requests_per_second": wish.requests_per_second,
            "bandwidth": wish.bandwidth,
        },
        "suspended": wish.suspended,
        "policy_ids": wish.policy_ids,
    }


def write_policy(wish: PolicyWish) -> dict[str, Any]:
    """Return what a policy should be."""
    http: dict[str, Any] = {"require_tls": wish.requires_tls}
    if wish.is_auth_unresolved:
        http["auth"] = {"basic": {"htpasswd": None}}
    elif wish.users is not None:
        lines = "".join(f"{name}:{hashed}\n" for name, hashed in wish.users)
        http["auth"] = {"basic": {"htpasswd": lines}}
    return {
        "owner": _write_owner(wish.owner),
        "access": {
            "protocols": wish.protocols,
            "hostnames": wish.hostnames,
            "tcp_ports": _write_ranges(wish.tcp_ports),
            "agent_cidrs": wish.agent_cidrs,
            "client_cidrs": wish.client_cidrs,
            "denied_client_cidrs": wish.denied_client_cidrs,
        },
        "limits": {
            "max_tunnels_per_token": wish.max_tunnels_per_token,
            "max_connections_per_tunnel": wish.max_connections_per_tunnel,
            "requests_per_second": wish.requests_per_second,
            "burst": wish.burst,
            "request_body_bytes": wish.request_body_bytes,
            "bandwidth": wish.bandwidth,
            "idle_timeout": wish.idle_timeout_seconds,
        },
        "tokens": {
            "max_lifetime": wish.max_lifetime_seconds,
            "max_tokens": wish.max_tokens,
            "require_rotation": wish.requires_rotation,
        },
        "http": http,
    }


def _listed(rows: Iterable[_Row | _PageToken]) -> list[ListedToken]:
    return [
        ListedToken(id=row.id, label=row.label, owner=owner, usage=_usage(row))
        for row in rows
        if (owner := _owner(row.owner)) is not None
    ]


def _server_token(token: _Token) -> ServerToken:
    access, limits = token.access, token.limits
    wish = TokenWish(
        label=token.label,
        owner=_owner(token.owner),
        protocols=_sorted(access.protocols),
        hostnames=_sorted(access.hostnames),
        tcp_ports=_ranges(access.tcp_ports),
        agent_cidrs=_sorted(access.agent_cidrs),
        max_tunnels=limits.max_tunnels,
        max_agents=limits.max_agents,
        max_connections=limits.max_connections,
        requests_per_second=limits.requests_per_second,
        bandwidth=limits.bandwidth,
        suspended=token.suspended,
        policy_ids=tuple(sorted(token.policy_ids)),
    )
    return ServerToken(
        etag=token.etag,
        wish=wish,
        slots=tuple(_slot(slot) for slot in token.credentials),
        usage=_usage(token),
        effective=token.effective,
    )


def _usage(row: _Row | _Token) -> Usage:
    return Usage(
        tunnels=row.usage.active_tunnels,
        agents=row.usage.active_agents,
        last_used_at=parse_time_or_none(row.last_used_at),
    )


def _slot(slot: _Slot) -> Slot:
    return Slot(
        revision=slot.revision,
        fingerprint=slot.fingerprint,
        not_after=parse_time_or_none(slot.not_after),
    )


def _owner(owner: _Owner | None) -> Owner | None:
    if owner is None:
        return None
    return Owner(cluster=owner.cluster, namespace=owner.namespace, name=owner.name, uid=owner.uid)


def _ranges(ranges: Iterable[_Range] | None) -> tuple[tuple[int, int], ...] | None:
    if ranges is None:
        return None
    return tuple(sorted((ports.start, ports.end or ports.start) for ports in ranges))


def _sorted(values: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))


def _write_owner(owner: Owner | None) -> dict[str, str] | None:
    if owner is None:
        return None
    return {
        "cluster": owner.cluster,
        "namespace": owner.namespace,
        "name": owner.name,
        "uid": owner.uid,
    }


def _write_ranges(ranges: Iterable[tuple[int, int]] | None) -> list[dict[str, int]] | None:
    return None if ranges is None else [{"start": start, "end": end} for start, end in ranges]
