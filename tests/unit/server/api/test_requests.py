from typing import Any

import pytest

from helpers.api import Api, ApiWorld
from helpers.captures import make_capture, make_tunnel
from moleport_server.capture.record import Capture, CaptureIds
from moleport_server.capture.writer import CaptureWriter
from moleport_server.errors import NoSession, UpstreamRefused
from moleport_server.registry.live import Tunnel


def record(world: ApiWorld, tunnel: Tunnel, target: bytes = b"/", **how: Any) -> str:
    capture = make_capture(world.captures.ids, target, **how)
    world.captures.add(tunnel, capture)
    return world.captures.ids.requests.format(capture.sequence)


async def store(world: ApiWorld, tunnel: Tunnel, capture: Capture, ids: CaptureIds) -> str:
    async with CaptureWriter(ids).into(world.capture_store) as writer:
        writer.offer(tunnel, capture)
    return ids.requests.format(capture.sequence)


async def test_a_captured_request_has_the_keys_of_the_seed(world: ApiWorld, api: Api) -> None:
    tunnel = world.add_tunnel(world.add_session())
    request_id = record(world, tunnel, b"/a?page=1&token=abc", response_body=b'{"a":1}')

    listed = await api.get(f"/api/tunnels/{tunnel.id}/requests")
    replayed = await api.post(f"/api/tunnels/{tunnel.id}/replay/{request_id}")

    conn_id = world.captures.ids.connections.format(7)
    assert replayed.status == 200
    assert replayed.body.decode() == (
        f'{{"id":"{request_id}","tunnel_id":"{tunnel.id}","conn_id":"{conn_id}","method":"GET",'
        '"path":"/a?page=1&token=***","status":200,"request_bytes":0,"response_bytes":7,'
        '"duration_ms":45,"captured_at":"2025-06-15T15:06:41.500000Z",'
        '"request_body":null,"response_body":"{\\"a\\":1}"}'
    )
    assert listed.json == [replayed.json]
    assert world.replayer.sent == []


@pytest.mark.parametrize(("query", "count"), [("", 50), ("?limit=0", 0), ("?limit=2", 2)])
async def test_the_newest_requests_are_listed(
    world: ApiWorld, api: Api, query: str, count: int
) -> None:
    tunnel = world.add_tunnel(world.add_session())
    ids = [record(world, tunnel) for _ in range(60)]

    listed = (await api.get(f"/api/tunnels/{tunnel.id}/requests{query}")).json

    assert [row["id"] for row in listed] == ids[::-1][:count]


async def test_the_store_answers_behind_memory(world: ApiWorld, api: Api) -> None:
    tunnel, earlier = world.add_tunnel(world.add_session()), CaptureIds.random()
    old = await store(world, tunnel, make_capture(earlier, b"/?key=k"), earlier)
    both = make_capture(world.captures.ids)
    world.captures.add(tunnel, both)
    kept = await store(world, tunnel, both, world.captures.ids)
    new = record(world, tunnel)

    for limit in (1, 2, 3, 9):
        listed = (await api.get(f"/api/tunnels/{tunnel.id}/requests?limit={limit}")).json
        assert [row["id"] for row in listed] == [new, kept, old][:limit]
    shown = await api.post(f"/api/tunnels/{tunnel.id}/replay/{old}")
    assert (shown.status, shown.json["path"]) == (200, "/?key=***")


@pytest.mark.parametrize("text", ["x", "00000000-0000-4000-8000-000000000000"])
async def test_an_unknown_tunnel_has_no_requests(api: Api, text: str) -> None:
    answer = await api.get(f"/api/tunnels/{text}/requests")

    assert (answer.status, answer.json) == (200, [])


async def test_a_request_is_looked_up_in_its_tunnel(world: ApiWorld, api: Api) -> None:
    session = world.add_session()
    tunnel, other = world.add_tunnel(session), world.add_tunnel(session, bind_id=2)
    request_id = record(world, tunnel)

    wrong = await api.post(f"/api/tunnels/{other.id}/replay/{request_id}")
    unknown = await api.post(f"/api/tunnels/{tunnel.id}/replay/unknown")

    assert (wrong.status, wrong.json) == (
        404,
        {"error": "request does not belong to this tunnel"},
    )
    assert (unknown.status, unknown.json) == (404, {"error": "request not found"})


