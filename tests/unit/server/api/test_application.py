import pytest

from helpers.api import INSTANCE, Api, ApiWorld


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/", 404, "not found"),
        ("GET", "/api", 404, "not found"),
        ("GET", "/api/status/", 404, "not found"),
        ("GET", "/api/tunnels/a/b", 404, "not found"),
        ("DELETE", "/api/unknown", 404, "not found"),
        ("POST", "/api/status", 405, "method not allowed"),
        ("PATCH", "/api/tokens", 405, "method not allowed"),
    ],
)
async def test_unknown_calls_answer_json(
    api: Api, method: str, path: str, status: int, text: str
) -> None:
    answer = await api.call(method, path, secret=None)

    assert (answer.status, answer.json) == (status, {"error": text})


async def test_a_wrong_method_is_told_the_right_ones(api: Api) -> None:
    answer = await api.call("PUT", "/api/tokens")

    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize(
    "path", ["/api/status", "/api/tunnels", "/api/openapi.json", "/api/events"]
)
async def test_head_works_where_get_does(api: Api, path: str) -> None:
    answer = await api.call("HEAD", path)

    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("path", ["/api/status", "/api/tunnels", "/nowhere", "/api/docs"])
async def test_every_answer_carries_the_instance_and_keeps_browsers_careful(
    api: Api, path: str
) -> None:
    headers = (await api.get(path, headers={"Origin": "https://evil.example"})).headers

    assert headers["X-Moleport-Instance"] == INSTANCE
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


async def test_configured_origins_may_call_and_others_may_not() -> None:
    world = ApiWorld(options={"cors_origins": ["https://ops.example.com"]})
    async with world.serving() as api:
        ours, theirs = {"Origin": "https://ops.example.com"}, {"Origin": "https://evil.example"}
        preflight = {"Access-Control-Request-Method": "DELETE"}

        simple = await api.get("/api/status", headers=ours)
        allowed = await api.call("OPTIONS", "/api/tokens", secret=None, headers=ours | preflight)
        refused = await api.call("OPTIONS", "/api/tokens", secret=None, headers=theirs | preflight)

    assert simple.headers["Access-Control-Allow-Origin"] == "https://ops.example.com"
    assert "Access-Control-Allow-Methods" not in simple.headers
    assert allowed.status == refused.status == 200
    assert allowed.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE"
    assert "Authorization" in allowed.headers["Access-Control-Allow-Headers"]
    assert not [name for name in refused.headers if name.startswith("Access-Control")]
    assert {answer.headers["Vary"] for answer in (simple, allowed, refused)} == {"Origin"}


async def test_calls_are_observed_by_operation_and_status(world: ApiWorld, api: Api) -> None:
    await api.get("/api/status")
    await api.get("/api/tunnels", secret="wrong")

    assert world.calls == [("getStatus", 200), ("listTunnels", 401)]
