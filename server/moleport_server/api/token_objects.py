"""Tokens as objects that a controller keeps in a wished state, and their credential slots.

Every call can be repeated: putting what is there changes nothing. The caller chooses the id, so that
it finds its token again, and makes the secret, of which the server sees the SHA-256 alone. An object
belongs to the owner it was made for; whoever names another one is refused, whatever else it knows.
"""

import re
from dataclasses import replace
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from moleport_server.access.audit import AuditLog
from moleport_server.access.authentication import merge_named
from moleport_server.api.grants import (
    MAX_ENTRIES,
    EffectiveView,
    Moment,
    OwnerObject,
    Text,
    TokenAccess,
    TokenLimits,
    parse_id,
    show_effective,
    unix_seconds,
)
from moleport_server.api.ports import Registry, StateReader
from moleport_server.api.preconditions import Preconditions, etag
from moleport_server.api.problems import PreconditionFailed, UnprocessableBody
from moleport_server.api.routing import Access, Call, NoQuery, Reply, Route
from moleport_server.api.shapes import Count, Timestamp, TokenView
from moleport_server.api.timestamps import rfc3339, rfc3339_or_none
from moleport_server.clock import Clock
from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Effective, Owner, Token
from moleport_server.errors import ConflictError, InvalidRequest, NotFoundError
from moleport_server.registry.enforcement import Announced
from moleport_server.store.base import TokenRow

FINGERPRINT_CHARACTERS: Final = 16
MAX_REVISION: Final = (1 << 31) - 1
_REVISION: Final = re.compile(r"[1-9][0-9]{0,9}", re.ASCII)
_PATH: Final = "/api/tokens/{id}"


class TokenWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a token should be; what is left out has its default, not its former value."""

    label: Text
    owner: OwnerObject | None = None
    access: TokenAccess = field(default_factory=TokenAccess)
    limits: TokenLimits = field(default_factory=TokenLimits)
    expires_at: Moment | None = None
    suspended: bool = False
    policy_ids: Annotated[list[str], Meta(max_length=MAX_ENTRIES)] = field(default_factory=list)


class CredentialWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a revision slot should hold."""

    sha256: Annotated[
        str, Meta(pattern="^[0-9a-f]{64}$", description="Of the secret in UTF-8, as hex.")
    ]
    not_after: Moment | None = None


class CredentialView(Struct, frozen=True, kw_only=True):
    """One revision slot."""

    revision: int
    fingerprint: Annotated[str, Meta(description="The first characters of the SHA-256.")]
    not_after: Timestamp | None
    ends_at: Annotated[
        Timestamp | None, Meta(description="`not_after`, or earlier where a policy says so.")
    ]
    created_at: Timestamp
    last_used_at: Timestamp | None


class UsageView(Struct, frozen=True, kw_only=True):
    """What a token has open at the moment."""

    active_tunnels: Count
    active_agents: Count
    active_connections: Annotated[Count, Meta(description="Requests and TCP connections.")]


class TokenObject(TokenView, frozen=True, kw_only=True):
    """One token in full."""

    owner: OwnerObject | None
    access: TokenAccess
    limits: TokenLimits
    expires_at: Timestamp | None
    suspended: bool
    policy_ids: list[str]
    effective: EffectiveView
    usage: UsageView
    credentials: list[CredentialView]
    etag: Annotated[str, Meta(description="As in the ETag header.")]


