"""The tunnel server's REST API: tokens, credentials and policies, and facts about the server.

Implements the ports of `token_server.py`, `policy_reconciler.py` and `upkeep.py`; `server_bodies.py` knows
the JSON. A call that gets an answer counts as a sign of life for the circuit breaker; one without an answer,
or with a fault of the server, counts against it. The admin token and the authorities are files, read again
when they change.
"""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
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
from moleport_operator.listed import Listed
from moleport_operator.plan.policy import PolicyWish, ServerPolicy
from moleport_operator.plan.records import Owner, ServerToken, Slot, TokenWish
from moleport_operator.quantities import format_time_or_none
from moleport_operator.server_bodies import (
    ListedToken,
    ServerFacts,
    read_facts,
    read_page,
    read_policies,
    read_policy,
    read_rows,
    read_slot,
    read_token,
    write_policy,
    write_token,
)
from moleport_operator.settings import ServerAccess

logger = logging.getLogger(__name__)

MOST_CONNECTIONS: Final = 16
INSTANCE: Final = "X-Moleport-Instance"
PAGE: Final = 500
"""Rows of one answer: neither side is busy with it for long."""


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
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a client on top of a session.

        Args:
            session: owned by the caller.
            access: where the server is.
            breaker: passed by every call but `facts`, which is its probe.
            count_call: told about each call.
            authorities: those of the session, to be looked at before each call.
            monotonic: tells how old a list is.
        """
        self._session = session
        self._url = access.url.rstrip("/")
        self._token = AdminToken(access.token_file)
        self._authorities = authorities
        self._breaker = breaker
        self._count_call = count_call
        self._instance: str | None = None
        self._listed = Listed(monotonic)
        self.when_replaced: Callable[[], None] = lambda: None
        """Called when the server turns out to have a new database."""

    async def facts(self) -> ServerFacts:
        """Ask the server about itself; also while the breaker is open."""
        _, raw = await self._call("facts", "GET", "/api/server", is_probe=True)
        return read_facts(raw)

    async def get_token(self, token_id: str) -> ServerToken | None:
        """Implement `TokenServer`."""
        status, raw = await self._call("get_token", "GET", _token(token_id), missing_ok=True)
        return None if status == 404 else read_token(raw)

    def listed(self, token_id: str) -> ServerToken | None:
        """Implement `TokenServer`."""
        return self._listed.take(token_id)

    async def put_token(self, token_id: str, wish: TokenWish, etag: str | None) -> ServerToken:
        """Implement `TokenServer`."""
        with self._writing(token_id):
            _, raw = await self._call(
                "put_token",
                "PUT",
                _token(token_id),
                body=write_token(wish),
                headers=_condition(etag),
                conflict=ForeignOwner,
            )
        return read_token(raw)

    async def delete_token(self, token_id: str) -> None:
        """Implement `TokenServer`."""
        with self._writing(token_id):
            await self._call("delete_token", "DELETE", _token(token_id), missing_ok=True)

    async def put_credential(
        self, token_id: str, revision: int, sha256: str, not_after: int | None
    ) -> Slot:
        """Implement `TokenServer`."""
        with self._writing(token_id):
            status, raw = await self._call(
                "put_credential",
                "PUT",
                f"{_token(token_id)}/credentials/{revision}",
                body={"sha256": sha256, "not_after": format_time_or_none(not_after)},
                missing_ok=True,
            )
        if status == 404:
            raise Conflict("the server lost the token meanwhile")
        return read_slot(raw)

    async def delete_credential(self, token_id: str, revision: int) -> None:
        """Implement `TokenServer`."""
        path = f"{_token(token_id)}/credentials/{revision}"
        with self._writing(token_id):
            await self._call("delete_credential", "DELETE", path, missing_ok=True)

    async def list_tokens(self, owner_cluster: str) -> list[ListedToken]:
        """Return all tokens that are marked as ours, page by page."""
        found: list[ListedToken] = []
        params = {"owner_cluster": owner_cluster, "limit": str(PAGE)}
        while True:
            _, raw = await self._call("list_tokens", "GET", "/api/tokens", params=params)
            rows, last, count = read_rows(raw)
            found += rows
            if last is None or count < PAGE:
                return found
            params["after"] = last

    async def look_ahead(
        self, owner_cluster: str, *, after: str | None, limit: int
    ) -> tuple[list[ListedToken], str | None]:
        """Implement `OwnedObjects`."""
        params = {"owner_cluster": owner_cluster, "limit": str(limit)}
        if after is not None:
            params["after"] = after
        with self._listed.listing() as listing:
            _, raw = await self._call("look_ahead", "GET", "/api/tokens", params=params)
            rows, states, last, count = read_page(raw)
            self._listed.keep(listing, states)
        return rows, last if count == limit else None

    async def get_policy(self, policy_id: str) -> ServerPolicy | None:
        """Implement `PolicyServer`."""
        status, raw = await self._call("get_policy", "GET", _policy(policy_id), missing_ok=True)
        return None if status == 404 else read_policy(raw)

    async def put_policy(self, policy_id: str, wish: PolicyWish, etag: str | None) -> ServerPolicy:
        """Implement `PolicyServer`."""
        _, raw = await self._call(
            "put_policy",
            "PUT",
            _policy(policy_id),
            body=write_policy(wish),
            headers=_condition(etag),
            conflict=ForeignOwner,
        )
        return read_policy(raw)

    async def delete_policy(self, policy_id: str) -> None:
        """Implement `PolicyServer`."""
        await self._call("delete_policy", "DELETE", _policy(policy_id), missing_ok=True)

    async def list_policies(self, owner_cluster: str) -> list[tuple[str, Owner]]:
        """Return ids and owners of all policies that are marked as ours."""
        _, raw = await self._call(
            "list_policies", "GET", "/api/policies", params={"owner_cluster": owner_cluster}
        )
        return read_policies(raw)

    @contextmanager
    def _writing(self, token_id: str) -> Iterator[None]:
        """Forget what was listed of a token, when a write to it begins and when it is over."""
        self._listed.drop(token_id)
        try:
            yield
        finally:
            self._listed.drop(token_id)

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
    ) -> tuple[int, bytes]:
        """Make one call; returns status and content.

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
            self._failed(reason)
            raise ServerUnavailable(reason) from error
        self._count_call(operation, str(status), time.monotonic() - began)
        if status >= 500:
            reason = f"the tunnel server answers {status}: {_sentence(_json(raw))}"
            self._failed(reason)
            raise ServerUnavailable(reason, retry_after=_seconds(retry_after))
        if status in {401, 403}:
            sentence = _sentence(_json(raw))
            reason = f"the tunnel server refuses the operator's own token: {sentence}"
            self._failed(reason)
            raise ServerUnavailable(reason)
        self._breaker.succeeded()
        self._note_instance(instance)
        if status < 300 or (status == 404 and missing_ok):
            return status, raw
        raise _problem(status, _json(raw), retry_after, conflict)

    def _failed(self, reason: str) -> None:
        self._listed.clear()
        self._breaker.failed(reason)

    def _note_instance(self, instance: str | None) -> None:
        if instance is None or instance == self._instance:
            return
        was_known = self._instance is not None
        self._instance = instance
        self._listed.clear()
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
