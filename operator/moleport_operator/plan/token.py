"""The plan for one TunnelToken: the next single thing to do.

The order makes every crash harmless: the finalizer before anything outside of the cluster, the claim on the
Secret before a credential, the digest at the server before the text in the Secret, the new revision in the
Secret before the end of the old one. A credential that nobody got is replaced, never guessed; what is not
marked as ours is never changed or deleted.
"""

from __future__ import annotations

from dataclasses import replace

from moleport_operator.credentials import fingerprint
from moleport_operator.plan.effective import leaves_nothing, left_out
from moleport_operator.plan.records import (
    AddFinalizer,
    ClaimSecret,
    DeleteCredential,
    DeleteToken,
    Fresh,
    IssueCredential,
    Owner,
    PutCredential,
    PutToken,
    ReleaseToken,
    RemoveFinalizer,
    SecretView,
    Seen,
    ServerToken,
    Settled,
    TokenAction,
    TokenWish,
    WriteSecret,
)
from moleport_operator.plan.secret import Held, differs, has_traces, read_held, wanted_content
from moleport_operator.plan.timing import Schedule, schedule
from moleport_operator.quantities import parse_quantity
from moleport_operator.resources import ROTATE_REQUESTED, PortRange, TunnelToken

RETAINED = "retained: "
"""Start of the label of a token that outlived its resource on purpose."""
RECLAIM_SECONDS = 5
"""How often to look whether the Secret of another token is gone."""


def plan_token(seen: Seen) -> TokenAction | Settled:
    """Return the next action, or that there is none.

    Raises:
        InvalidResource: the spec cannot be understood; only its author can repair it.
    """
    if seen.token.meta.is_deleting:
        return _plan_deletion(seen)
    if not seen.token.meta.has_finalizer:
        return AddFinalizer()
    if (stranger := _strangers_secret(seen)) is not None:
        return stranger
    times = schedule(seen.token.spec, seen.policies)
    if seen.is_above_quota and seen.server is None:
        return _denied()
    wish = wanted_token(seen)
    if seen.server is not None and not _is_ours(seen.server, seen):
        return Settled("ServerRejected", "the server has a token of this id that is not ours")
    if seen.server is None or (seen.server.wish != wish and not seen.was_put):
        if waiting := seen.awaited_policies:
            # The server refuses a token with a policy that it does not know.
            return Settled("Pending", f"waits for the server to take {', '.join(waiting)}")
        return PutToken(wish, None if seen.server is None else seen.server.etag)
    if seen.secret is None:
        return ClaimSecret()
    return _plan_credential(seen, seen.server, seen.secret, times)


def wanted_token(seen: Seen) -> TokenWish:
    """Return what the server should know of the token.

    Raises:
        InvalidResource: a quantity cannot be read.
    """
    token, spec = seen.token, seen.token.spec
    access, limits = spec.access, spec.limits
    hostnames = access.http.hostnames
    has_http, has_tcp = "http" in access.protocols, "tcp" in access.protocols
    return TokenWish(
        label=f"{token.meta.namespace}/{token.meta.name}",
        owner=_owner(seen),
        protocols=tuple(sorted(access.protocols)),
        hostnames=None if has_http and hostnames is None else tuple(sorted(hostnames or ())),
        tcp_ports=_ranges(access.tcp.ports) if has_tcp else (),
        agent_cidrs=None if access.agent_cidrs is None else tuple(sorted(access.agent_cidrs)),
        max_tunnels=limits.max_tunnels,
        max_agents=limits.max_agents,
        max_connections=limits.max_connections,
        requests_per_second=limits.requests_per_second,
        bandwidth=None if limits.bandwidth is None else parse_quantity(limits.bandwidth),
        suspended=spec.suspend or seen.is_above_quota,
        policy_ids=tuple(sorted(policy.uid for policy in seen.policies)),
    )


def _plan_deletion(seen: Seen) -> TokenAction | Settled:
    meta = seen.token.meta
    if not meta.has_finalizer:
        return Settled("Revoking", "")
    if meta.is_forced:
        return RemoveFinalizer(was_forced=True)
    server = seen.server
    if server is None or not _is_ours(server, seen):
        return RemoveFinalizer()
    if seen.token.spec.deletion_policy == "Retain":
        if server.wish.label.startswith(RETAINED):
            return RemoveFinalizer()
        return ReleaseToken(_released(server.wish), server.etag)
    return DeleteToken()


