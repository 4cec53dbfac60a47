from ipaddress import ip_network
from typing import Any

import pytest

from helpers.api import Api, ApiWorld
from moleport_server.domain.token import Token
from moleport_server.domain.tunnel import ContainerMode, ContainerPort, TunnelProtocol
from moleport_server.registry.live import Session
from moleport_server.store.base import StoredSession


def add_stock(world: ApiWorld, token: Token | None = None) -> Session:
    """A v2 session with an EXPOSE and a PULL."""
    session = world.add_session(token, "S-stock")
    session.protocol = "hoody-tunnel.v2"
    session.granted = 5
    expose, pull = ContainerMode.EXPOSE, ContainerMode.PULL
    shop = world.add_tunnel(session, token, bind_id=1)
    shop.container = ContainerPort(mode=expose, port=3000, host="0.0.0.0")
    database = world.add_tunnel(session, token, bind_id=2)
    database.protocol, database.hostname = TunnelProtocol.TCP, None
    database.container = ContainerPort(mode=pull, port=5432, host="127.0.0.1")
    return session


def park(world: ApiWorld, token: Token | None, session_id: str = "S-parked") -> None:
    world.registry.parked[session_id] = StoredSession(
        id=session_id,
        token_id=None if token is None else token.id,
        protocol="hoody-tunnel.v1",
        opened_at=0.0,
    )


async def test_health_tells_what_the_process_uses(api: Api) -> None:
    answer = await api.get(
        "/api/v1/tunnel/health", secret=None, headers={"User-Agent": "hoody-cli/1.0.0"}
    )

    assert answer.json == {
        "status": "ok",
        "service": "hoody-tunnel",
        "built": None,
        "started": "2025-06-15T15:06:40Z",
        "memory": {"heap": 15_728_640, "rss": 41_943_040},
        "fds": 128,
        "pid": 12345,
        "ip": "127.0.0.1",
        "userAgent": "hoody-cli/1.0.0",
    }


async def test_metrics_are_three_gauges_in_plain_text(world: ApiWorld, api: Api) -> None:
    add_stock(world)

    answer = await api.get("/api/v1/tunnel/metrics", secret=None)

    assert answer.headers["Content-Type"].startswith("text/plain")
    lines = answer.body.decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        "hoody_tunnel_sessions_active 1",
        "hoody_tunnel_bindings_active 2",
        "hoody_tunnel_fd_permits_available 450",
    ]
    assert "# TYPE hoody_tunnel_bindings_active gauge" in lines


async def test_sessions_and_their_bindings_have_the_names_of_the_family(
    world: ApiWorld, api: Api
) -> None:
    add_stock(world)

    assert (await api.get("/api/v1/tunnel/sessions")).json == {
        "sessions": [
            {
                "sessionId": "S-stock",
                "peerAddr": "192.0.2.7:50000",
                "isV2": True,
                "connectionsGranted": 5,
                "activeStreams": 2,
                "maxStreams": 1024,
                "bindings": [
                    {"bindId": 1, "containerPort": 3000, "kind": "EXPOSE", "mode": "http"},
                    {"bindId": 2, "containerPort": 5432, "kind": "PULL", "mode": "tcp"},
                ],
            }
        ],
        "total": 1,
    }
    pull = {"bindId": 2, "kind": "PULL", "mode": "tcp", "port": 5432, "sessionId": "S-stock"}
    assert (await api.get("/api/v1/tunnel/bindings")).json == {
        "bindings": [
            {"bindId": 1, "kind": "EXPOSE", "mode": "http", "port": 3000, "sessionId": "S-stock"},
            {**pull, "bindAddr": "127.0.0.1"},
        ],
        "total": 2,
    }
    assert (await api.get("/api/v1/tunnel/tunnels")).json == {
        "fdPermitsAvailable": 450,
        "orphanedSessions": 0,
        "totalBindings": 2,
        "totalStreams": 2,
        "sessions": [
            {
                "sessionId": "S-stock",
                "peerAddr": "192.0.2.7:50000",
                "protocol": "hoody-tunnel.v2",
                "connectionsGranted": 5,
                "activeStreams": 2,
                "exposeBindings": [{"bindId": 1, "containerPort": 3000}],
                "pullBindings": [{"bindId": 2, "containerPort": 5432}],
            }
        ],
    }


