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
from moleport_server.api.preconditions import Preconditions
from moleport_server.api.routing import Access, Call, NoQuery, Reply, Route
from moleport_server.api.shapes import CreatedTokenView, TokenRequest, TokenView
from moleport_server.api.token_objects import TokenObjects
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
    owner_cluster: (
        Annotated[
            str,
            Meta(description="Tokens that the operator of this cluster owns, each in full."),
        ]
        | UnsetType
    ) = UNSET


class TokenRoutes:
    """The tokens family."""

    def __init__(
        self,
        *,
        store: StateReader,
        registry: Registry,
        authenticator: Authenticator,
        objects: TokenObjects,
        clock: Clock,
        audit: AuditLog,
        new_id: Callable[[], UUID],
    ) -> None:
        self._store = store
        self._registry = registry
        self._authenticator = authenticator
        self._objects = objects
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
                errors=(
                    (400, "If-Match must be * or entity tags in quotes …"),
                    (404, "token not found"),
                    (412, "If-Match or If-None-Match does not hold"),
                    (507, "store is full"),
                ),
            ),
        )

    async def _list(self, call: Call[TokensQuery, None]) -> Reply:
        limit, after = call.query.limit, call.query.after or None
        cluster = None if call.query.owner_cluster is UNSET else call.query.owner_cluster
        is_whole = limit is UNSET
        most = 0 if limit is UNSET else min(limit, MOST_TOKENS)
        rows: list[TokenRow] = []
        if is_whole or most:
            # One more than asked for tells whether there is a next page.
            rows = await self._store.list_tokens(
                after=after, limit=None if is_whole else most + 1, owner_cluster=cluster
            )
        headers = {}
        if not is_whole and len(rows) > most:
            rows = rows[:most]
            page: dict[str, str | int] = {"limit": most, "after": rows[-1].token.id}
            if cluster is not None:
                page["owner_cluster"] = cluster
            headers["Link"] = f'<{_PATH}?{urlencode(page)}>; rel="next"'
        if cluster is None:
            return Reply([self._objects.view(row) for row in rows], headers)
        return Reply(await self._objects.full(rows), headers)

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
        credential = Credential(
            token_id=token_id, revision=1, sha256=digest, created_at=token.created_at
        )
        await self._store.create_token(token, credential)
        self._audit.token_created(
            token_id=token_id, label=wanted.label, admin=call.principal.is_admin
        )
        return CreatedTokenView(id=token_id, label=wanted.label, token=secret)

    async def _delete(self, call: Call[NoQuery, None]) -> None:
        token_id = call.path["id"]
        conditions = Preconditions.of(call.request)
        if conditions != Preconditions():
            row = await self._store.get_token(token_id)
            if row is None:
                raise NotFoundError("token not found")
            conditions.check(row.token.version)
        if not await self._store.delete_token(token_id):
            raise NotFoundError("token not found")
        self._authenticator.forget(token_id)
        self._audit.token_deleted(token_id=token_id, admin=call.principal.is_admin)
        await self._registry.close_token(token_id, "token deleted")
