"""The plan for one policy: what the server should know of it, and what its status says.

Passwords come from a Secret of the namespace of the policy. One that is missing or unreadable is told
to the server as «unresolved», which closes HTTP for its tokens: a policy never stands open by accident.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from moleport_operator.plan.conditions import Condition, find_condition, merge_conditions
from moleport_operator.plan.records import Owner, Ranges
from moleport_operator.plan.status import Transition
from moleport_operator.quantities import parse_duration, parse_quantity
from moleport_operator.resources import PortRange, TunnelPolicy

MOST_USERS: Final = 256
"""Lines of a htpasswd that are taken."""
AUTH_CONFLICT: Final = "AuthConflict"
"""Reason of Enforced: no visitor could show the passwords of two policies at once."""
_QUIET: Final = frozenset({"Pending", "TargetNotFound"})
"""Reasons that are no cause for worry."""
_HTPASSWD: Final = re.compile(r"([^:\s]{1,255}):(\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWish:
    """What the server should know of a policy; `None` bounds nothing, an empty tuple allows nothing."""

    name: str
    owner: Owner | None
    protocols: tuple[str, ...] | None = None
    hostnames: tuple[str, ...] | None = None
    tcp_ports: Ranges | None = None
    agent_cidrs: tuple[str, ...] | None = None
    client_cidrs: tuple[str, ...] | None = None
    denied_client_cidrs: tuple[str, ...] = ()
    max_tunnels_per_token: int | None = None
    max_connections_per_tunnel: int | None = None
    requests_per_second: float | None = None
    burst: int | None = None
    request_body_bytes: int | None = None
    bandwidth: int | None = None
    idle_timeout_seconds: float | None = None
    max_lifetime_seconds: float | None = None
    max_tokens: int | None = None
    requires_rotation: bool = False
    requires_tls: bool = False
    users: tuple[tuple[str, str], ...] | None = field(default=None, repr=False)
    """Names and bcrypt hashes; None: visitors need no password."""
    is_auth_unresolved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPolicy:
    """The server's side of a policy; it never shows passwords, so there is nothing to compare."""

    etag: str
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """How a round for a policy ended: the reasons and texts of its two conditions."""

    accepted: str
    enforced: str
    message: str = ""


def wanted_policy(
    policy: TunnelPolicy, owner_cluster: str, users: tuple[tuple[str, str], ...] | None
) -> PolicyWish:
    """Return what the server should know.

    Args:
        policy: of either kind.
        owner_cluster: marks it as ours.
        users: what `parse_htpasswd` found; None: there is nothing to be found.

    Raises:
        InvalidResource: a quantity or duration cannot be read.
    """
    spec, meta = policy.spec, policy.meta
    access, limits, tokens, http = spec.access, spec.limits, spec.tokens, spec.http
    asks_password = http is not None and http.auth is not None
    values: dict[str, Any] = {}
    if access is not None:
        values |= {
            "protocols": _sorted(access.protocols),
            "hostnames": _sorted(access.hostnames),
            "tcp_ports": _ranges(access.tcp_ports),
            "agent_cidrs": _sorted(access.agent_cidrs),
            "client_cidrs": _sorted(access.client_cidrs),
            "denied_client_cidrs": _sorted(access.denied_client_cidrs) or (),
        }
    if limits is not None:
        idle, body = limits.idle_timeout, limits.request_body_bytes
        values |= {
            "max_tunnels_per_token": limits.max_tunnels_per_token,
            "max_connections_per_tunnel": limits.max_connections_per_tunnel,
            "requests_per_second": limits.requests_per_second,
            "burst": limits.burst,
            "request_body_bytes": None if body is None else parse_quantity(body),
            "bandwidth": None if limits.bandwidth is None else parse_quantity(limits.bandwidth),
            "idle_timeout_seconds": None if idle is None else parse_duration(idle),
        }
    if tokens is not None:
        longest = tokens.max_lifetime
        values |= {
            "max_lifetime_seconds": None if longest is None else parse_duration(longest),
            "max_tokens": tokens.max_tokens,
            "requires_rotation": tokens.require_rotation,
        }
    return PolicyWish(
        name=f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name,
        owner=Owner(cluster=owner_cluster, namespace=meta.namespace, name=meta.name, uid=meta.uid),
        requires_tls=http is not None and http.require_tls,
        users=users if asks_password else None,
        is_auth_unresolved=asks_password and users is None,
        **values,
    )


