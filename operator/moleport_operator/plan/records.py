"""What a plan sees and what it may ask for: plain records.

Times are whole Unix seconds. A plan sees one token at a time: its resource, its Secret, the server's
side, and the policies that attach to it. It answers with one action; whoever carries that out observes
again, so that no plan ever relies on a step that a crash may have taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moleport_operator.credentials import Credential
from moleport_operator.resources import PolicyKind, TunnelToken

Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose object of the server it is."""

    cluster: str
    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenWish:
    """What the server should know of a token, without its credentials.

    `None` is unrestricted, an empty tuple allows nothing; order never matters, so all are sorted.
    """

    label: str
    owner: Owner | None
    """None: somebody else's, made by hand."""
    protocols: tuple[str, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    tcp_ports: Ranges | None = None
    agent_cidrs: tuple[str, ...] | None = None
    max_tunnels: int | None = None
    max_agents: int | None = None
    max_connections: int | None = None
    requests_per_second: float | None = None
    bandwidth: int | None = None
    suspended: bool = False
    policy_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One revision at the server."""

    revision: int
    fingerprint: str
    not_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a token has open now."""

    tunnels: int = 0
    agents: int = 0
    last_used_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerToken:
    """The server's side of a token."""

    etag: str
    wish: TokenWish
    """What it holds, in the form of a wish; the owner tells whether it is ours."""
    slots: tuple[Slot, ...] = ()
    usage: Usage = field(default_factory=Usage)
    effective: Mapping[str, Any] = field(default_factory=dict)
    """The merge of token and policies, as the server shows it."""

    def slot(self, revision: int) -> Slot | None:
        """Return the slot of a revision, or None."""
        return next((slot for slot in self.slots if slot.revision == revision), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretContent:
    """What we write into a Secret, and compare with what is there."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    values: Mapping[str, str] = field(repr=False)
    is_owned: bool
    """Whether it carries an owner reference, so that it goes with the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretView:
    """A Secret as it is; only what belongs to us or decides whether it does."""

    uid: str
    resource_version: str
    claimed_by: str | None
    """The uid of the token that the Secret says it belongs to; None is a stranger's Secret."""
    content: SecretContent


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionFacts:
    """What a Secret tells an agent about the way to the server."""

    agent_url: str
    ca_pem: str | None = None
    domains: tuple[str, ...] = ()
    public_https_port: int = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedPolicy:
    """One policy of a token."""

    kind: PolicyKind
    name: str
    uid: str
    generation: int
    is_accepted: bool
    """Whether the server has it; until then nothing new is issued under it."""
    max_lifetime: int | None = None
    requires_rotation: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """A credential whose digest the server has and whose text no Secret has yet."""

    revision: int
    credential: Credential
    issued_at: int
    not_after: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that a plan for a token decides on."""

    token: TunnelToken
    owner_cluster: str
    server: ServerToken | None
    secret: SecretView | None
    policies: tuple[AttachedPolicy, ...] = ()
    is_above_quota: bool = False
    """Older tokens already use up what a policy's `maxTokens` leaves."""
    facts: ConnectionFacts
    fresh: Fresh | None = None
    was_put: bool = False
    """The wish was sent in this round: what still differs is the server's way to write it."""
    now: int

    @property
    def awaited_policies(self) -> list[str]:
        """Names of policies that the server does not have; it takes no token with one of them.

        A token that has a policy there is the proof that the server knows the policy: after a restart
        of ours nothing needs to be told twice.
        """
        known = () if self.server is None else self.server.wish.policy_ids
        return sorted(
            policy.name
            for policy in self.policies
            if not policy.is_accepted and policy.uid not in known
        )


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Before anything outside of the cluster exists."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """After nothing outside of the cluster is left, or its owner gave it up."""

    was_forced: bool = False


@dataclass(frozen=True, slots=True)
class PutToken:
    """Create (no etag) or replace the token at the server."""

    wish: TokenWish
    etag: str | None


@dataclass(frozen=True, slots=True)
class DeleteToken:
    """Revoke everything: credentials and live sessions."""


@dataclass(frozen=True, slots=True)
class ReleaseToken:
    """Keep the token at the server, and say there that it is nobody's any more."""

    wish: TokenWish
    etag: str


@dataclass(frozen=True, slots=True)
class ClaimSecret:
    """Create the Secret, empty but marked as ours; a stranger's one makes this fail."""


@dataclass(frozen=True, slots=True)
class IssueCredential:
    """Make a credential and give its digest to the server; its text is then in `Seen.fresh`."""

    revision: int
    not_after: int | None
    reason: str
    """Why, for events and metrics: Issued, Renewed, Requested, SecretLost, SecretEdited."""


@dataclass(frozen=True, slots=True)
class PutCredential:
    """Give the server a digest that it lost, or another end of one that it has."""

    revision: int
    sha256: str
    not_after: int | None


@dataclass(frozen=True, slots=True)
class DeleteCredential:
    """End a revision at once."""

    revision: int


@dataclass(frozen=True, slots=True)
class WriteSecret:
    """Make the Secret hold exactly this, if it is still the one that was seen."""

    content: SecretContent
    seen: SecretView


TokenAction = (
    AddFinalizer
    | RemoveFinalizer
    | PutToken
    | DeleteToken
    | ReleaseToken
    | ClaimSecret
    | IssueCredential
    | PutCredential
    | DeleteCredential
    | WriteSecret
)


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing to do now.

    Attributes:
        reason: the reason of the Ready condition.
        message: its text, for the owner of the token.
        recheck_at: when time alone makes something due, or None.
    """

    reason: str
    message: str
    recheck_at: int | None = None
