"""Typed views of the custom resources: what a body of the API server means.

Defaults are those of the schema, so that an object stored before a field existed reads like a new one.
Nothing here performs I/O; names follow the resources, in snake case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import msgspec

from moleport_operator.errors import InvalidResource
from moleport_operator.quantities import parse_time

GROUP: Final = "moleport.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FINALIZER: Final = f"{GROUP}/revoke"
FORCE_DELETE: Final = f"{GROUP}/force-delete"
"""Annotation `"true"`: give up what is on the server and let the object go."""
ROTATE_REQUESTED: Final = f"{GROUP}/rotate-requested"
"""Annotation: each new value makes one rotation."""

PolicyKind = Literal["TunnelPolicy", "ClusterTunnelPolicy"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of resource."""

    name: str
    plural: str
    is_namespaced: bool = True


TOKENS: Final = Kind("TunnelToken", "tunneltokens")
POLICIES: Final = Kind("TunnelPolicy", "tunnelpolicies")
CLUSTER_POLICIES: Final = Kind("ClusterTunnelPolicy", "clustertunnelpolicies", is_namespaced=False)


class _Struct(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pass


class PortRange(_Struct, frozen=True, kw_only=True):
    """Inclusive; `end` absent is one port."""

    start: int
    end: int | None = None


class HttpAccess(_Struct, frozen=True, kw_only=True):
    """`spec.access.http`."""

    hostnames: tuple[str, ...] | None = None


class TcpAccess(_Struct, frozen=True, kw_only=True):
    """`spec.access.tcp`."""

    ports: tuple[PortRange, ...] | None = None


class TokenAccess(_Struct, frozen=True, kw_only=True):
    """`spec.access` of a token."""

    protocols: tuple[str, ...] = ("http",)
    http: HttpAccess = HttpAccess()
    tcp: TcpAccess = TcpAccess()
    agent_cidrs: tuple[str, ...] | None = msgspec.field(name="agentCIDRs", default=None)


class TokenLimits(_Struct, frozen=True, kw_only=True):
    """`spec.limits` of a token; absent is the server's default."""

    max_tunnels: int | None = None
    max_agents: int | None = None
    max_connections: int | None = None
    requests_per_second: int | None = None
    bandwidth: int | str | None = None


class SecretTemplate(_Struct, frozen=True, kw_only=True):
    """Labels and annotations that the Secret gets besides ours."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class SecretSpec(_Struct, frozen=True, kw_only=True):
    """`spec.secret`."""

    name: str | None = None
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    include_connection_info: bool = True
    template: SecretTemplate = SecretTemplate()


class Rotation(_Struct, frozen=True, kw_only=True):
    """`spec.rotation`."""

    mode: Literal["Disabled", "BeforeExpiry", "Periodic"] = "BeforeExpiry"
    interval: str | None = None
    overlap: str | None = None


class TokenSpec(_Struct, frozen=True, kw_only=True):
    """`spec` of a TunnelToken."""

    description: str = ""
    secret: SecretSpec = SecretSpec()
    access: TokenAccess = TokenAccess()
    limits: TokenLimits = TokenLimits()
    lifetime: str | None = None
    rotation: Rotation = Rotation()
    suspend: bool = False
    deletion_policy: Literal["Revoke", "Retain"] = "Revoke"


class Expression(_Struct, frozen=True, kw_only=True):
    """One row of `matchExpressions`."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class Selector(_Struct, frozen=True, kw_only=True):
    """A label selector; empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Expression, ...] = ()


class TargetRef(_Struct, frozen=True, kw_only=True):
    """What a policy attaches to; neither name nor selector is everything of that kind."""

    kind: Literal["TunnelToken", "Namespace"]
    name: str | None = None
    selector: Selector | None = None


class PolicyAccess(_Struct, frozen=True, kw_only=True):
    """`spec.access` of a policy; absent does not restrict."""

    protocols: tuple[str, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    tcp_ports: tuple[PortRange, ...] | None = None
    agent_cidrs: tuple[str, ...] | None = msgspec.field(name="agentCIDRs", default=None)
    client_cidrs: tuple[str, ...] | None = msgspec.field(name="clientCIDRs", default=None)
    denied_client_cidrs: tuple[str, ...] | None = msgspec.field(
        name="deniedClientCIDRs", default=None
    )


class PolicyLimits(_Struct, frozen=True, kw_only=True):
    """`spec.limits` of a policy."""

    max_tunnels_per_token: int | None = None
    max_connections_per_tunnel: int | None = None
    requests_per_second: int | None = None
    burst: int | None = None
    request_body_bytes: int | str | None = None
    bandwidth: int | str | None = None
    idle_timeout: str | None = None


class PolicyTokens(_Struct, frozen=True, kw_only=True):
    """`spec.tokens` of a policy."""

    max_lifetime: str | None = None
    max_tokens: int | None = None
    require_rotation: bool = False


class SecretRef(_Struct, frozen=True, kw_only=True):
    """A Secret of the same namespace."""

    name: str


class BasicAuth(_Struct, frozen=True, kw_only=True):
    """Who may visit: the htpasswd lines of a Secret."""

    secret_ref: SecretRef


class PolicyAuth(_Struct, frozen=True, kw_only=True):
    """`spec.http.auth`."""

    basic: BasicAuth


class PolicyHttp(_Struct, frozen=True, kw_only=True):
    """`spec.http` of a policy."""

    require_tls: bool = msgspec.field(name="requireTLS", default=True)
    auth: PolicyAuth | None = None


class PolicySpec(_Struct, frozen=True, kw_only=True):
    """`spec` of a TunnelPolicy or ClusterTunnelPolicy."""

    target_refs: tuple[TargetRef, ...] = ()
    access: PolicyAccess | None = None
    limits: PolicyLimits | None = None
    tokens: PolicyTokens | None = None
    http: PolicyHttp | None = None


_Spec = TypeVar("_Spec", TokenSpec, PolicySpec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """`metadata`, as far as the operator looks at it."""

    uid: str
    namespace: str
    """Empty for cluster-wide objects."""
    name: str
    generation: int
    resource_version: str
    created_at: int
    is_deleting: bool
    finalizers: tuple[str, ...]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def has_finalizer(self) -> bool:
        """Whether our finalizer is there."""
        return FINALIZER in self.finalizers

    @property
    def is_forced(self) -> bool:
        """Whether the owner gives up what is on the server."""
        return self.annotations.get(FORCE_DELETE) == "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelToken:
    """A TunnelToken; `status` is the body's own, read-only."""

    meta: Meta
    spec: TokenSpec
    status: Mapping[str, Any] = field(default_factory=dict)

    @property
    def secret_name(self) -> str:
        """The Secret that this token is written to."""
        return self.spec.secret.name or self.meta.name


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelPolicy:
    """A TunnelPolicy, or a ClusterTunnelPolicy (`kind` tells)."""

    kind: PolicyKind
    meta: Meta
    spec: PolicySpec
    status: Mapping[str, Any] = field(default_factory=dict)


def read_token(body: Mapping[str, Any]) -> TunnelToken:
    """Return the view of a TunnelToken's body.

    Raises:
        InvalidResource: its spec does not fit the schema of this release.
    """
    return TunnelToken(
        meta=read_meta(body),
        spec=_spec(body, TokenSpec),
        status=body.get("status") or {},
    )


def read_policy(body: Mapping[str, Any]) -> TunnelPolicy:
    """Return the view of a policy's body, of either kind.

    Raises:
        InvalidResource: its spec does not fit the schema of this release.
    """
    meta = read_meta(body)
    return TunnelPolicy(
        kind="TunnelPolicy" if meta.namespace else "ClusterTunnelPolicy",
        meta=meta,
        spec=_spec(body, PolicySpec),
        status=body.get("status") or {},
    )


def read_meta(body: Mapping[str, Any]) -> Meta:
    """Return the view of an object's metadata."""
    meta = body["metadata"]
    return Meta(
        uid=meta["uid"],
        namespace=meta.get("namespace", ""),
        name=meta["name"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion", ""),
        created_at=parse_time(meta["creationTimestamp"]),
        is_deleting="deletionTimestamp" in meta,
        finalizers=tuple(meta.get("finalizers") or ()),
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
    )


def _spec(body: Mapping[str, Any], kind: type[_Spec]) -> _Spec:
    try:
        return msgspec.convert(body.get("spec") or {}, kind)
    except msgspec.ValidationError as error:
        raise InvalidResource(f"spec: {error}") from error