class TokenObjects:
    """Makes the views of tokens."""

    def __init__(
        self, *, store: StateReader, registry: Registry, clock: Clock, domains: tuple[str, ...]
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._domains = domains

    def view(self, row: TokenRow) -> TokenView:
        """Return what the seed API tells."""
        return TokenView(
            id=row.token.id,
            token_hash=_newest(row, row.token, Effective(), self._clock.now()),
            label=row.token.label,
            created_at=rfc3339(row.token.created_at),
            last_used_at=rfc3339_or_none(row.token.last_used_at),
            scope=row.token.scope,
            tunnel_count=row.tunnel_count,
        )

    async def full(self, rows: list[TokenRow]) -> list[TokenObject]:
        """Return everything about tokens."""
        named = {name for row in rows for name in row.token.policy_ids}
        policies = await self._store.find_policies(named) if named else []
        usage = self._usage()
        return [self._full(row, policies, usage) for row in rows]

    def _full(
        self, row: TokenRow, policies: list[Policy], usage: dict[str, UsageView]
    ) -> TokenObject:
        token = row.token
        effective = merge_named(token, policies)
        return TokenObject(
            id=token.id,
            token_hash=_newest(row, token, effective, self._clock.now()),
            label=token.label,
            created_at=rfc3339(token.created_at),
            last_used_at=rfc3339_or_none(token.last_used_at),
            scope=token.scope,
            tunnel_count=row.tunnel_count,
            owner=OwnerObject.show(token.owner),
            access=TokenAccess.show(token.grant),
            limits=TokenLimits.show(token.limits),
            expires_at=rfc3339_or_none(token.expires_at),
            suspended=token.suspended,
            policy_ids=list(token.policy_ids),
            effective=show_effective(effective, self._domains),
            usage=usage.get(token.id, _IDLE),
            credentials=[show_slot(slot, token, effective) for slot in row.credentials],
            etag=etag(token.version),
        )

    def _usage(self) -> dict[str, UsageView]:
        """Count what each token has open, in one walk for all of them."""
        counts: dict[str, list[int]] = {}
        for tunnel in self._registry.tunnels.values():
            if tunnel.token_id is not None:
                count = counts.setdefault(tunnel.token_id, [0, 0, 0])
                count[0] += tunnel.session is not None
                count[2] += tunnel.active
        for session in self._registry.sessions.values():
            if session.principal.token_id is not None:
                counts.setdefault(session.principal.token_id, [0, 0, 0])[1] += 1
        return {
            token_id: UsageView(
                active_tunnels=tunnels, active_agents=agents, active_connections=connections
            )
            for token_id, (tunnels, agents, connections) in counts.items()
        }


class TokenObjectRoutes:
    """Tokens and credentials as a controller keeps them; an extension."""

    def __init__(
        self,
        *,
        store: StateReader,
        objects: TokenObjects,
        enforcement: Announced,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._objects = objects
        self._enforcement = enforcement
        self._clock = clock
        self._audit = audit

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        unknown = (404, "token not found")
        is_full = (507, "store is full")
        no_uuid = (400, "… is no UUID")
        return (
            Route(
                method="GET",
                path=_PATH,
                operation="getToken",
                summary="Show one token in full",
                handler=self._get,
                family="tokens",
                access=Access.ADMIN,
                answer=TokenObject,
                errors=(unknown, no_uuid),
                is_extension=True,
            ),
            Route(
                method="PUT",
                path=_PATH,
                operation="putToken",
                summary="Create or replace a token; what changes holds for its live sessions at once",
                handler=self._put,
                family="tokens",
                access=Access.ADMIN,
                body=TokenWish,
                answer=TokenObject,
                creates=True,
                errors=(
                    no_uuid,
                    (409, "the token belongs to another owner"),
                    (412, "If-Match or If-None-Match does not hold"),
                    (422, "there is no policy …"),
                    is_full,
                ),
                is_extension=True,
            ),
            Route(
                method="PUT",
                path=_PATH + "/credentials/{revision}",
                operation="putCredential",
                summary="Fill a revision slot with the SHA-256 of a secret",
                handler=self._put_credential,
                family="tokens",
                access=Access.ADMIN,
                body=CredentialWish,
                answer=CredentialView,
                creates=True,
                errors=(
                    unknown,
                    no_uuid,
                    (400, "… is no revision"),
                    (409, "another credential has this digest"),
                    is_full,
                ),
                is_extension=True,
            ),
            Route(
                method="DELETE",
                path=_PATH + "/credentials/{revision}",
                operation="deleteCredential",
                summary="Empty a revision slot; sessions that proved it end at once",
                handler=self._delete_credential,
                family="tokens",
                access=Access.ADMIN,
                status=204,
                errors=(
                    (404, "credential not found"),
                    no_uuid,
                    (400, "… is no revision"),
                    is_full,
                ),
                is_extension=True,
            ),
        )

    async def _get(self, call: Call[NoQuery, None]) -> Reply:
        row = await self._store.get_token(parse_id(call.path["id"]))
        if row is None:
            raise NotFoundError("token not found")
        return await self._reply(row)

    async def _put(self, call: Call[NoQuery, TokenWish]) -> Reply:
        token_id = parse_id(call.path["id"])
        conditions = Preconditions.of(call.request)
        wish = self._parse(token_id, call.body)
        row = await self._store.get_token(token_id)
        if row is not None:
            check_owner("token", row.token.owner, wish.owner)
        conditions.check(None if row is None else row.token.version)
        try:
            is_new = await self._write(wish, None if row is None else row.token)
        except NotFoundError as error:
            raise UnprocessableBody(str(error)) from error
        if is_new:
            self._audit.token_created(
                token_id=token_id, label=wish.label, admin=call.principal.is_admin
            )
        await self._enforcement.token_changed(token_id)
        row = await self._store.get_token(token_id)
        if row is None:
            raise NotFoundError("the token was deleted meanwhile")
        return await self._reply(row, status=201 if is_new else 200)

    async def _write(self, wish: Token, current: Token | None) -> bool:
        """Make it so; whether the token is new."""
        if current is None:
            try:
                await self._store.create_token(wish)
            except ConflictError as error:
                raise PreconditionFailed("the token was created by somebody else") from error
            return True
        kept = replace(
            wish,
            # The same patterns may be written in other ways.
            scope=current.scope if wish.grant.hostnames == current.grant.hostnames else wish.scope,
            created_at=current.created_at,
            last_used_at=current.last_used_at,
            version=current.version,
        )
        if kept != current and not await self._store.replace_token(kept, version=current.version):
            raise PreconditionFailed("the token was changed by somebody else meanwhile")
        return False

    def _parse(self, token_id: str, wish: TokenWish) -> Token:
        grant = wish.access.parse()
        return Token(
            id=token_id,
            label=wish.label,
            scope=None if grant.hostnames is None else ",".join(grant.hostnames),
            grant=grant,
            limits=wish.limits.parse(),
            created_at=self._clock.now(),
            expires_at=unix_seconds(wish.expires_at),
            suspended=wish.suspended,
            owner=None if wish.owner is None else wish.owner.parse(),
            policy_ids=tuple(sorted({parse_id(text) for text in wish.policy_ids})),
        )

    async def _put_credential(self, call: Call[NoQuery, CredentialWish]) -> Reply:
        token_id, revision = parse_id(call.path["id"]), _parse_revision(call.path["revision"])
        before = await self._find(token_id)
        is_new = await self._store.put_credential(
            Credential(
                token_id=token_id,
                revision=revision,
                sha256=call.body.sha256,
                not_after=unix_seconds(call.body.not_after),
                created_at=self._clock.now(),
            )
        )
        held = next((slot for slot in before.credentials if slot.revision == revision), None)
        if held is not None and held.sha256 != call.body.sha256:
            await self._enforcement.slot_replaced(token_id, revision)
        await self._enforcement.token_changed(token_id)
        row = await self._find(token_id)
        view = (await self._objects.full([row]))[0]
        slot = next((slot for slot in view.credentials if slot.revision == revision), None)
        if slot is None:
            raise NotFoundError("the credential was deleted meanwhile")
        return Reply(slot, {}, status=201 if is_new else 200)

    async def _delete_credential(self, call: Call[NoQuery, None]) -> None:
        token_id, revision = parse_id(call.path["id"]), _parse_revision(call.path["revision"])
        if not await self._store.delete_credential(token_id, revision):
            raise NotFoundError("credential not found")
        await self._enforcement.token_changed(token_id)

    async def _find(self, token_id: str) -> TokenRow:
        row = await self._store.get_token(token_id)
        if row is None:
            raise NotFoundError("token not found")
        return row

    async def _reply(self, row: TokenRow, *, status: int | None = None) -> Reply:
        (view,) = await self._objects.full([row])
        return Reply(view, {"ETag": view.etag}, status=status)


_IDLE: Final = UsageView(active_tunnels=0, active_agents=0, active_connections=0)


def check_owner(kind: str, current: Owner | None, wanted: Owner | None) -> None:
    """Check that an object belongs to who asks.

    Raises:
        ConflictError: it has another owner, or none at all: what was made by hand is not taken over.
    """
    if current == wanted:
        return
    if current is None:
        raise ConflictError(f"the {kind} was made by hand; it has no owner")
    name = f"{current.namespace}/{current.name}" if current.namespace else current.name
    raise ConflictError(f"the {kind} belongs to {name} of cluster {current.cluster}")


def show_slot(slot: Credential, token: Token, effective: Effective) -> CredentialView:
    """Return the view of a revision slot."""
    created_at = token.created_at if slot.created_at is None else slot.created_at
    return CredentialView(
        revision=slot.revision,
        fingerprint=slot.sha256[:FINGERPRINT_CHARACTERS],
        not_after=rfc3339_or_none(slot.not_after),
        ends_at=rfc3339_or_none(slot.ends_at(token, effective)),
        created_at=rfc3339(created_at),
        last_used_at=rfc3339_or_none(slot.last_used_at),
    )


def _newest(row: TokenRow, token: Token, effective: Effective, now: float) -> str:
    """Return the digest of the newest valid secret, or nothing."""
    for slot in reversed(row.credentials):
        ends_at = slot.ends_at(token, effective)
        if ends_at is None or now < ends_at:
            return slot.sha256
    return ""


def _parse_revision(text: str) -> int:
    if _REVISION.fullmatch(text) is None or int(text) > MAX_REVISION:
        raise InvalidRequest(f"{text[:80]!r} is no revision; they are numbers from 1 on")
    return int(text)