async def test_foreign_requests_look_unknown(world: ApiWorld, api: Api) -> None:
    theirs = await world.add_token("s2")
    await world.add_token("s1")
    tunnel = world.add_tunnel(world.add_session(theirs), theirs)
    in_memory, earlier = record(world, tunnel), CaptureIds.random()
    stored = await store(world, tunnel, make_capture(earlier), earlier)

    listed = await api.get(f"/api/tunnels/{tunnel.id}/requests", secret="s1")

    assert (listed.status, listed.json) == (200, [])
    assert len((await api.get(f"/api/tunnels/{tunnel.id}/requests", secret="s2")).json) == 2
    for request_id in (in_memory, stored):
        path = f"/api/tunnels/{tunnel.id}/replay/{request_id}"
        answer = await api.post(path + "?send=true", secret="s1")
        assert (answer.status, answer.json) == (404, {"error": "request not found"})
        assert (await api.post(path, secret="s2")).status == 200


async def test_sending_again_returns_the_new_capture(world: ApiWorld, api: Api) -> None:
    tunnel = world.add_tunnel(world.add_session())
    request_id = record(world, tunnel, b"/a?token=abc", request_body=b"hello")

    answer = await api.post(f"/api/tunnels/{tunnel.id}/replay/{request_id}?send=true")

    assert answer.status == 200
    assert (answer.json["path"], answer.json["request_body"]) == ("/a?token=***", "hello")
    assert answer.json["id"] != request_id
    ((sent_tunnel, original),) = world.replayer.sent
    assert (sent_tunnel, original.target) == (tunnel, b"/a?token=abc")


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"request_bytes": 9}, "its body was given up to save memory"),
        ({"request_body": b"x", "request_truncated": True}, "its body was too long to keep"),
    ],
    ids=["no body", "half a body"],
)
async def test_half_a_request_is_not_sent(
    world: ApiWorld, api: Api, how: dict[str, Any], reason: str
) -> None:
    tunnel = world.add_tunnel(world.add_session())
    request_id = record(world, tunnel, **how)

    answer = await api.post(f"/api/tunnels/{tunnel.id}/replay/{request_id}?send=true")

    expected = {"error": f"the original request is gone; {reason}", "code": "original_gone"}
    assert (answer.status, answer.json) == (409, expected)
    assert world.replayer.sent == []


async def test_a_masked_copy_is_not_sent(world: ApiWorld, api: Api) -> None:
    tunnel, earlier = world.add_tunnel(world.add_session()), CaptureIds.random()
    request_id = await store(world, tunnel, make_capture(earlier), earlier)

    answer = await api.post(f"/api/tunnels/{tunnel.id}/replay/{request_id}?send=true")

    assert (answer.status, answer.json["code"]) == (409, "original_gone")


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NoSession("away"), 503, "agent_away"),
        (UpstreamRefused("refused"), 502, "upstream_refused"),
    ],
    ids=["away", "refused"],
)
async def test_a_replay_that_fails_says_whose_side_it_is_on(
    world: ApiWorld, api: Api, failure: Exception, status: int, code: str
) -> None:
    tunnel = world.add_tunnel(world.add_session())
    request_id = record(world, tunnel)
    world.replayer.failures.append(failure)

    answer = await api.post(f"/api/tunnels/{tunnel.id}/replay/{request_id}?send=true")

    assert (answer.status, answer.json["code"]) == (status, code)


async def test_a_request_of_a_closed_tunnel_is_shown_and_not_sent(
    world: ApiWorld, api: Api
) -> None:
    tunnel = make_tunnel()
    path = f"/api/tunnels/{tunnel.id}/replay/{record(world, tunnel)}"

    sent = await api.post(f"{path}?send=true")

    assert (await api.post(path)).status == 200
    assert (sent.status, sent.json) == (404, {"error": "tunnel not found"})