def _plan_credential(
    seen: Seen, server: ServerToken, secret: SecretView, times: Schedule
) -> TokenAction | Settled:
    held = read_held(secret)
    if seen.fresh is not None:
        successor = _successor(seen, seen.fresh, server, secret, times)
        return _write(seen, server, secret, successor)
    is_edited = _is_edited(seen, server, secret, held)
    if held is None or is_edited:
        reason = "SecretEdited" if is_edited else "Issued" if not server.slots else "SecretLost"
        return _issue(seen, held, times, reason)
    end = times.not_after(held.issued_at)
    has_ended = end is not None and seen.now >= end
    current = server.slot(held.revision)
    if (current is None or current.not_after != end) and not has_ended:
        return PutCredential(held.revision, held.sha256, end)
    if (cleanup := _end_older(seen, server, held)) is not None:
        return cleanup
    renewal_at = times.renewal_at(held.issued_at)
    requested = seen.token.meta.annotations.get(ROTATE_REQUESTED, "")
    if not seen.token.spec.suspend and not seen.is_above_quota:
        if requested not in {"", held.rotate_handled}:
            return _issue(seen, held, times, "Requested")
        if renewal_at is not None and seen.now >= renewal_at:
            return _issue(seen, held, times, "Renewed")
    content = wanted_content(seen.token, _ending(held, end), server.wish.hostnames, seen.facts)
    if differs(content, secret.content):
        return _write(seen, server, secret, _ending(held, end))
    if seen.is_above_quota:
        return _denied()
    if seen.token.spec.suspend:
        return Settled("Suspended", "spec.suspend is true: agents are refused")
    if has_ended:
        return Settled("Expired", "the credential has ended and rotation is disabled")
    due = (renewal_at, end, held.previous_until)
    recheck_at = min((at for at in due if at is not None and at > seen.now), default=None)
    if leaves_nothing(server):
        names = ", ".join(sorted(policy.name for policy in seen.policies))
        less = left_out(server, seen.facts.domains)
        # The credential stays, so that another policy is enough to make it work.
        return Settled("DeniedByPolicy", f"nothing of it is left by {names}: {less}", recheck_at)
    return Settled(
        "Issued", f"revision {held.revision} is in Secret {seen.token.secret_name}", recheck_at
    )


def _is_edited(seen: Seen, server: ServerToken, secret: SecretView, held: Held | None) -> bool:
    """Whether somebody else changed the credential in the Secret, or put an older one back."""
    if held is None:
        return has_traces(secret)
    slot = server.slot(held.revision)
    return (slot is not None and slot.fingerprint != fingerprint(held.sha256)) or (
        held.revision < _reported_revision(seen.token)
    )


def _issue(seen: Seen, held: Held | None, times: Schedule, reason: str) -> IssueCredential:
    # What is above the last delivered revision was never delivered: it may be replaced.
    delivered = held.revision if held is not None else 0
    revision = max(delivered, _reported_revision(seen.token)) + 1
    return IssueCredential(revision, times.not_after(seen.now), reason)


def _successor(
    seen: Seen, fresh: Fresh, server: ServerToken, secret: SecretView, times: Schedule
) -> Held:
    """Return what the Secret should hold now that a fresh credential exists."""
    held = read_held(secret)
    is_edited = _is_edited(seen, server, secret, held)
    has_older = any(slot.revision != fresh.revision for slot in server.slots)
    until = None
    if has_older:
        # An edited Secret may have been read by whoever edited it: no overlap then.
        until = seen.now if is_edited else seen.now + times.overlap
    return Held(
        revision=fresh.revision,
        text=fresh.credential.text,
        sha256=fresh.credential.sha256,
        issued_at=fresh.issued_at,
        not_after=fresh.not_after,
        previous_sha256=held.sha256 if held is not None and not is_edited else None,
        previous_until=until,
        rotate_handled=seen.token.meta.annotations.get(ROTATE_REQUESTED, ""),
    )


def _write(seen: Seen, server: ServerToken, secret: SecretView, held: Held) -> TokenAction:
    content = wanted_content(seen.token, held, server.wish.hostnames, seen.facts)
    return WriteSecret(content, secret)


def _end_older(seen: Seen, server: ServerToken, held: Held) -> TokenAction | None:
    """End what is not the current revision, at once or at the end of the overlap."""
    until = held.previous_until
    for slot in server.slots:
        if slot.revision == held.revision:
            continue
        # What is newer than the Secret was never delivered.
        if slot.revision > held.revision or until is None or seen.now >= until:
            return DeleteCredential(slot.revision)
        if slot.not_after is not None and slot.not_after <= until:
            if seen.now >= slot.not_after:
                return DeleteCredential(slot.revision)
            continue
        known = held.previous_sha256
        if known is not None and fingerprint(known) == slot.fingerprint:
            return PutCredential(slot.revision, known, until)
    return None


def _strangers_secret(seen: Seen) -> Settled | None:
    if seen.secret is None or seen.secret.claimed_by == seen.token.meta.uid:
        return None
    return Settled(
        "SecretNotOwned",
        f"Secret {seen.token.secret_name} exists and is not ours: delete it, or choose another "
        "name in a new TunnelToken",
        # That of a token which is just gone is about to be collected.
        None if seen.secret.claimed_by is None else seen.now + RECLAIM_SECONDS,
    )


def _denied() -> Settled:
    return Settled("DeniedByPolicy", "a policy's maxTokens is used up by older tokens")


def _ending(held: Held, end: int | None) -> Held:
    return replace(held, not_after=end)


def _released(wish: TokenWish) -> TokenWish:
    return replace(wish, label=RETAINED + wish.label)


def _is_ours(server: ServerToken, seen: Seen) -> bool:
    owner = server.wish.owner
    return (
        owner is not None
        and owner.cluster == seen.owner_cluster
        and owner.uid == seen.token.meta.uid
    )


def _owner(seen: Seen) -> Owner:
    meta = seen.token.meta
    return Owner(cluster=seen.owner_cluster, namespace=meta.namespace, name=meta.name, uid=meta.uid)


def _ranges(ports: tuple[PortRange, ...] | None) -> tuple[tuple[int, int], ...] | None:
    if ports is None:
        return None
    return tuple(
        sorted((port.start, port.start if port.end is None else port.end) for port in ports)
    )


def _reported_revision(token: TunnelToken) -> int:
    revision = token.status.get("revision", 0)
    return revision if isinstance(revision, int) else 0
