"""Policies as objects: bounds that hold for every token which names them.

A changed policy holds for live sessions before the call returns. Passwords come as an htpasswd file and
are never shown again. A policy that tokens name stays: without it they would be allowed more.
"""

from dataclasses import replace
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from moleport_server.access.htpasswd import parse_htpasswd
from moleport_server.api.grants import (
    List,
    Network,
    Number,
    OwnerObject,
    Pattern,
    PortRange,
    Rate,
    Seconds,
    TokenRules,
    check_burst,
    parse_id,
    parse_networks,
    parse_patterns,
    parse_protocols,
    parse_ranges,
    show_networks,
    show_ranges,
)
from moleport_server.api.ports import StateReader
from moleport_server.api.preconditions import Preconditions, etag
from moleport_server.api.problems import PreconditionFailed, UnprocessableBody
from moleport_server.api.routing import Access, Call, NoQuery, Reply, Route
from moleport_server.api.shapes import Count
from moleport_server.api.token_objects import check_owner
from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Limits
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import ConflictError, InvalidRequest, NotFoundError
from moleport_server.registry.enforcement import Announced
from moleport_server.store.base import PolicyRow

_PATH: Final = "/api/policies"
_MAX_FILE: Final = 16_384


class PolicyAccess(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens may bind, and from where agents and visitors may come."""

    protocols: Annotated[list[TunnelProtocol], List] | None = None
    hostnames: Annotated[list[Pattern], List] | None = None
    tcp_ports: Annotated[list[PortRange], List] | None = None
    agent_cidrs: Annotated[list[Network], List] | None = None
    client_cidrs: Annotated[list[Network], List] | None = None
    denied_client_cidrs: Annotated[list[Network], List] | None = None


class PolicyLimits(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much each token may use."""

    max_tunnels_per_token: Number | None = None
    max_connections_per_tunnel: Number | None = None
    requests_per_second: Rate | None = None
    burst: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    request_body_bytes: Number | None = None
    bandwidth: Annotated[
        Annotated[int, Meta(ge=1, le=(1 << 53) - 1)] | None,
        Meta(description="Bytes per second of a token, both directions summed."),
    ] = None
    idle_timeout: Annotated[
        Seconds | None, Meta(description="Seconds after which a silent connection is ended.")
    ] = None

    def parse(self) -> Limits:
        """Return the limits.

        Raises:
            UnprocessableBody: a burst without a rate.
        """
        check_burst(self.burst, self.requests_per_second)
        return Limits(
            max_tunnels=self.max_tunnels_per_token,
            max_connections_per_tunnel=self.max_connections_per_tunnel,
            requests_per_second=self.requests_per_second,
            burst=self.burst,
            request_body_bytes=self.request_body_bytes,
            bandwidth=self.bandwidth,
            idle_seconds=self.idle_timeout,
        )


class BasicWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HTTP basic authentication."""

    htpasswd: Annotated[
        Annotated[str, Meta(max_length=_MAX_FILE)] | None,
        Meta(
            description="Lines of `user:hash` with bcrypt hashes. null: it could not be found out,"
            " and nobody gets through by HTTP."
        ),
    ]

    def __repr__(self) -> str:
        return "BasicWish(htpasswd=…)"


class AuthWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How visitors by HTTP prove who they are."""

    basic: BasicWish


class HttpWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What visitors by HTTP have to do."""

    require_tls: bool = False
    auth: AuthWish | None = None


class PolicyWish(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy should be; what is left out restricts nothing."""

    owner: OwnerObject | None = None
    access: PolicyAccess = field(default_factory=PolicyAccess)
    limits: PolicyLimits = field(default_factory=PolicyLimits)
    tokens: TokenRules = field(default_factory=TokenRules)
    http: HttpWish = field(default_factory=HttpWish)


class HttpView(Struct, frozen=True, kw_only=True):
    """What visitors by HTTP have to do, without any hash."""

    require_tls: bool
    users: Annotated[list[str] | None, Meta(description="null: no password is asked for.")]
    is_auth_unresolved: bool


class PolicyView(Struct, frozen=True, kw_only=True):
    """One policy."""

    id: str
    owner: OwnerObject | None
    access: PolicyAccess
    limits: PolicyLimits
    tokens: TokenRules
    http: HttpView
    attached_tokens: Annotated[Count, Meta(description="How many tokens name it.")]
    etag: Annotated[str, Meta(description="As in the ETag header.")]


class PoliciesQuery(Struct, frozen=True, kw_only=True):
    """Which policies."""

    owner_cluster: (
        Annotated[str, Meta(description="Those that the operator of this cluster owns.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class PolicyRoutes:
    """The policies family; an extension."""

    def __init__(self, *, store: StateReader, enforcement: Announced) -> None:
        self._store = store
        self._enforcement = enforcement

    def routes(self) -> tuple[Route, ...]:
        """Return the calls of this family."""
        one, unknown = _PATH + "/{id}", ((404, "policy not found"), (400, "… is no UUID"))
        return (
            Route(
                method="GET",
                path=_PATH,
                operation="listPolicies",
                summary="List policies by id",
                handler=self._list,
                family="policies",
                access=Access.ADMIN,
                query=PoliciesQuery,
                answer=list[PolicyView],
                is_extension=True,
            ),
            Route(
                method="GET",
                path=one,
                operation="getPolicy",
                summary="Show one policy",
                handler=self._get,
                family="policies",
                access=Access.ADMIN,
                answer=PolicyView,
                errors=unknown,
                is_extension=True,
            ),
            Route(
                method="PUT",
                path=one,
                operation="putPolicy",
                summary="Create or replace a policy; it holds for live sessions at once",
                handler=self._put,
                family="policies",
                access=Access.ADMIN,
                body=PolicyWish,
                answer=PolicyView,
                creates=True,
                errors=(
                    (400, "… is no UUID"),
                    (409, "the policy belongs to another owner"),
                    (412, "If-Match or If-None-Match does not hold"),
                    (507, "store is full"),
                ),
                is_extension=True,
            ),
            Route(
                method="DELETE",
                path=one,
                operation="deletePolicy",
                summary="Delete a policy that no token names",
                handler=self._delete,
                family="policies",
                access=Access.ADMIN,
                status=204,
                errors=(
                    *unknown,
                    (409, "the policy is attached to tokens"),
                    (412, "If-Match or If-None-Match does not hold"),
                    (507, "store is full"),
                ),
                is_extension=True,
            ),
        )

    async def _list(self, call: Call[PoliciesQuery, None]) -> list[PolicyView]:
        cluster = call.query.owner_cluster
        rows = await self._store.list_policies(
            owner_cluster=None if cluster is msgspec.UNSET else cluster
        )
        return [_view(row) for row in rows]

    async def _get(self, call: Call[NoQuery, None]) -> Reply:
        return _reply(await self._find(parse_id(call.path["id"])))

    async def _put(self, call: Call[NoQuery, PolicyWish]) -> Reply:
        policy_id = parse_id(call.path["id"])
        conditions = Preconditions.of(call.request)
        wish = _parse(policy_id, call.body)
        rows = await self._store.list_policies(ids=[policy_id])
        current = rows[0].policy if rows else None
        if current is not None:
            check_owner("policy", current.owner, wish.owner)
        conditions.check(None if current is None else current.version)
        if current is None:
            try:
                await self._store.create_policy(wish)
            except ConflictError as error:
                raise PreconditionFailed("the policy was created by somebody else") from error
        elif replace(wish, version=current.version) != current:
            if not await self._store.replace_policy(wish, version=current.version):
                raise PreconditionFailed("the policy was changed by somebody else meanwhile")
            await self._enforcement.policy_changed(policy_id)
        row = await self._find(policy_id)
        return _reply(row, status=201 if current is None else 200)

    async def _delete(self, call: Call[NoQuery, None]) -> None:
        policy_id = parse_id(call.path["id"])
        conditions = Preconditions.of(call.request)
        conditions.check((await self._find(policy_id)).policy.version)
        if not await self._store.delete_policy(policy_id):
            raise NotFoundError("policy not found")

    async def _find(self, policy_id: str) -> PolicyRow:
        rows = await self._store.list_policies(ids=[policy_id])
        if not rows:
            raise NotFoundError("policy not found")
        return rows[0]


def _parse(policy_id: str, wish: PolicyWish) -> Policy:
    access, auth = wish.access, wish.http.auth
    file = None if auth is None else auth.basic.htpasswd
    try:
        users = None if file is None else parse_htpasswd(file)
    except InvalidRequest as error:
        raise UnprocessableBody(f"http.auth.basic: {error}") from error
    return Policy(
        id=policy_id,
        owner=None if wish.owner is None else wish.owner.parse(),
        protocols=parse_protocols(access.protocols),
        hostnames=parse_patterns(access.hostnames),
        tcp_ports=parse_ranges("tcp_ports", access.tcp_ports),
        agent_cidrs=parse_networks("agent_cidrs", access.agent_cidrs),
        client_cidrs=parse_networks("client_cidrs", access.client_cidrs),
        denied_client_cidrs=parse_networks("denied_client_cidrs", access.denied_client_cidrs) or (),
        limits=wish.limits.parse(),
        max_lifetime_seconds=wish.tokens.max_lifetime,
        max_tokens=wish.tokens.max_tokens,
        requires_rotation=wish.tokens.require_rotation,
        requires_tls=wish.http.require_tls,
        basic_auth=users,
        is_auth_unresolved=auth is not None and file is None,
    )


def _reply(row: PolicyRow, *, status: int | None = None) -> Reply:
    view = _view(row)
    return Reply(view, {"ETag": view.etag}, status=status)


def _view(row: PolicyRow) -> PolicyView:
    policy = row.policy
    limits, users = policy.limits, policy.basic_auth
    return PolicyView(
        id=policy.id,
        owner=OwnerObject.show(policy.owner),
        access=PolicyAccess(
            protocols=None if policy.protocols is None else list(policy.protocols),
            hostnames=None if policy.hostnames is None else list(policy.hostnames),
            tcp_ports=show_ranges(policy.tcp_ports),
            agent_cidrs=show_networks(policy.agent_cidrs),
            client_cidrs=show_networks(policy.client_cidrs),
            denied_client_cidrs=show_networks(policy.denied_client_cidrs),
        ),
        limits=PolicyLimits(
            max_tunnels_per_token=limits.max_tunnels,
            max_connections_per_tunnel=limits.max_connections_per_tunnel,
            requests_per_second=limits.requests_per_second,
            burst=limits.burst,
            request_body_bytes=limits.request_body_bytes,
            bandwidth=limits.bandwidth,
            idle_timeout=limits.idle_seconds,
        ),
        tokens=TokenRules(
            max_lifetime=policy.max_lifetime_seconds,
            max_tokens=policy.max_tokens,
            require_rotation=policy.requires_rotation,
        ),
        http=HttpView(
            require_tls=policy.requires_tls,
            users=None if users is None else [user.user for user in users],
            is_auth_unresolved=policy.is_auth_unresolved,
        ),
        attached_tokens=row.attached_tokens,
        etag=etag(policy.version),
    )
