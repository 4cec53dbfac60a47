from uuid import uuid4

import pytest

from helpers.api import Api, ApiWorld


async def test_a_tunnel_shows_its_full_address(world: ApiWorld, api: Api) -> None:
    session = world.add_session()
    tcp = world.add_tunnel(session, port=20001, bind_id=1)
    http = world.add_tunnel(session, bind_id=2)

    listed = (await api.get("/api/tunnels")).json
    shown = await api.get(f"/api/tunnels/{http.id}")

    assert [row["tunnel_id"] for row in listed] == [str(http.id), str(tcp.id)]
    assert shown.body.decode() == (
        f'{{"tunnel_id":"{http.id}","protocol":"http","label":"quick-otter.tunnels.example.com",'
        '"public_url":"https://quick-otter.tunnels.example.com",'
        '"connected_since":"2025-06-15T15:06:40+00:00","request_count":3,'
        '"client_addr":"192.0.2.7:50000","region_id":"eu"}'
    )
    assert listed[1] | {"protocol": "tcp", "label": "20001"} == listed[1]
    assert listed[1]["public_url"] == "tcp://tunnels.example.com:20001"


async def test_a_leased_tunnel_is_listed_only_when_asked_for(world: ApiWorld, api: Api) -> None:
    tunnel = world.add_tunnel(None)

    shown = (await api.get(f"/api/tunnels/{tunnel.id}")).json

    assert (await api.get("/api/tunnels")).json == []
    assert (await api.get("/api/tunnels?leased=true")).json == [shown]
    assert shown["client_addr"] == ""
    assert (await api.get("/api/tunnels?leased=maybe")).status == 400


@pytest.mark.parametrize("spell", [str.upper, lambda text: text.replace("-", ""), lambda _: "x"])
async def test_a_tunnel_is_shown_by_its_exact_id_only(  # type: ignore[no-untyped-def]  # lambdas
    world: ApiWorld, api: Api, spell
) -> None:
    tunnel = world.add_tunnel(world.add_session())

    answer = await api.get(f"/api/tunnels/{spell(str(tunnel.id))}")

    assert (answer.status, answer.json) == (404, {"error": "tunnel not found"})


async def test_closing_a_tunnel_really_closes_it(world: ApiWorld, api: Api) -> None:
    tunnel = world.add_tunnel(world.add_session())

    answers = [await api.delete(f"/api/tunnels/{tunnel.id}") for _ in range(2)]

    assert [(answer.status, answer.body) for answer in answers] == [(204, b"")] * 2
    assert world.registry.closed == [("tunnel", str(tunnel.id), "closed through the API")]


@pytest.mark.parametrize("text", ["x", "00000000", "g" * 32, "a1b2c3d4-...", "%7Bx%7D"])
async def test_what_is_no_uuid_cannot_be_closed(api: Api, text: str) -> None:
    answer = await api.delete(f"/api/tunnels/{text}")

    assert (answer.status, answer.json) == (404, {"error": "invalid tunnel id"})


async def test_foreign_tunnels_look_unknown(world: ApiWorld, api: Api) -> None:
    mine, theirs = await world.add_token("s1"), await world.add_token("s2")
    own = world.add_tunnel(world.add_session(mine, "a"), mine)
    foreign = world.add_tunnel(world.add_session(theirs, "b"), theirs)
    of_admin = world.add_tunnel(world.add_session(None, "c"))

    listed = (await api.get("/api/tunnels", secret="s1")).json
    assert [row["tunnel_id"] for row in listed] == [str(own.id)]
    for tunnel_id in (foreign.id, of_admin.id, uuid4()):
        shown = await api.get(f"/api/tunnels/{tunnel_id}", secret="s1")
        closed = await api.delete(f"/api/tunnels/{tunnel_id}", secret="s1")
        assert (shown.status, shown.json) == (404, {"error": "tunnel not found"})
        assert closed.status == 204
    assert world.registry.closed == []
    assert len((await api.get("/api/tunnels")).json) == 3
