"""Bodies and records of the operator's resources, with defaults that a test overrides."""

from __future__ import annotations

from typing import Any

from moleport_operator.plan.records import AttachedPolicy, ConnectionFacts, Seen
from moleport_operator.resources import TunnelPolicy, TunnelToken, read_policy, read_token

NOW = 1_750_000_000
FACTS = ConnectionFacts(agent_url="https://control.tunnels.test", domains=("tunnels.test",))


def body(name: str = "shop", *, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    """Return the body of a resource; `spec`, `status` and metadata by their names."""
    known = {key: fields.pop(key) for key in ("spec", "status") if key in fields}
    metadata = {
        "uid": f"uid-{name}",
        "namespace": namespace,
        "name": name,
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": metadata | fields, "spec": {}} | known


def token(name: str = "shop", **fields: Any) -> TunnelToken:
    return read_token(body(name, **fields))


def policy(name: str = "strict", **fields: Any) -> TunnelPolicy:
    return read_policy(body(name, **fields))


def attached(name: str = "strict", **fields: Any) -> AttachedPolicy:
    values: dict[str, Any] = {
        "kind": "TunnelPolicy",
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "is_accepted": True,
    }
    return AttachedPolicy(**(values | fields))


def seen(**fields: Any) -> Seen:
    values: dict[str, Any] = {
        "token": token(finalizers=["moleport.dev/revoke"]),
        "owner_cluster": "cluster-1",
        "server": None,
        "secret": None,
        "facts": FACTS,
        "now": NOW,
    }
    return Seen(**(values | fields))