async def test_sessions_of_other_agents_are_shown_too(world: ApiWorld, api: Api) -> None:
    session = world.add_session()
    world.add_tunnel(session, bind_id=1)
    world.add_tunnel(session, bind_id=2, port=20001)

    (row,) = (await api.get("/api/v1/tunnel/sessions")).json["sessions"]
    overview = (await api.get("/api/v1/tunnel/tunnels")).json

    assert (row["isV2"], row["maxStreams"]) == (False, 10_000)
    assert row["bindings"] == [
        {"bindId": 1, "containerPort": 0, "kind": "EXPOSE", "mode": "http"},
        {"bindId": 2, "containerPort": 20001, "kind": "EXPOSE", "mode": "tcp"},
    ]
    assert overview["sessions"][0]["protocol"] == "moleport"


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 0.05), ("?grace_ms=0", 0.0), ("?grace_ms=5000", 5.0), ("?grace_ms=200", 0.2)],
)
async def test_a_session_is_killed_with_a_grace(
    world: ApiWorld, api: Api, query: str, seconds: float
) -> None:
    add_stock(world)

    answer = await api.delete(f"/api/v1/tunnel/sessions/S-stock{query}")

    assert answer.status == 202
    assert answer.json == {"sessionId": "S-stock", "status": "closing"}
    assert world.registry.closed == [("session", "S-stock", seconds)]


@pytest.mark.parametrize("text", ["-1", "5001", "x", "", "1.5", "50&grace_ms=60"])
async def test_the_grace_has_bounds(world: ApiWorld, api: Api, text: str) -> None:
    add_stock(world)

    answer = await api.delete(f"/api/v1/tunnel/sessions/S-stock?grace_ms={text}")

    assert answer.status == 400
    assert answer.json == {"error": "Invalid grace_ms: must be between 0 and 5000"}
    assert world.registry.closed == []


async def test_a_parked_session_is_an_orphan_that_can_be_killed(world: ApiWorld, api: Api) -> None:
    park(world, None)

    overview = (await api.get("/api/v1/tunnel/tunnels")).json
    listed = (await api.get("/api/v1/tunnel/sessions")).json
    killed = await api.delete("/api/v1/tunnel/sessions/S-parked")
    again = await api.delete("/api/v1/tunnel/sessions/S-parked")

    assert (overview["orphanedSessions"], listed["total"]) == (1, 0)
    assert killed.json == {"sessionId": "S-parked", "status": "closing"}
    assert (again.status, again.json) == (404, {"error": "Session not found"})


async def test_foreign_sessions_look_unknown(world: ApiWorld, api: Api) -> None:
    await world.add_token("mine")
    theirs = await world.add_token("theirs")
    add_stock(world, theirs)
    park(world, theirs)

    seen: list[Any] = [
        (await api.get(f"/api/v1/tunnel/{name}", secret="mine")).json
        for name in ("sessions", "bindings", "tunnels")
    ]
    killed = [
        (await api.delete(f"/api/v1/tunnel/sessions/{name}", secret="mine")).status
        for name in ("S-stock", "S-parked")
    ]

    assert (seen[0]["total"], seen[1]["total"]) == (0, 0)
    assert (seen[2]["orphanedSessions"], seen[2]["totalStreams"]) == (0, 0)
    assert killed == [404, 404]
    assert world.registry.closed == []


@pytest.mark.parametrize("name", ["sessions", "bindings", "tunnels"])
async def test_a_token_is_needed(api: Api, name: str) -> None:
    answers = [await api.get(f"/api/v1/tunnel/{name}", secret=s) for s in (None, "wrong")]

    assert [answer.status for answer in answers] == [401, 401]
    assert (await api.delete("/api/v1/tunnel/sessions/x", secret=None)).status == 401


async def test_callers_from_a_trusted_range_need_no_token() -> None:
    world = ApiWorld(options={"trusted": (ip_network("127.0.0.0/8"),)})
    add_stock(world)

    async with world.serving() as api:
        seen = await api.get("/api/v1/tunnel/sessions", secret=None)
        wrong = await api.get("/api/v1/tunnel/sessions", secret="wrong")
        other_family = await api.get("/api/sessions", secret=None)

    assert seen.json["total"] == 1
    # Who shows a token is judged by it, and no other family trusts addresses.
    assert [wrong.status, other_family.status] == [401, 401]