def auth_secret_name(policy: TunnelPolicy) -> str | None:
    """Return the Secret with the passwords of a policy, or None if it asks for none."""
    if policy.kind != "TunnelPolicy" or policy.spec.http is None or policy.spec.http.auth is None:
        return None
    return policy.spec.http.auth.basic.secret_ref.name


def parse_htpasswd(text: str) -> tuple[tuple[str, str], ...] | None:
    """Return names and bcrypt hashes; None if there is none, too many, or a line is anything else."""
    lines = [line.strip() for line in text.splitlines()]
    found = [_HTPASSWD.fullmatch(line) for line in lines if line and not line.startswith("#")]
    if not 1 <= len(found) <= MOST_USERS:
        return None
    users = [(match[1], match[2]) for match in found if match is not None]
    if len(users) != len(found):
        return None
    return tuple(sorted(dict(users).items()))


def users_mark(users: tuple[tuple[str, str], ...] | None) -> bytes:
    """Return what is equal for equal lists of passwords only, and tells nothing of them; nothing for none."""
    if users is None:
        return b""
    return hashlib.sha256("".join(f"{name}:{hashed}\n" for name, hashed in users).encode()).digest()


def password_conflict(
    policy: TunnelPolicy, own: bytes, neighbours: Mapping[str, bytes | None]
) -> str:
    """Say which policies ask the same visitors for other passwords; nothing if there is none.

    Two lists cannot be intersected, so the server closes HTTP of the tokens that have both.

    Args:
        policy: with its status so far.
        own: mark of its passwords.
        neighbours: marks of the policies that ask for passwords and share a token with it, by name; None
            where nobody has looked since the operator started.
    """
    if not own:
        return ""
    rivals = sorted(name for name, mark in neighbours.items() if mark and mark != own)
    if rivals:
        return f"HTTP is closed for tokens that also have {', '.join(rivals)}: other passwords"
    enforced = find_condition(policy.status, "Enforced")
    if enforced.get("reason") == AUTH_CONFLICT and None in neighbours.values():
        return str(enforced.get("message"))  # a restart of ours is no news
    return ""


def policy_status(
    policy: TunnelPolicy, result: PolicyResult, *, attached_tokens: int, now: int
) -> dict[str, Any]:
    """Return the whole status of a policy."""
    old: Mapping[str, Any] = policy.status
    is_accepted, is_enforced = result.accepted == "Accepted", result.enforced == "Enforced"
    conditions = [
        Condition("Accepted", "True" if is_accepted else "False", result.accepted, result.message),
        Condition("Enforced", "True" if is_enforced else "False", result.enforced, result.message),
    ]
    return {
        "observedGeneration": policy.meta.generation,
        "policyID": policy.meta.uid,
        "attachedTokens": attached_tokens,
        "conditions": merge_conditions(
            old.get("conditions") or (), conditions, generation=policy.meta.generation, now=now
        ),
    }


def policy_transition(old: Mapping[str, Any], new: Mapping[str, Any]) -> Transition | None:
    """Return the event of a change of what a policy does, or None when it does the same."""
    for kind in ("Enforced", "Accepted"):
        before, after = find_condition(old, kind), find_condition(new, kind)
        if (before.get("status"), before.get("reason")) != (after["status"], after["reason"]):
            is_warning = after["status"] != "True" and after["reason"] not in _QUIET
            return Transition(str(after["reason"]), str(after["message"]), is_warning=is_warning)
    return None


def _sorted(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if values is None else tuple(sorted(values))


def _ranges(ports: tuple[PortRange, ...] | None) -> Ranges | None:
    if ports is None:
        return None
    return tuple(
        sorted((port.start, port.start if port.end is None else port.end) for port in ports)
    )
