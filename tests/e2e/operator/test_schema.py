"""What a real API server takes and refuses: every rule of the schemas, with the sentence that it answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.asyncio(loop_scope="session")

TCP = {"protocols": ["tcp"]}
TOKEN_REF = {"kind": "TunnelToken"}

GOOD_TOKENS: dict[str, dict[str, Any]] = {
    "empty": {},
    "everything": {
        "description": "the shop",
        "secret": {"name": "other", "template": {"labels": {"a": "b"}}},
        "access": {
            "protocols": ["http", "tcp"],
            "http": {"hostnames": ["shop", "*.example.com"]},
            "tcp": {"ports": [{"start": 20000, "end": 20009}]},
            "agentCIDRs": ["10.0.0.0/8", "2001:db8::/32"],
        },
        "limits": {"maxTunnels": 1, "bandwidth": "10Mi"},
        "lifetime": "24h",
        "rotation": {"mode": "Periodic", "interval": "12h", "overlap": "1h"},
    },
}

GOOD_TOKENS |= {
    # Each is as close to what a rule refuses as it may be.
    "shortest lifetime": {"lifetime": "10m"},
    "shortest interval": {"rotation": {"mode": "Periodic", "interval": "600s"}},
    "interval as long as the lifetime": {
        "lifetime": "1h",
        "rotation": {"mode": "Periodic", "interval": "60m"},
    },
    "interval that is not used": {"lifetime": "1h", "rotation": {"interval": "2h"}},
    "overlap a little shorter": {
        "rotation": {"mode": "Periodic", "interval": "1h", "overlap": "59m59s"}
    },
    "overlap alone": {"rotation": {"overlap": "3h"}},
    "range of one port": {"access": TCP | {"tcp": {"ports": [{"start": 9, "end": 9}]}}},
    "http and tcp without lists": {"access": {"protocols": ["http", "tcp"], "http": {}, "tcp": {}}},
    "limits of nothing": {"limits": {"maxTunnels": 0, "maxAgents": 0, "maxConnections": 0}},
    "quantity as a number": {"limits": {"bandwidth": 1048576}},
}

BAD_TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "short lifetime": ({"lifetime": "5m"}, "write 10m or more"),
    "lifetime without unit": ({"lifetime": "24"}, "spec.lifetime"),
    "periodic without interval": ({"rotation": {"mode": "Periodic"}}, "write rotation.interval"),
    "short interval": (
        {"rotation": {"mode": "Periodic", "interval": "1m"}},
        "write 10m or more",
    ),
    "interval above lifetime": (
        {"lifetime": "1h", "rotation": {"mode": "Periodic", "interval": "2h"}},
        "rotate before the credential ends",
    ),
    "overlap above interval": (
        {"rotation": {"mode": "Periodic", "interval": "1h", "overlap": "1h"}},
        "shorter than rotation.interval",
    ),
    "hostnames without http": (
        {"access": TCP | {"http": {"hostnames": ["a"]}}},
        "add http to access.protocols",
    ),
    "ports without tcp": (
        {"access": {"tcp": {"ports": [{"start": 1}]}}},
        "add tcp to access.protocols",
    ),
    "range backwards": (
        {"access": TCP | {"tcp": {"ports": [{"start": 9, "end": 1}]}}},
        "a range ends before it starts",
    ),
    "unknown protocol": ({"access": {"protocols": ["udp"]}}, "Unsupported value"),
    "no protocol": ({"access": {"protocols": []}}, "spec.access.protocols"),
    "upper case host": ({"access": {"http": {"hostnames": ["Shop"]}}}, "hostnames"),
    "no network": ({"access": {"agentCIDRs": ["10.0.0.1"]}}, "agentCIDRs"),
    "negative limit": ({"limits": {"maxTunnels": -1}}, "maxTunnels"),
    "no quantity": ({"limits": {"bandwidth": "fast"}}, "bandwidth"),
    "unknown mode": ({"rotation": {"mode": "Sometimes"}}, "Unsupported value"),
}

GOOD_POLICIES: dict[str, dict[str, Any]] = {
    "by name": {"targetRefs": [TOKEN_REF | {"name": "a"}], "tokens": {"maxTokens": 0}},
    "by selector": {
        "targetRefs": [TOKEN_REF | {"selector": {"matchLabels": {"a": "b"}}}],
        "http": {"requireTLS": True},
    },
    "everything": {
        "targetRefs": [TOKEN_REF],
        "access": {
            "protocols": ["http", "tcp"],
            "hostnames": ["shop", "*.example.com"],
            "tcpPorts": [{"start": 20000, "end": 20000}],
            "agentCIDRs": ["10.0.0.0/8"],
            "clientCIDRs": ["::/0"],
            "deniedClientCIDRs": ["192.0.2.1/32"],
        },
        "limits": {
            "maxTunnelsPerToken": 0,
            "maxConnectionsPerTunnel": 0,
            "requestsPerSecond": 1,
            "burst": 1,
            "requestBodyBytes": "10Mi",
            "bandwidth": 1,
            "idleTimeout": "1m",
        },
        "tokens": {"maxLifetime": "24h", "maxTokens": 1, "requireRotation": True},
    },
    "ports without protocols": {
        "targetRefs": [TOKEN_REF],
        "access": {"tcpPorts": [{"start": 1}]},
    },
    "rate without burst": {"targetRefs": [TOKEN_REF], "limits": {"requestsPerSecond": 1}},
}

BAD_POLICIES: dict[str, tuple[dict[str, Any], str]] = {
    "bounds nothing": ({"targetRefs": [TOKEN_REF]}, "the policy bounds nothing"),
    "no target": ({"targetRefs": [], "tokens": {"maxTokens": 1}}, "targetRefs"),
    "name and selector": (
        {
            "targetRefs": [TOKEN_REF | {"name": "a", "selector": {}}],
            "tokens": {"maxTokens": 1},
        },
        "write name or selector, not both",
    ),
    "another kind": (
        {"targetRefs": [{"kind": "Namespace"}], "tokens": {"maxTokens": 1}},
        "Unsupported value",
    ),
    "ports without tcp": (
        {
            "targetRefs": [TOKEN_REF],
            "access": {"protocols": ["http"], "tcpPorts": [{"start": 1}]},
        },
        "add tcp to access.protocols",
    ),
    "range backwards": (
        {"targetRefs": [TOKEN_REF], "access": {"tcpPorts": [{"start": 9, "end": 1}]}},
        "a range ends before it starts",
    ),
    "burst without rate": (
        {"targetRefs": [TOKEN_REF], "limits": {"burst": 5}},
        "limits.burst has no meaning",
    ),
    "empty limits": ({"targetRefs": [TOKEN_REF], "limits": {}}, "limits"),
    "auth without a kind": ({"targetRefs": [TOKEN_REF], "http": {"auth": {}}}, "basic"),
}


OF_NAMESPACES = {"another kind", "auth without a kind"}
"""Cases that say something else of a policy of the cluster."""


def body(kind: str, spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "moleport.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def policy(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    whole = body(kind, spec)
    if kind == "ClusterTunnelPolicy":
        del whole["metadata"]["namespace"]
        targets = [target | {"kind": "Namespace"} for target in spec["targetRefs"]]
        for target in targets:
            target.pop("group", None)
        whole["spec"] = spec | {"targetRefs": targets}
    return whole


def try_out(api: Any, *bodies: dict[str, Any], code: int) -> str:
    text = yaml.safe_dump_all(bodies)
    said: str = api.kubectl(
        "apply", "--server-side", "--dry-run=server", "-f", "-", given=text, code=code
    )
    return said


@pytest.mark.parametrize("name", GOOD_TOKENS)
async def test_a_good_token_is_taken(apiserver: Any, name: str) -> None:
    try_out(apiserver, body("TunnelToken", GOOD_TOKENS[name]), code=0)


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_a_bad_token_is_refused_with_a_sentence(apiserver: Any, name: str) -> None:
    spec, sentence = BAD_TOKENS[name]

    assert sentence in try_out(apiserver, body("TunnelToken", spec), code=1)


@pytest.mark.parametrize("name", BAD_POLICIES)
async def test_a_bad_policy_is_refused_with_a_sentence(apiserver: Any, name: str) -> None:
    spec, sentence = BAD_POLICIES[name]

    assert sentence in try_out(apiserver, body("TunnelPolicy", spec), code=1)


@pytest.mark.parametrize("name", GOOD_POLICIES)
@pytest.mark.parametrize("kind", ["TunnelPolicy", "ClusterTunnelPolicy"])
async def test_a_good_policy_is_taken(apiserver: Any, kind: str, name: str) -> None:
    try_out(apiserver, policy(kind, GOOD_POLICIES[name]), code=0)


@pytest.mark.parametrize("name", sorted(set(BAD_POLICIES) - OF_NAMESPACES))
async def test_a_bad_policy_of_the_cluster_is_refused_alike(apiserver: Any, name: str) -> None:
    spec, sentence = BAD_POLICIES[name]

    assert sentence in try_out(apiserver, policy("ClusterTunnelPolicy", spec), code=1)


async def test_every_rule_in_cel_has_a_case_that_it_refuses(apiserver: Any) -> None:
    told = [sentence for table in (BAD_TOKENS, BAD_POLICIES) for _, sentence in table.values()]
    told += ["at most 63 characters", "spec.secret.name cannot change"]  # by tests of their own
    listed = json.loads(apiserver.kubectl("get", "crd", "-o", "json"))["items"]
    ours = [crd for crd in listed if crd["spec"]["group"] == "moleport.dev"]  # others may be there
    messages = [rule["message"] for crd in ours for rule in rules(crd["spec"]["versions"])]

    assert len(messages) == 20
    for message in messages:
        assert any(sentence in message for sentence in told), message


def rules(schema: Any) -> Iterator[dict[str, str]]:
    """Yield every rule in CEL of a definition."""
    if isinstance(schema, dict):
        yield from schema.get("x-kubernetes-validations", [])
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, (dict, list)):
            yield from rules(inner)


async def test_a_policy_of_the_cluster_has_no_passwords(apiserver: Any) -> None:
    auth = {"auth": {"basic": {"secretRef": {"name": "x"}}}}
    spec = {"targetRefs": [{"kind": "Namespace"}], "http": auth}
    wide = body("ClusterTunnelPolicy", spec)
    del wide["metadata"]["namespace"]

    assert "auth" in try_out(apiserver, wide, code=1)


async def test_a_name_that_is_too_long_is_refused(apiserver: Any) -> None:
    said = try_out(apiserver, body("TunnelToken", {}, "x" * 64), code=1)

    assert "at most 63 characters" in said


@pytest.mark.parametrize(
    ("before", "after"),
    [({"name": "a"}, {"name": "b"}), ({}, {"name": "b"}), ({"name": "a"}, {})],
    ids=["changed", "added", "removed"],
)
async def test_the_name_of_the_secret_stays(
    apiserver: Any, before: dict[str, Any], after: dict[str, Any]
) -> None:
    apiserver.apply(body("TunnelToken", {"secret": before}, "fixed"))
    try:
        said = try_out(apiserver, body("TunnelToken", {"secret": after}, "fixed"), code=1)
    finally:
        apiserver.kubectl("delete", "ttok", "fixed")

    assert "spec.secret.name cannot change" in said


async def test_defaults_are_filled_in_and_lists_of_two_owners_merge(apiserver: Any) -> None:
    access = {"protocols": ["tcp"], "tcp": {"ports": [{"start": 1}]}}
    apiserver.apply(body("TunnelToken", {"access": access}, "merged"))
    other = {"protocols": ["http"], "tcp": {"ports": [{"start": 2}]}}
    text = yaml.safe_dump(body("TunnelToken", {"access": other}, "merged"))
    apiserver.kubectl("apply", "--server-side", "--field-manager=second", "-f", "-", given=text)
    try:
        shown = apiserver.kubectl("get", "ttok", "merged", "-o", "yaml")
    finally:
        apiserver.kubectl("delete", "ttok", "merged")

    spec = yaml.safe_load(shown)["spec"]
    assert set(spec["access"]["protocols"]) == {"tcp", "http"}
    assert [port["start"] for port in spec["access"]["tcp"]["ports"]] == [1, 2]
    assert spec["rotation"] == {"mode": "BeforeExpiry"}
    assert (spec["suspend"], spec["deletionPolicy"]) == (False, "Revoke")


async def test_whoever_edits_a_spec_cannot_write_a_status(apiserver: Any) -> None:
    forged = body("TunnelToken", {}, "forged") | {"status": {"tokenID": "mine"}}
    apiserver.apply(forged)
    try:
        shown = apiserver.kubectl("get", "ttok", "forged", "-o", "jsonpath={.status}")
    finally:
        apiserver.kubectl("delete", "ttok", "forged")

    assert shown == ""


@pytest.mark.parametrize(
    ("role", "verb", "resource", "may"),
    [
        ("moleport-view", "get", "tunneltokens", True),
        ("moleport-view", "create", "tunneltokens", False),
        ("moleport-edit", "create", "tunneltokens", True),
        ("moleport-edit", "create", "tunnelpolicies", False),
        ("moleport-admin", "create", "tunnelpolicies", True),
        ("moleport-operator", "patch", "events.events.k8s.io", True),
        ("moleport-operator", "list", "events.events.k8s.io", False),
        ("moleport-operator", "list", "secrets", False),
        ("moleport-operator", "delete", "secrets", False),
        ("moleport-operator", "get", "secrets", True),
        ("moleport-operator", "delete", "tunneltokens", False),
        ("moleport-operator", "patch", "tunneltokens", True),
    ],
)
async def test_roles_allow_what_they_are_for(
    apiserver: Any, role: str, verb: str, resource: str, may: bool
) -> None:
    user = f"--as=user-of-{role}"
    binding = (f"--clusterrole={role}", f"--user=user-of-{role}")
    apiserver.kubectl("create", "clusterrolebinding", f"test-{role}", *binding, code=None)

    said = apiserver.kubectl("auth", "can-i", verb, resource, "-n", "default", user, code=None)

    assert said.strip().endswith("yes" if may else "no")
