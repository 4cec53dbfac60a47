"""The tunnel server's REST API: tokens, credentials and policies, and facts about the server.

Implements the ports of `token_server.py` and `policy_reconciler.py`. Only this module knows the JSON of
the API. A call that gets an answer counts as a sign of life for the circuit breaker; one without an answer,
or with a fault of the server, counts against it. The admin token and the authorities are files, read again
when they change.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from moleport_operator.breaker import Breaker
from moleport_operator.errors import (
    ConfigError,
    Conflict,
    ForeignOwner,
    Rejected,
    ServerUnavailable,
)
from moleport_operator.plan.policy import PolicyWish, ServerPolicy
from moleport_operator.plan.records import Owner, ServerToken, Slot, TokenWish, Usage
from moleport_operator.quantities import format_time_or_none, parse_time_or_none
from moleport_operator.settings import ServerAccess

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 16
INSTANCE: Final = "X-Moleport-Instance"
PAGE: Final = 500
"""Rows of one answer: neither side is busy with it for long."""


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


CountCall = Callable[[str, str, float], None]
"""Told the operation, the status or `error`, and the seconds of each call."""


class AdminToken:
    """The token file; a mounted Secret may change it at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._text = ""

    def read(self) -> str:
        """Return the token.

        Raises:
            ServerUnavailable: the file is missing, empty, or cannot be read now.
        """
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._text = self._path.read_text(encoding="utf-8").strip()
                self._stamp = stamp
        except OSError as error:
            raise ServerUnavailable(f"the file of the admin token: {error.strerror}") from error
        if not self._text:
            raise ServerUnavailable("the file of the admin token is empty")
        return self._text


class Authorities:
    """The authorities that may vouch for the server; a mounted Secret may change their file at any time."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: it is no file of certificates.
        """
        self._path = path
        try:
            self._stamp = self._look()
            self.context = ssl.create_default_context(cafile=str(path))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError([f"the CA file {path} cannot be used: {error}"]) from error

    def refresh(self) -> None:
        """Trust also what a changed file holds; what it held before stays trusted until a restart."""
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self.context.load_verify_locations(cafile=str(self._path))
                self._stamp = stamp
        except (OSError, ssl.SSLError) as error:
            # The calls themselves tell whether the old ones still do.
            logger.warning("authorities not read again", extra={"reason": str(error)})

    def _look(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size


@asynccontextmanager
async def open_server(
    access: ServerAccess, breaker: Breaker, count_call: CountCall
) -> AsyncIterator[Server]:
    """Open a client; it is closed with the context.

    Raises:
        ConfigError: the CA file is no file of certificates.
    """
    authorities = None if access.ca_file is None else Authorities(access.ca_file)
    tls = True if authorities is None else authorities.context
    timeout = aiohttp.ClientTimeout(total=access.request_seconds, connect=5)
    connector = aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=tls)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Server(session, access, breaker, count_call, authorities)


