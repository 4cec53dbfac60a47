import pytest

from helpers.api import Api, ApiWorld
from moleport_server.domain.token import Token
from moleport_server.store.base import TunnelLogEntry


async def fill(world: ApiWorld) -> Token:
    token = await world.add_token("s1", "ci-deploy")
    for index, (protocol, owner, lasted) in enumerate(
        [("http", token.id, 50.5), ("tcp", None, 10.0), ("http", None, None)]
    ):
        entry = TunnelLogEntry(
            id=f"log-{index}",
            tunnel_id=f"tunnel-{index}",
            protocol=protocol,
            label=f"label-{index}",
            session_id="s-1",
            token_id=owner,
            token_label=None,
            registered_at=1_750_000_000.0 + index,
        )
        await world.store.add_log_entry(entry)
        if lasted is not None:
            at = entry.registered_at + lasted
            await world.store.close_log_entries([entry.tunnel_id], at)
    return token


async def test_an_entry_has_the_keys_of_the_seed(world: ApiWorld, api: Api) -> None:
    token = await fill(world)

    answer = await api.get(f"/api/history?token_id={token.id}")

    assert answer.body.decode() == (
        '{"entries":[{"id":"log-0","tunnel_id":"tunnel-0","protocol":"http","label":"label-0",'
        f'"session_id":"s-1","token_id":"{token.id}","token_label":"ci-deploy",'
        '"registered_at":"2025-06-15T15:06:40Z",'
        '"unregistered_at":"2025-06-15T15:07:30.500000Z","region_id":"eu"}],"total":1}'
    )


@pytest.mark.parametrize(
    ("query", "ids", "total"),
    [
        ("", [2, 1, 0], 3),
        ("limit=0", [], 3),
        ("limit=1&offset=1", [1], 3),
        ("offset=9", [], 3),
        ("protocol=http", [2, 0], 2),
        ("protocol=udp", [], 0),
        ("protocol=", [], 0),
        ("token_id=unknown", [], 0),
        ("active=true", [2], 1),
        ("active=false", [1, 0], 2),
        ("sort_dir=asc", [0, 1, 2], 3),
        ("sort_dir=ASC", [2, 1, 0], 3),
        ("sort_by=duration", [0, 1, 2], 3),
        ("sort_by=protocol", [1, 2, 0], 3),
        ("sort_by=anything&sort_dir=asc", [0, 1, 2], 3),
    ],
)
async def test_filters_order_and_pages(
    world: ApiWorld, api: Api, query: str, ids: list[int], total: int
) -> None:
    await fill(world)

    answer = (await api.get(f"/api/history?{query}")).json

    assert [entry["id"] for entry in answer["entries"]] == [f"log-{index}" for index in ids]
    assert answer["total"] == total


async def test_a_token_sees_its_own_history(world: ApiWorld, api: Api) -> None:
    token = await fill(world)
    await world.add_token("s2")

    own = (await api.get("/api/history", secret="s1")).json
    named = (await api.get(f"/api/history?token_id={token.id}", secret="s1")).json
    foreign = (await api.get(f"/api/history?token_id={token.id}", secret="s2")).json

    assert [entry["id"] for entry in own["entries"]] == ["log-0"]
    assert named == own
    assert foreign == {"entries": [], "total": 0}
