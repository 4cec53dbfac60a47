from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from helpers.operator_records import policy, seen, token
from moleport_operator.errors import ServerUnavailable
from moleport_operator.plan.policy import wanted_policy
from moleport_operator.plan.records import Owner, Slot, TokenWish, Usage
from moleport_operator.plan.token import wanted_token
from moleport_operator.server_bodies import (
    read_facts,
    read_page,
    read_policies,
    read_policy,
    read_rows,
    read_slot,
    read_token,
    write_policy,
    write_token,
)

ROOT = Path(__file__).parents[3]

OWNER = {"cluster": "c", "namespace": "default", "name": "shop", "uid": "u"}
SLOT = {"revision": 2, "fingerprint": "f", "not_after": "1970-01-01T00:01:00Z", "ends_at": None}
TOKEN: dict[str, Any] = {
    "id": "u",
    "token_hash": "h",
    "label": "default/shop",
    "created_at": "2026-01-01T00:00:00Z",
    "last_used_at": "1970-01-01T00:00:07Z",
    "scope": None,
    "owner": OWNER,
    "access": {"protocols": ["tcp", "http"], "hostnames": None, "tcp_ports": [{"start": 7}]},
    "limits": {"max_tunnels": 5, "requests_per_second": 2},
    "suspended": True,
    "policy_ids": ["q", "p"],
    "effective": {"access": {"hostnames": []}},
    "usage": {"active_tunnels": 3, "active_agents": 1, "active_connections": 9},
    "credentials": [SLOT],
    "etag": '"4"',
}


def raw(body: Any) -> bytes:
    return json.dumps(body).encode()


def test_a_token_is_read_with_everything_that_a_plan_looks_at() -> None:
    token = read_token(raw(TOKEN))

    assert token.etag == '"4"'
    assert token.wish == TokenWish(
        label="default/shop",
        owner=Owner(cluster="c", namespace="default", name="shop", uid="u"),
        protocols=("http", "tcp"),
        tcp_ports=((7, 7),),
        max_tunnels=5,
        requests_per_second=2.0,
        suspended=True,
        policy_ids=("p", "q"),
    )
    assert token.slots == (Slot(revision=2, fingerprint="f", not_after=60),)
    assert token.usage == Usage(tunnels=3, agents=1, last_used_at=7)
    assert token.effective == {"access": {"hostnames": []}}


def test_a_page_says_of_each_token_what_the_token_itself_says() -> None:
    foreign = TOKEN | {"id": "hand-made", "owner": None}

    rows, states, last, count = read_page(raw([TOKEN, foreign]))

    assert states["u"] == read_token(raw(TOKEN))
    assert ([row.owner.name for row in rows], last, count) == (["shop"], "hand-made", 2)
    assert read_rows(raw([TOKEN, foreign])) == (rows, last, count)


def test_an_empty_page_is_the_end() -> None:
    assert read_page(b"[]") == ([], {}, None, 0)
    assert read_rows(b"[]") == ([], None, 0)


def test_the_server_is_read_with_and_without_what_it_may_leave_out() -> None:
    full = {"instance_id": "i", "version": "1", "domains": ["a"], "public": {"https_port": 443}}

    assert read_facts(raw(full)).https_port == 443
    assert read_facts(raw({"instance_id": "i"})).domains == ()


def test_policies_without_an_owner_are_not_listed() -> None:
    policies = [{"id": "p", "etag": '"1"', "owner": OWNER}, {"id": "q", "owner": None}]

    assert [name for name, _ in read_policies(raw(policies))] == ["p"]
    assert read_policy(raw(policies[0])).owner == read_token(raw(TOKEN)).wish.owner


@pytest.mark.parametrize(
    "read",
    [read_facts, read_token, read_slot, read_policy, read_policies, read_rows, read_page],
    ids=lambda read: read.__name__,
)
@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"null", b"7", b'{"a": 1}', b"[7]"], ids=lambda raw: raw.decode()
)
def test_anything_else_is_no_answer_of_the_server(
    read: Callable[[bytes], object], content: bytes
) -> None:
    with pytest.raises(ServerUnavailable, match="cannot be read"):
        read(content)


