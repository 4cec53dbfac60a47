"""What a real API server takes and refuses: every rule of the schemas, with the sentence that it answers."""

from __future__ import annotations

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
    "burst without rate": (
        {"targetRefs": [TOKEN_REF], "limits": {"burst": 5}},
        "limits.burst has no meaning",
    ),
    "empty limits": ({"targetRefs": [TOKEN_REF], "limits": {}}, "limits"),
    "auth without a kind": ({"targetRefs": [TOKEN_REF], "http": {"auth": {}}}, "basic"),
}


def body(kind: str, spec: dict[str, Any], name: str = "x") -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {
        "apiVersion": "moleport.dev/v1alpha1",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


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