class Server:
    """Calls of the tunnel server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        access: ServerAccess,
        breaker: Breaker,
        count_call: CountCall,
        authorities: Authorities | None = None,
    ) -> None:
        """Make a client on top of a session.

        Args:
            session: owned by the caller.
            access: where the server is.
            breaker: passed by every call but `facts`, which is its probe.
            count_call: told about each call.
            authorities: those of the session, to be looked at before each call.
        """
        self._session = session
        self._url = access.url.rstrip("/")
        self._token = AdminToken(access.token_file)
        self._authorities = authorities
        self._breaker = breaker
        self._count_call = count_call
        self._instance: str | None = None
        self.when_replaced: Callable[[], None] = lambda: None
        """Called when the server turns out to have a new database."""

    async def facts(self) -> ServerFacts:
        """Ask the server about itself; also while the breaker is open."""
        _, answer = await self._call("facts", "GET", "/api/server", is_probe=True)
        public = answer.get("public") or {}
        return ServerFacts(
            instance_id=answer["instance_id"],
            version=answer.get("version", ""),
            domains=tuple(answer.get("domains") or ()),
            https_port=public.get("https_port"),
        )

    async def get_token(self, token_id: str) -> ServerToken | None:
        """Implement `TokenServer`."""
        status, answer = await self._call("get_token", "GET", _token(token_id), missing_ok=True)
        return None if status == 404 else _read_token(answer)

    async def put_token(self, token_id: str, wish: TokenWish, etag: str | None) -> ServerToken:
        """Implement `TokenServer`."""
        _, answer = await self._call(
            "put_token",
            "PUT",
            _token(token_id),
            body=_write_token(wish),
            headers=_condition(etag),
            conflict=ForeignOwner,
        )
        return _read_token(answer)

    async def delete_token(self, token_id: str) -> None:
        """Implement `TokenServer`."""
        await self._call("delete_token", "DELETE", _token(token_id), missing_ok=True)

    async def put_credential(
        self, token_id: str, revision: int, sha256: str, not_after: int | None
    ) -> Slot:
        """Implement `TokenServer`."""
        status, answer = await self._call(
            "put_credential",
            "PUT",
            f"{_token(token_id)}/credentials/{revision}",
            body={"sha256": sha256, "not_after": format_time_or_none(not_after)},
            missing_ok=True,
        )
        if status == 404:
            raise Conflict("the server lost the token meanwhile")
        return _read_slot(answer)

    async def delete_credential(self, token_id: str, revision: int) -> None:
        """Implement `TokenServer`."""
        path = f"{_token(token_id)}/credentials/{revision}"
        await self._call("delete_credential", "DELETE", path, missing_ok=True)

    async def list_tokens(self, owner_cluster: str) -> list[ListedToken]:
        """Return all tokens that are marked as ours, page by page."""
        found: list[ListedToken] = []
        params = {"owner_cluster": owner_cluster, "limit": str(PAGE)}
        while True:
            _, answer = await self._call("list_tokens", "GET", "/api/tokens", params=params)
            found += (
                ListedToken(id=row["id"], label=row["label"], owner=owner, usage=_read_usage(row))
                for row in answer
                if (owner := _read_owner(row.get("owner"))) is not None
            )
            if len(answer) < PAGE:
                return found
            params["after"] = answer[-1]["id"]

    async def get_policy(self, policy_id: str) -> ServerPolicy | None:
        """Implement `PolicyServer`."""
        status, answer = await self._call("get_policy", "GET", _policy(policy_id), missing_ok=True)
        return None if status == 404 else _read_policy(answer)

    async def put_policy(self, policy_id: str, wish: PolicyWish, etag: str | None) -> ServerPolicy:
        """Implement `PolicyServer`."""
        _, answer = await self._call(
            "put_policy",
            "PUT",
            _policy(policy_id),
            body=_write_policy(wish),
            headers=_condition(etag),
            conflict=ForeignOwner,
        )
        return _read_policy(answer)

    async def delete_policy(self, policy_id: str) -> None:
        """Implement `PolicyServer`."""
        await self._call("delete_policy", "DELETE", _policy(policy_id), missing_ok=True)

    async def list_policies(self, owner_cluster: str) -> list[tuple[str, Owner]]:
        """Return ids and owners of all policies that are marked as ours."""
        _, answer = await self._call(
            "list_policies", "GET", "/api/policies", params={"owner_cluster": owner_cluster}
        )
        owners = ((row["id"], _read_owner(row.get("owner"))) for row in answer)
        return [(policy_id, owner) for policy_id, owner in owners if owner is not None]

    async def _call(
        self,
        operation: str,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        missing_ok: bool = False,
        conflict: type[Rejected] | None = None,
        is_probe: bool = False,
    ) -> tuple[int, Any]:
        """Make one call; returns status and JSON.

        Raises:
            Conflict: 412, and 409 where that is no question of owners.
            Rejected: 4xx that a retry cannot heal; `conflict` is the class for 409.
            ServerUnavailable: no answer, 401, 403, 429, 5xx, or an open breaker.
        """
        if not is_probe:
            self._breaker.check()
        every = {
            "Authorization": f"Bearer {self._token.read()}",
            "Content-Type": "application/json",
        }
        content = None if body is None else json.dumps(body).encode()
        if self._authorities is not None:
            self._authorities.refresh()
        began = time.monotonic()
        try:
            async with self._session.request(
                method,
                self._url + path,
                params=params,
                data=content,
                headers={**every, **(headers or {})},
            ) as response:
                raw = await response.read()
                status, instance = response.status, response.headers.get(INSTANCE)
                retry_after = response.headers.get("Retry-After")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count_call(operation, "error", time.monotonic() - began)
            reason = f"the tunnel server does not answer: {type(error).__name__}"
            self._breaker.failed(reason)
            raise ServerUnavailable(reason) from error
        self._count_call(operation, str(status), time.monotonic() - began)
        answer = _json(raw)
        if status >= 500:
            reason = f"the tunnel server answers {status}: {_sentence(answer)}"
            self._breaker.failed(reason)
            raise ServerUnavailable(reason, retry_after=_seconds(retry_after))
        if status in {401, 403}:
            reason = f"the tunnel server refuses the operator's own token: {_sentence(answer)}"
            self._breaker.failed(reason)
            raise ServerUnavailable(reason)
        self._breaker.succeeded()
        self._note_instance(instance)
        if status < 300 or (status == 404 and missing_ok):
            return status, answer
        raise _problem(status, answer, retry_after, conflict)

    def _note_instance(self, instance: str | None) -> None:
        if instance is None or instance == self._instance:
            return
        was_known = self._instance is not None
        self._instance = instance
        if was_known:
            self.when_replaced()


def _problem(
    status: int, answer: Any, retry_after: str | None, conflict: type[Rejected] | None
) -> Exception:
    sentence = _sentence(answer)
    code = str(answer.get("code") or status) if isinstance(answer, dict) else str(status)
    if status == 429:
        return ServerUnavailable(f"slow down: {sentence}", retry_after=_seconds(retry_after) or 1)
    if status == 412 or (status == 409 and conflict is None):
        return Conflict(sentence)
    if status == 409 and conflict is not None:
        return conflict(code, sentence)
    return Rejected(code, sentence)


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw else {}
    except ValueError:
        return {}


def _sentence(answer: Any) -> str:
    return str(answer.get("error", ""))[:500] if isinstance(answer, dict) else ""


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isdecimal() else None


def _token(token_id: str) -> str:
    return f"/api/tokens/{token_id}"


def _policy(policy_id: str) -> str:
    return f"/api/policies/{policy_id}"


def _condition(etag: str | None) -> dict[str, str]:
    return {"If-None-Match": "*"} if etag is None else {"If-Match": etag}


def _write_token(wish: TokenWish) -> dict[str, Any]:
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


def _read_token(answer: Mapping[str, Any]) -> ServerToken:
    access, limits = answer.get("access") or {}, answer.get("limits") or {}
    wish = TokenWish(
        label=answer["label"],
        owner=_read_owner(answer.get("owner")),
        protocols=_sorted(access.get("protocols")),
        hostnames=_sorted(access.get("hostnames")),
        tcp_ports=_read_ranges(access.get("tcp_ports")),
        agent_cidrs=_sorted(access.get("agent_cidrs")),
        max_tunnels=limits.get("max_tunnels"),
        max_agents=limits.get("max_agents"),
        max_connections=limits.get("max_connections"),
        requests_per_second=limits.get("requests_per_second"),
        bandwidth=limits.get("bandwidth"),
        suspended=bool(answer.get("suspended")),
        policy_ids=tuple(sorted(answer.get("policy_ids") or ())),
    )
    return ServerToken(
        etag=answer["etag"],
        wish=wish,
        slots=tuple(_read_slot(slot) for slot in answer.get("credentials") or ()),
        usage=_read_usage(answer),
        effective=answer.get("effective") or {},
    )


def _read_usage(answer: Mapping[str, Any]) -> Usage:
    usage = answer.get("usage") or {}
    return Usage(
        tunnels=usage.get("active_tunnels", 0),
        agents=usage.get("active_agents", 0),
        last_used_at=parse_time_or_none(answer.get("last_used_at")),
    )


def _read_slot(slot: Mapping[str, Any]) -> Slot:
    return Slot(
        revision=slot["revision"],
        fingerprint=slot["fingerprint"],
        not_after=parse_time_or_none(slot.get("not_after")),
    )


def _write_policy(wish: PolicyWish) -> dict[str, Any]:
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


def _read_policy(answer: Mapping[str, Any]) -> ServerPolicy:
    return ServerPolicy(etag=answer["etag"], owner=_read_owner(answer.get("owner")))


def _write_owner(owner: Owner | None) -> dict[str, str] | None:
    if owner is None:
        return None
    return {
        "cluster": owner.cluster,
        "namespace": owner.namespace,
        "name": owner.name,
        "uid": owner.uid,
    }


def _read_owner(owner: Mapping[str, str] | None) -> Owner | None:
    if owner is None:
        return None
    return Owner(
        cluster=owner["cluster"],
        namespace=owner.get("namespace", ""),
        name=owner["name"],
        uid=owner["uid"],
    )


def _write_ranges(ranges: Iterable[tuple[int, int]] | None) -> list[dict[str, int]] | None:
    return None if ranges is None else [{"start": start, "end": end} for start, end in ranges]


def _read_ranges(ranges: Iterable[Mapping[str, int]] | None) -> tuple[tuple[int, int], ...] | None:
    if ranges is None:
        return None
    return tuple(sorted((r["start"], r.get("end") or r["start"]) for r in ranges))


def _sorted(values: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))
