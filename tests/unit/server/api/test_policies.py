from typing import Any

import bcrypt
import pytest

from helpers.api import Api, ApiWorld
from moleport_server.api.policies import BasicWish

ID = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c00aa"
PATH = f"/api/policies/{ID}"
TOKEN = "/api/tokens/6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c0001"
OWNER = {"cluster": "c1", "namespace": "team-a", "name": "limits", "uid": "u1"}
HASH = bcrypt.hashpw(b"open", bcrypt.gensalt(4)).decode()
EVERYTHING: dict[str, Any] = {
    "owner": OWNER,
    "access": {
        "protocols": ["http"],
        "hostnames": ["*.tunnels.example.com"],
        "tcp_ports": [{"start": 20000, "end": 20001}],
        "agent_cidrs": ["10.0.0.0/8"],
        "client_cidrs": ["192.0.2.0/24"],
        "denied_client_cidrs": ["192.0.2.7/32"],
    },
    "limits": {
        "max_tunnels_per_token": 2,
        "max_connections_per_tunnel": 10,
        "requests_per_second": 5.0,
        "burst": 10.0,
        "request_body_bytes": 1024,
        "bandwidth": 65536,
        "idle_timeout": 60.0,
    },
    "tokens": {"max_lifetime": 3600.0, "max_tokens": 4, "require_rotation": True},
    "http": {"require_tls": True, "auth": {"basic": {"htpasswd": f"ann:{HASH}\n"}}},
}


async def test_a_policy_comes_back_as_it_was_put_without_its_hashes(api: Api) -> None:
    created = await api.put(PATH, json=EVERYTHING)

    assert (created.status, created.headers["ETag"]) == (201, '"1"')
    assert created.json == {
        "id": ID,
        **EVERYTHING,
        "http": {"require_tls": True, "users": ["ann"], "is_auth_unresolved": False},
        "attached_tokens": 0,
        "etag": '"1"',
    }
    assert (await api.get(PATH)).json == created.json
    assert HASH not in created.body.decode()
    assert HASH not in repr(BasicWish(htpasswd=f"ann:{HASH}"))


async def test_what_holds_for_a_token_is_readable_field_by_field(api: Api) -> None:
    await api.put(PATH, json=EVERYTHING)
    created = await api.put(TOKEN, json={"label": "ci", "policy_ids": [ID]})

    assert created.json["effective"] == {
        "access": {
            "protocols": ["http"],
            "hostnames": ["*.tunnels.example.com"],
            "tcp_ports": [{"start": 20000, "end": 20001}],
            "container_ports": None,
            "agent_cidrs": ["10.0.0.0/8"],
            "client_cidrs": ["192.0.2.0/24"],
            "denied_client_cidrs": ["192.0.2.7/32"],
        },
        "limits": {
            "max_tunnels": 2,
            "max_agents": None,
            "max_connections": None,
            "max_connections_per_tunnel": 10,
            "requests_per_second": 5.0,
            "burst": 10.0,
            "request_body_bytes": 1024,
            "bandwidth": 65536,
            "idle_timeout": 60.0,
        },
        "tokens": {"max_lifetime": 3600.0, "max_tokens": 4, "require_rotation": True},
        "http": {"require_tls": True, "users": ["ann"], "denied": None},
    }


async def test_a_lifetime_ends_credentials_earlier_than_they_ask(api: Api) -> None:
    await api.put(PATH, json={"tokens": {"max_lifetime": 60}})
    await api.put(TOKEN, json={"label": "ci", "policy_ids": [ID]})

    slot = await api.put(
        f"{TOKEN}/credentials/1", json={"sha256": "0" * 64, "not_after": "2030-01-01T00:00:00Z"}
    )

    assert slot.json["not_after"] == "2030-01-01T00:00:00Z"
    assert slot.json["ends_at"] == "2025-06-15T15:07:40Z"


async def test_a_changed_policy_is_announced_and_an_equal_one_is_not(
    world: ApiWorld, api: Api
) -> None:
    await api.put(PATH, json=EVERYTHING)
    world.announcements.made.clear()

    same = await api.put(PATH, json=EVERYTHING)
    assert (same.status, same.headers["ETag"], world.announcements.made) == (200, '"1"', [])

    other = await api.put(PATH, json={"owner": OWNER})
    assert (other.status, other.headers["ETag"]) == (200, '"2"')
    assert world.announcements.made == [("policy", ID)]
    assert other.json["access"]["hostnames"] is None


async def test_passwords_that_nobody_could_find_out_close_http(api: Api) -> None:
    await api.put(PATH, json={"http": {"auth": {"basic": {"htpasswd": None}}}})
    token = await api.put(TOKEN, json={"label": "ci", "policy_ids": [ID]})

    assert (await api.get(PATH)).json["http"]["is_auth_unresolved"] is True
    assert "was not given" in token.json["effective"]["http"]["denied"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"acces": {}}, "acces"),
        ({"access": {"container_ports": []}}, "container_ports"),
        ({"access": {"denied_client_cidrs": ["x"]}}, "denied_client_cidrs"),
        ({"limits": {"burst": 2}}, "needs limits.requests_per_second"),
        ({"http": {"auth": {}}}, "basic"),
        (
            {"http": {"auth": {"basic": {"htpasswd": "ann:plain"}}}},
            "line 1: the hash is not bcrypt",
        ),
        ({"tokens": {"max_lifetime": 0}}, "max_lifetime"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused_with_a_reason(
    api: Api, body: dict[str, Any], says: str
) -> None:
    answer = await api.put(PATH, json=body)

    assert answer.status == 422
    assert says in answer.json["error"]
    assert (await api.get(PATH)).status == 404


async def test_a_policy_of_somebody_else_is_left_alone(api: Api) -> None:
    await api.put(PATH, json={"owner": OWNER})

    answer = await api.put(PATH, json={"owner": OWNER | {"cluster": "c2"}})

    assert answer.status == 409
    assert "team-a/limits of cluster c1" in answer.json["error"]


async def test_conditions_hold_for_policies_too(api: Api) -> None:
    assert (await api.put(PATH, json={}, headers={"If-Match": "*"})).status == 412
    assert (await api.put(PATH, json={}, headers={"If-None-Match": "*"})).status == 201
    assert (await api.put(PATH, json={}, headers={"If-None-Match": "*"})).status == 412
    assert (await api.delete(PATH, headers={"If-Match": '"2"'})).status == 412
    assert (await api.delete(PATH, headers={"If-Match": '"1"'})).status == 204


async def test_a_policy_that_a_token_names_is_not_deleted(api: Api) -> None:
    await api.put(PATH, json={})
    await api.put(TOKEN, json={"label": "ci", "policy_ids": [ID]})

    refused = await api.delete(PATH)
    attached = (await api.get(PATH)).json["attached_tokens"]
    await api.put(TOKEN, json={"label": "ci"})

    assert (refused.status, attached) == (409, 1)
    assert [(await api.delete(PATH)).status for _ in range(2)] == [204, 404]


async def test_policies_are_listed_by_cluster(api: Api) -> None:
    for number in (1, 2, 3):
        owner = {**OWNER, "cluster": f"c{number % 2}"}
        await api.put(f"{PATH[:-1]}{number}", json={"owner": owner})

    everything = await api.get("/api/policies")
    ours = await api.get("/api/policies?owner_cluster=c1")

    assert [row["id"][-1] for row in everything.json] == ["1", "2", "3"]
    assert [row["id"][-1] for row in ours.json] == ["1", "3"]