RULES = {
    "access.protocols": (["http"], "access.protocols", ["http"]),
    "access.hostnames": (["a"], "access.hostnames", ["a"]),
    "access.tcpPorts": ([{"start": 1, "end": 2}], "access.tcp_ports", [{"start": 1, "end": 2}]),
    "access.agentCIDRs": (["10.0.0.0/8"], "access.agent_cidrs", ["10.0.0.0/8"]),
    "access.clientCIDRs": (["::/0"], "access.client_cidrs", ["::/0"]),
    "access.deniedClientCIDRs": (["::1/128"], "access.denied_client_cidrs", ["::1/128"]),
    "limits.maxTunnelsPerToken": (1, "limits.max_tunnels_per_token", 1),
    "limits.maxConnectionsPerTunnel": (2, "limits.max_connections_per_tunnel", 2),
    "limits.requestsPerSecond": (3, "limits.requests_per_second", 3),
    "limits.burst": (4, "limits.burst", 4),
    "limits.requestBodyBytes": ("1Mi", "limits.request_body_bytes", 2**20),
    "limits.bandwidth": ("2k", "limits.bandwidth", 2000),
    "limits.idleTimeout": ("5m", "limits.idle_timeout", 300),
    "tokens.maxLifetime": ("24h", "tokens.max_lifetime", 86_400),
    "tokens.maxTokens": (6, "tokens.max_tokens", 6),
    "tokens.requireRotation": (True, "tokens.require_rotation", True),
    "http.requireTLS": (True, "http.require_tls", True),
    "http.auth.basic.secretRef.name": ("visitors", "http.auth.basic.htpasswd", None),
}
"""Every rule of a policy: what a resource says, and where and how the server is told."""
GRANTS = {
    "access.protocols": (["tcp"], "access.protocols", ["tcp"]),
    "access.http.hostnames": (["a"], "access.hostnames", ["a"]),
    "access.tcp.ports": ([{"start": 7}], "access.tcp_ports", [{"start": 7, "end": 7}]),
    "access.agentCIDRs": (["10.0.0.0/8"], "access.agent_cidrs", ["10.0.0.0/8"]),
    "limits.maxTunnels": (1, "limits.max_tunnels", 1),
    "limits.maxAgents": (2, "limits.max_agents", 2),
    "limits.maxConnections": (3, "limits.max_connections", 3),
    "limits.requestsPerSecond": (4, "limits.requests_per_second", 4),
    "limits.bandwidth": ("1Ki", "limits.bandwidth", 1024),
    "suspend": (True, "suspended", True),
}
"""The same of a token."""
KEPT_BY_THE_OPERATOR = {
    *("description", "deletionPolicy", "lifetime"),
    *("rotation.mode", "rotation.interval", "rotation.overlap"),
    *("secret.name", "secret.deletionPolicy", "secret.includeConnectionInfo"),
    *("secret.template.labels", "secret.template.annotations"),
}
"""What of a token is about its Secret and its credentials, which the operator makes."""


def schema(name: str) -> dict[str, Any]:
    text = (files("moleport_operator") / "crds" / f"{name}.yaml").read_text(encoding="utf-8")
    version = yaml.safe_load(text)["spec"]["versions"][0]
    spec: dict[str, Any] = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


def leaves(node: Mapping[str, Any], path: str = "") -> set[str]:
    """Return the paths of a schema that hold a value."""
    if "properties" not in node:
        return {path}
    inner = node["properties"].items()
    return {leaf for name, child in inner for leaf in leaves(child, f"{path}.{name}".strip("."))}


