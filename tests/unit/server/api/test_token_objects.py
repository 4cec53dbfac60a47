import hashlib
from typing import Any

import pytest

from helpers.api import Api, ApiWorld

ID = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c0001"
PATH = f"/api/tokens/{ID}"
POLICY = "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c00aa"
OWNER = {"cluster": "c1", "namespace": "team-a", "name": "ci", "uid": "u1"}
EVERYTHING: dict[str, Any] = {
    "label": "team-a/ci",
    "owner": OWNER,
    "access": {
        "protocols": ["http", "tcp"],
        "hostnames": ["shop", "*.example.org"],
        "tcp_ports": [{"start": 20000, "end": 20009}, {"start": 20020}],
        "container_ports": [],
        "agent_cidrs": ["10.0.0.0/8"],
    },
    "limits": {
        "max_tunnels": 3,
        "max_agents": 2,
        "max_connections": 100,
        "max_connections_per_tunnel": 50,
        "requests_per_second": 10,
        "burst": 20,
        "request_body_bytes": 1048576,
        "bandwidth": 10485760,
        "idle_timeout": 300,
    },
    "expires_at": "2030-01-01T00:00:00Z",
    "suspended": False,
    "policy_ids": [POLICY],
}


def sha(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


async def test_a_token_comes_back_as_it_was_put(api: Api) -> None:
    await api.put(f"/api/policies/{POLICY}", json={"access": {"hostnames": ["shop"]}})

    created = await api.put(PATH, json=EVERYTHING)

    assert created.status == 201
    assert created.headers["ETag"] == created.json["etag"] == '"1"'
    shown = (await api.get(PATH)).json
    assert shown == created.json
    assert shown["id"] == ID
    for name in ("label", "owner", "limits", "expires_at", "suspended", "policy_ids"):
        assert shown[name] == EVERYTHING[name], name
    assert shown["access"] == {
        **EVERYTHING["access"],
        "tcp_ports": [{"start": 20000, "end": 20009}, {"start": 20020, "end": 20020}],
    }
    assert shown["scope"] == "shop,*.example.org"
    assert shown["credentials"] == []
    assert shown["effective"]["access"]["hostnames"] == ["shop.tunnels.example.com"]
    assert shown["usage"] == {"active_tunnels": 0, "active_agents": 0, "active_connections": 0}


async def test_putting_the_same_again_changes_nothing(world: ApiWorld, api: Api) -> None:
    await api.put(PATH, json={"label": "ci"})
    world.clock.advance(60)

    again = await api.put(PATH, json={"label": "ci"})

    assert (again.status, again.headers["ETag"]) == (200, '"1"')
    assert again.json["created_at"] == "2025-06-15T15:06:40Z"


async def test_a_put_replaces_everything_and_is_announced(world: ApiWorld, api: Api) -> None:
    await api.put(PATH, json={"label": "ci", "suspended": True, "limits": {"max_tunnels": 1}})
    world.announcements.made.clear()

    replaced = await api.put(PATH, json={"label": "ci"})

    assert (replaced.status, replaced.headers["ETag"]) == (200, '"2"')
    assert replaced.json["suspended"] is False
    assert replaced.json["limits"]["max_tunnels"] is None
    assert world.announcements.made == [("token", ID)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"1"'}, 200),
        ({"If-Match": '"7", "1"'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"2"'}, 412),
        ({"If-Match": 'W/"1"'}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-None-Match": '"1"'}, 412),
        ({"If-None-Match": '"9"'}, 200),
        ({"If-Match": "1"}, 400),
    ],
    ids=str,
)
async def test_conditions_decide_about_a_token_that_exists(
    api: Api, headers: dict[str, str], status: int
) -> None:
    await api.put(PATH, json={"label": "before"})

    answer = await api.put(PATH, json={"label": "after"}, headers=headers)

    assert answer.status == status
    label = (await api.get(PATH)).json["label"]
    assert label == ("after" if status == 200 else "before")
    if status == 412:
        assert answer.json["code"] == "precondition_failed"


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"If-None-Match": "*"}, 201), ({"If-Match": "*"}, 412), ({"If-Match": '"1"'}, 412)],
    ids=str,
)
async def test_conditions_decide_about_a_token_that_does_not_exist(
    api: Api, headers: dict[str, str], status: int
) -> None:
    assert (await api.put(PATH, json={"label": "x"}, headers=headers)).status == status

    assert (await api.get(PATH)).status == (200 if status == 201 else 404)


