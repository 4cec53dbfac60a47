from helpers.api import Api, ApiWorld


async def test_status_counts_what_is_live(world: ApiWorld, api: Api) -> None:
    session = world.add_session()
    world.add_tunnel(session)
    world.add_tunnel(None)

    answer = await api.get("/api/status", secret=None)

    assert answer.status == 200
    assert answer.body == (
        b'{"ok":true,"region":{"id":"eu","name":"Europe","location":"Vienna"},'
        b'"active_sessions":1,"active_tunnels":1}'
    )


async def test_this_server_is_the_only_region(api: Api) -> None:
    answer = await api.get("/api/regions", secret=None)

    assert answer.body == (
        b'[{"id":"eu","name":"Europe","location":"Vienna","host":"control.example.com",'
        b'"control_port":4040,"active":true}]'
    )


async def test_a_plain_request_where_agents_connect_is_told_so(api: Api) -> None:
    answer = await api.get("/api/v1/tunnel/connect", secret=None)

    assert (answer.status, answer.json) == (
        400,
        {
            "error": "this address is for agents, which connect to it with a WebSocket",
            "code": "invalid_request",
        },
    )
    assert answer.headers["x-hoody-tunnel-versions"] == "hoody-tunnel.v1, hoody-tunnel.v2"
