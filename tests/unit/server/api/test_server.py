from helpers.api import INSTANCE, Api, ApiWorld


async def test_the_server_tells_its_facts_to_whoever_has_a_token(world: ApiWorld, api: Api) -> None:
    await world.add_token("s1")

    answer = await api.get("/api/server", secret="s1")

    assert answer.json == {
        "instance_id": INSTANCE,
        "version": "1.2.3",
        "domains": ["tunnels.example.com"],
        "public": {
            "http_port": 80,
            "https_port": 443,
            "control_port": 4040,
            "tcp_host": "tunnels.example.com",
            "tcp_ports": [20000, 20099],
        },
        "limits": {"tunnels_per_session": 16, "lease_seconds": 60, "requests_per_second": None},
    }


async def test_strangers_learn_the_reason_with_a_code(api: Api) -> None:
    answer = await api.get("/api/server", secret=None)

    expected = {"error": "missing token", "code": "unauthenticated"}
    assert (answer.status, answer.json) == (401, expected)