async def test_a_token_is_deleted_in_the_state_that_was_read(api: Api) -> None:
    await api.put(PATH, json={"label": "x"})

    assert (await api.delete(PATH, headers={"If-Match": '"2"'})).status == 412
    assert (await api.delete(PATH, headers={"If-Match": '"1"'})).status == 204
    assert (await api.delete(PATH, headers={"If-Match": '"1"'})).status == 404


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (OWNER, OWNER | {"cluster": "c2"}),
        (OWNER, OWNER | {"uid": "u2"}),
        (OWNER, None),
        (None, OWNER),
    ],
    ids=["another cluster", "another object", "nobody", "made by hand"],
)
async def test_a_token_of_somebody_else_is_left_alone(api: Api, first: Any, second: Any) -> None:
    await api.put(PATH, json={"label": "mine", "owner": first})

    answer = await api.put(
        PATH, json={"label": "yours", "owner": second}, headers={"If-Match": "*"}
    )

    assert (answer.status, answer.json["code"]) == (409, "conflict")
    assert (await api.get(PATH)).json["label"] == "mine"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "label"),
        ({"label": "x", "acess": {}}, "acess"),
        ({"label": "x", "access": {"client_cidrs": []}}, "client_cidrs"),
        ({"label": "x", "access": {"agent_cidrs": ["10.0.0.1/8"]}}, "host bits set"),
        ({"label": "x", "access": {"hostnames": ["a_b"]}}, "hostnames"),
        ({"label": "x", "access": {"tcp_ports": [{"start": 2, "end": 1}]}}, "ends before"),
        ({"label": "x", "limits": {"burst": 5}}, "needs limits.requests_per_second"),
        ({"label": "x", "limits": {"max_tunnels": -1}}, "max_tunnels"),
        ({"label": "x", "expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"label": "x", "policy_ids": [POLICY]}, f"there is no policy {POLICY}"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused_with_a_reason(
    api: Api, body: dict[str, Any], says: str
) -> None:
    answer = await api.put(PATH, json=body)

    assert answer.status == 422
    assert says in answer.json["error"]
    assert (await api.get(PATH)).status == 404


@pytest.mark.parametrize("path", ["/api/tokens/x", "/api/tokens/x/credentials/1"])
async def test_ids_are_uuids(api: Api, path: str) -> None:
    assert (await api.put(path, json={"label": "x", "sha256": "0" * 64})).status in {400, 422}
    assert (await api.get("/api/tokens/x")).status == 400


async def test_only_the_admin_manages_tokens(world: ApiWorld, api: Api) -> None:
    token = await world.add_token("s1")

    for method, path in [
        ("GET", f"/api/tokens/{token.id}"),
        ("PUT", PATH),
        ("PUT", f"/api/tokens/{token.id}/credentials/2"),
        ("DELETE", f"/api/tokens/{token.id}/credentials/1"),
    ]:
        answer = await api.call(method, path, secret="s1", json={})
        assert (answer.status, answer.json["error"]) == (403, "admin token required")


async def test_slots_hold_the_digest_of_a_secret_that_nobody_sees(
    world: ApiWorld, api: Api
) -> None:
    await api.put(PATH, json={"label": "ci"})

    body = {"sha256": sha("s2"), "not_after": "2030-01-01T00:00:00Z"}
    first = await api.put(f"{PATH}/credentials/2", json=body)
    again = await api.put(f"{PATH}/credentials/2", json={**body, "not_after": None})

    assert (first.status, again.status) == (201, 200)
    assert first.json == {
        "revision": 2,
        "fingerprint": sha("s2")[:16],
        "not_after": "2030-01-01T00:00:00Z",
        "ends_at": "2030-01-01T00:00:00Z",
        "created_at": "2025-06-15T15:06:40Z",
        "last_used_at": None,
    }
    assert again.json["not_after"] is None
    assert (await api.get("/api/tunnels", secret="s2")).status == 200
    await world.authenticator.flush()
    shown = (await api.get(PATH)).json
    assert shown["credentials"][0]["last_used_at"] == "2025-06-15T15:06:40Z"
    assert shown["token_hash"] == sha("s2")
    assert world.announcements.made.count(("slot", ID, "2")) == 0


async def test_two_revisions_overlap_until_one_is_deleted(world: ApiWorld, api: Api) -> None:
    await api.put(PATH, json={"label": "ci"})
    for revision in (1, 2):
        slot = f"{PATH}/credentials/{revision}"
        assert (await api.put(slot, json={"sha256": sha(f"s{revision}")})).status == 201
    assert [(await api.get("/api/tunnels", secret=s)).status for s in ("s1", "s2")] == [200, 200]

    answers = [(await api.delete(f"{PATH}/credentials/1")).status for _ in range(2)]

    assert answers == [204, 404]
    assert [(await api.get("/api/tunnels", secret=s)).status for s in ("s1", "s2")] == [401, 200]


async def test_another_secret_in_a_slot_ends_the_sessions_of_the_first(
    world: ApiWorld, api: Api
) -> None:
    await api.put(PATH, json={"label": "ci"})
    await api.put(f"{PATH}/credentials/1", json={"sha256": sha("s1")})

    assert (await api.put(f"{PATH}/credentials/1", json={"sha256": sha("s2")})).status == 200

    assert ("slot", ID, "1") in world.announcements.made


@pytest.mark.parametrize(
    ("slot", "body", "status"),
    [
        ("0", {"sha256": sha("a")}, 400),
        ("-1", {"sha256": sha("a")}, 400),
        ("9999999999", {"sha256": sha("a")}, 400),
        ("1", {"sha256": sha("a").upper()}, 422),
        ("1", {"sha256": "abc"}, 422),
        ("1", {"sha256": sha("taken")}, 409),
    ],
)
async def test_a_slot_that_cannot_be_filled_stays_empty(
    world: ApiWorld, api: Api, slot: str, body: dict[str, str], status: int
) -> None:
    await world.add_token("taken")
    await api.put(PATH, json={"label": "ci"})

    assert (await api.put(f"{PATH}/credentials/{slot}", json=body)).status == status

    assert (await api.get(PATH)).json["credentials"] == []


async def test_slots_of_unknown_tokens_are_unknown(api: Api) -> None:
    slot = f"{PATH}/credentials/1"

    assert (await api.put(slot, json={"sha256": sha("a")})).status == 404
    assert (await api.delete(slot)).status == 404


async def test_the_tokens_of_a_cluster_are_listed_in_full(api: Api) -> None:
    for number in range(1, 6):
        owner = {**OWNER, "cluster": f"c{number % 2}", "uid": str(number)}
        await api.put(f"{PATH[:-1]}{number}", json={"label": f"t{number}", "owner": owner})

    whole = await api.get("/api/tokens?owner_cluster=c1")
    labels, pages, path = [], 0, "/api/tokens?owner_cluster=c1&limit=2"
    while path:
        page = await api.get(path)
        pages += 1
        labels += [row["label"] for row in page.json]
        path = page.headers.get("Link", "").removeprefix("<").removesuffix('>; rel="next"')

    assert sorted(row["label"] for row in whole.json) == ["t1", "t3", "t5"]
    assert {row["owner"]["cluster"] for row in whole.json} == {"c1"}
    assert (sorted(labels), pages) == (["t1", "t3", "t5"], 2)
    assert "owner" not in (await api.get("/api/tokens")).json[0]


async def test_usage_counts_what_is_open_now(world: ApiWorld, api: Api) -> None:
    token = await world.add_token("s1")
    session = world.add_session(token)
    world.add_tunnel(session, token).active = 3
    world.add_tunnel(None, token).active = 1

    usage = (await api.get(f"/api/tokens/{token.id}")).json["usage"]

    assert usage == {"active_tunnels": 1, "active_agents": 1, "active_connections": 4}
