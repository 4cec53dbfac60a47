import hashlib
from uuid import UUID

from helpers.api import Api, ApiWorld
from moleport_server.domain.token import Credential, Token


async def test_a_created_token_works_and_its_secret_is_not_kept(world: ApiWorld, api: Api) -> None:
    created = await api.post("/api/tokens", json={"label": "ci-deploy", "scope": "ci-*, demo"})

    assert created.status == 201
    assert list(created.json) == ["id", "label", "token"]
    token_id, secret = created.json["id"], created.json["token"]
    assert UUID(token_id).version == UUID(secret).version == 4
    listed = await api.get("/api/tokens")
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert listed.body.decode() == (
        f'[{{"id":"{token_id}","token_hash":"{digest}","label":"ci-deploy",'
        '"created_at":"2025-06-15T15:06:40Z","last_used_at":null,"scope":"ci-*, demo",'
        '"tunnel_count":0}]'
    )
    assert (await api.get("/api/tunnels", secret=secret)).status == 200
    row = await world.store.get_token(token_id)
    assert row is not None
    assert row.token.grant.hostnames == ("ci-*", "demo")


async def test_a_token_without_scope_is_unrestricted_and_an_empty_scope_is_not(
    world: ApiWorld, api: Api
) -> None:
    bodies = [{"label": ""}, {"label": "", "scope": None, "more": 1}, {"label": "", "scope": ""}]

    created = [(await api.post("/api/tokens", json=body)).json["id"] for body in bodies]

    rows = [await world.store.get_token(token_id) for token_id in created]
    assert [row and row.token.grant.hostnames for row in rows] == [None, None, ()]


async def test_deleting_a_token_disconnects_its_agents(world: ApiWorld, api: Api) -> None:
    token = await world.add_token("s1")
    assert (await api.get("/api/tunnels", secret="s1")).status == 200

    answers = [await api.delete(f"/api/tokens/{token.id}") for _ in range(2)]

    assert [answer.status for answer in answers] == [204, 404]
    assert answers[1].json == {"error": "token not found"}
    assert world.registry.closed == [("token", token.id, "token deleted")]
    assert (await api.get("/api/tunnels", secret="s1")).status == 401


async def test_all_tokens_come_without_a_limit_and_pages_with_one(
    world: ApiWorld, api: Api
) -> None:
    tokens = [await world.add_token(f"s{index}", f"t{index}") for index in range(5)]
    everything = await api.get("/api/tokens")
    assert [row["label"] for row in everything.json] == ["t4", "t3", "t2", "t1", "t0"]
    assert "Link" not in everything.headers

    labels, path = [], "/api/tokens?limit=2"
    while path:
        page = await api.get(path)
        labels.append([row["label"] for row in page.json])
        link = page.headers.get("Link", "")
        path = link.removeprefix("<").removesuffix('>; rel="next"')

    assert labels == [["t4", "t3"], ["t2", "t1"], ["t0"]]
    assert (await api.get("/api/tokens?limit=0")).json == []
    rest = (await api.get(f"/api/tokens?after={tokens[1].id}")).json
    assert [row["label"] for row in rest] == ["t0"]


async def test_the_hash_is_that_of_the_newest_valid_secret(world: ApiWorld, api: Api) -> None:
    now = world.clock.now()
    token = Token(id="6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c0001", label="x", created_at=now)
    expired = Credential(token_id=token.id, revision=1, sha256="a" * 64, not_after=now - 1)
    await world.store.create_token(token, expired)

    assert (await api.get("/api/tokens")).json[0]["token_hash"] == ""