def at(path: str, value: Any) -> dict[str, Any]:
    """Return nested mappings that hold one value."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def look(body: Mapping[str, Any], path: str) -> Any:
    found: Any = body
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def test_every_field_of_the_resources_has_its_place_here() -> None:
    assert leaves(schema("tunneltokens")) == {*GRANTS, *KEPT_BY_THE_OPERATOR}
    assert leaves(schema("tunnelpolicies")) == {*RULES, "targetRefs"}
    without_passwords = {path for path in RULES if not path.startswith("http.auth")}
    assert leaves(schema("clustertunnelpolicies")) == {*without_passwords, "targetRefs"}


@pytest.mark.parametrize("path", RULES)
def test_a_rule_of_a_policy_alone_is_told_in_its_place(path: str) -> None:
    value, place, told = RULES[path]
    plain = as_json(write_policy(wanted_policy(policy(spec={"targetRefs": []}), "c", None)))
    ruled = policy(spec={"targetRefs": [], **at(path, value)})

    body = as_json(write_policy(wanted_policy(ruled, "c", None)))

    assert place.rpartition(".")[2] in (look(body, place.rpartition(".")[0]) or {})
    assert look(body, place) == told
    others = {other for _, other, _ in RULES.values()} - {place}
    # A part of a policy that has a rule is there with all of its fields, as the schema fills them in.
    assert {other for other in others if look(body, other) != look(plain, other)} <= (
        {"http.require_tls"} if path.startswith("http.auth") else set()
    )


@pytest.mark.parametrize("path", GRANTS)
def test_a_field_of_a_token_alone_is_told_in_its_place(path: str) -> None:
    value, place, told = GRANTS[path]
    spec = {"access": {"protocols": ["http", "tcp"]}}
    plain = as_json(write_token(wanted_token(seen(token=token(spec=spec)))))
    head, _, rest = path.partition(".")
    changed = spec | ({head: spec.get(head, {}) | at(rest, value)} if rest else {head: value})

    body = as_json(write_token(wanted_token(seen(token=token(spec=changed)))))

    assert look(body, place) == told
    others = {other for _, other, _ in GRANTS.values()} - {place}
    # Names are of no use to a token without http.
    expected = {"access.hostnames"} if path == "access.protocols" else set()
    assert {other for other in others if look(body, other) != look(plain, other)} == expected


@pytest.mark.parametrize(
    ("fields", "column"), [(RULES, "P"), (GRANTS, "T")], ids=["policy", "token"]
)
def test_every_field_of_the_api_is_documented_with_its_merge_and_its_place(
    fields: dict[str, tuple[Any, str, Any]], column: str
) -> None:
    page = (ROOT / "docs" / "reference" / "tokens-and-policies.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| `")]
    documented = {
        name.split(".")[-1]: [cell.strip() for cell in cells[2:5]]
        for cells in rows
        if len(cells) == 6
        for name in re.findall(r"`([a-z_.]+)`", cells[1])
    }

    for _, place, _ in fields.values():
        where, merge, enforced = documented[place.split(".")[-1]]
        assert column in where.split(), place
        assert merge, place
        assert enforced, place


NAMES = st.none() | st.lists(st.text(), unique=True).map(lambda names: tuple(sorted(names)))
COUNTS = st.none() | st.integers(0, 1 << 40)
RANGES = st.lists(st.tuples(st.integers(1, 9), st.integers(9, 65535)), unique=True)
WISHES = st.builds(
    TokenWish,
    label=st.text(),
    owner=st.none()
    | st.builds(Owner, cluster=st.text(), namespace=st.text(), name=st.text(), uid=st.text()),
    protocols=NAMES,
    hostnames=NAMES,
    tcp_ports=st.none() | RANGES.map(lambda ranges: tuple(sorted(ranges))),
    agent_cidrs=NAMES,
    max_tunnels=COUNTS,
    max_agents=COUNTS,
    max_connections=COUNTS,
    requests_per_second=st.none() | st.floats(0, 1e9),
    bandwidth=COUNTS,
    suspended=st.booleans(),
    policy_ids=st.lists(st.text(), unique=True).map(lambda names: tuple(sorted(names))),
)


@given(wish=WISHES)
def test_every_wish_reads_back_as_it_was_written(wish: TokenWish) -> None:
    stored = {"etag": '"1"'} | json.loads(json.dumps(write_token(wish)))

    assert read_token(raw(stored)).wish == wish
