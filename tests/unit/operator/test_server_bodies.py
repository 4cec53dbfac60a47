from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_operator.errors import ServerUnavailable
from moleport_operator.plan.records import Owner, Slot, TokenWish, Usage
from moleport_operator.server_bodies import (
    read_facts,
    read_page,
    read_policies,
    read_policy,
    read_rows,
    read_slot,
    read_token,
    write_token,
)

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
