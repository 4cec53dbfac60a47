import pytest

from helpers.api import Api, ApiWorld


async def test_a_session_shows_who_it_is_and_what_it_has(world: ApiWorld, api: Api) -> None:
    token = await world.add_token("s1")
    session = world.add_session(token)
    tunnel = world.add_tunnel(session, token)

    shown = await api.get("/api/sessions/s-1")

    assert shown.json == {
        "session_id": "s-1",
        "protocol": "moleport",
        "peer": "192.0.2.7:50000",
        "agent": "moleport/1.2.3",
        "token_id": token.id,
        "token_label": "ci",
        "connected_at": "2025-06-15T15:06:41Z",
        "connections": 1,
        "open_streams": 2,
        "tunnel_ids": [str(tunnel.id)],
    }
    assert (await api.get("/api/sessions")).json == [shown.json]


@pytest.mark.parametrize(("query", "seconds"), [("", 0), ("?drain_seconds=2.5", 2.5)])
async def test_closing_a_session_begins_its_end(
    world: ApiWorld, api: Api, query: str, seconds: float
) -> None:
    world.add_session()

    answer = await api.delete(f"/api/sessions/s-1{query}")

    assert (answer.status, answer.json["session_id"]) == (202, "s-1")
    assert world.registry.closed == [("session", "s-1", seconds)]


@pytest.mark.parametrize("text", ["-1", "3601", "nan", "inf", "x", ""])
async def test_a_drain_has_bounds(world: ApiWorld, api: Api, text: str) -> None:
    world.add_session()

    answer = await api.delete(f"/api/sessions/s-1?drain_seconds={text}")

    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert world.registry.closed == []


async def test_foreign_sessions_look_unknown(world: ApiWorld, api: Api) -> None:
    mine, theirs = await world.add_token("s1"), await world.add_token("s2")
    world.add_session(mine, "mine")
    world.add_session(theirs, "theirs")

    listed = (await api.get("/api/sessions", secret="s1")).json
    shown = await api.get("/api/sessions/theirs", secret="s1")
    closed = await api.delete("/api/sessions/theirs", secret="s1")

    assert [row["session_id"] for row in listed] == ["mine"]
    expected = {"error": "session not found", "code": "not_found"}
    assert [(answer.status, answer.json) for answer in (shown, closed)] == [(404, expected)] * 2
    assert world.registry.closed == []
