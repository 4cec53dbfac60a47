"""Tokens: list, create and delete them; for the admin.

A secret exists twice: with its owner, who sees it once, and as SHA-256 in the store. Deleting a token
ends what its agents have open.
"""

import hashlib
from collections.abc import Callable
from typing import Annotated, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from moleport_server.access.audit import AuditLog
from moleport_server.api.ports import Authenticator, Registry, StateReader
from moleport_server.api.routing import Access, Call, NoQuery, Reply, Route
from moleport_server.api.shapes import CreatedTokenView, TokenRequest, TokenView
from moleport_server.api.timestamps import rfc3339, rfc3339_or_none
from moleport_server.clock import Clock
from moleport_server.domain.scope import parse_scope
from moleport_server.domain.token import Credential, Grant, Token
from moleport_server.errors import NotFoundError
from moleport_server.store.base import TokenRow

MOST_TOKENS: Final = 10_000
"""Rows of one page; without a limit everything comes, as in the seed API."""

_PATH: Final = "/api/tokens"


class TokensQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which page."""

    limit: (
        Annotated[
            int, Meta(ge=0, description='Rows at most; the next page is in `Link: …; rel="next"`.')
        ]
        | UnsetType
    ) = UNSET
    after: (
        Annotated[str, Meta(description="Cursor, from the `Link` of the page before.")] | UnsetType
    ) = UNSET


class TokenRoutes:
    """The tokens family."""

    def __init__(
        self,
        *,
        store: StateReader,
        registry: Registry,
        authenticator: Authenticator,
        clock: Clock,
        audit: AuditLog,
        new_id: Callable[[], UUID],
    ) -> None:
        self._store = store
        self._registry = registry
        self._authenticator = authenticator
        self._clock = clock
        self._audit = audit
        self._new_id = new_id

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        return (
            Route(
                method="GET",
                path=_PATH,
                operation="listTokens",
                summary="List tokens, newest first",
                handler=self._list,
                family="tokens",
                access=Access.ADMIN,
                query=TokensQuery,
                answer=list[TokenView],
            ),
            Route(
                method="POST",
                path=_PATH,
                operation="createToken",
                summary="Create a token; the answer shows its secret, only this once",
                handler=self._create,
                family="tokens",
                access=Access.ADMIN,
                body=TokenRequest,
                status=201,
                answer=CreatedTokenView,
                errors=((507, "store is full"),),
            ),
            Route(
                method="DELETE",
                path=_PATH + "/{id}",
                operation="deleteToken",
                summary="Delete a token and disconnect its agents",
                handler=self._delete,
                family="tokens",
                access=Access.ADMIN,
                status=204,
                errors=((404, "token not found"), (507, "store is full")),
            ),
        )

    async def _list(self, call: Call[TokensQuery, None]) -> Reply:
        limit, after = call.query.limit, call.query.after or None
        if limit is UNSET:
            rows = await self._store.list_tokens(after=after)
            return Reply([self._view(row) for row in rows], {})
        limit = min(limit, MOST_TOKENS)
        # One more than asked for tells whether there is a next page.
        rows = await self._store.list_tokens(after=after, limit=limit + 1) if limit else []
        headers = {}
        if len(rows) > limit:
            cursor = urlencode({"limit": limit, "after": rows[limit - 1].token.id})
            headers["Link"] = f'<{_PATH}?{cursor}>; rel="next"'
        return Reply([self._view(row) for row in rows[:limit]], headers)

    async def _create(self, call: Call[NoQuery, TokenRequest]) -> CreatedTokenView:
        wanted = call.body
        grant = Grant(hostnames=parse_scope(wanted.scope))
        token_id, secret = str(self._new_id()), str(self._new_id())
        token = Token(
            id=token_id,
            label=wanted.label,
            scope=wanted.scope,
            grant=grant,
            created_at=self._clock.now(),
        )
        digest = hashlib.sha256(secret.encode()).hexdigest()
        credential = Credential(token_id=token_id, revision=1, sha256=digest)
        await self._store.create_token(token, credential)
        self._audit.token_created(
            token_id=token_id, label=wanted.label, admin=call.principal.is_admin
        )
        return CreatedTokenView(id=token_id, label=wanted.label, token=secret)

    async def _delete(self, call: Call[NoQuery, None]) -> None:
        token_id = call.path["id"]
        if not await self._store.delete_token(token_id):
            raise NotFoundError("token not found")
        self._authenticator.forget(token_id)
        self._audit.token_deleted(token_id=token_id, admin=call.principal.is_admin)
        await self._registry.close_token(token_id, "token deleted")

    def _view(self, row: TokenRow) -> TokenView:
        now = self._clock.now()
        valid = (
            credential.sha256
            for credential in reversed(row.credentials)
            if credential.not_after is None or now < credential.not_after
        )
        return TokenView(
            id=row.token.id,
            token_hash=next(valid, ""),
            label=row.token.label,
            created_at=rfc3339(row.token.created_at),
            last_used_at=rfc3339_or_none(row.token.last_used_at),
            scope=row.token.scope,
            tunnel_count=row.tunnel_count,
        )
