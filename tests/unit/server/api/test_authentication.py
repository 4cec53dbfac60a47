import pytest

from helpers.api import Api, ApiWorld


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "missing token"),
        ("", "missing token"),
        ("Bearer", "missing token"),
        ("Bearer ", "missing token"),
        ("Basic YTpi", "missing token"),
        ("admin-secret-for-tests", "missing token"),
        ("Bearer wrong", "invalid token"),
        ("Bearer admin-secret-for-test", "invalid token"),
        ("Bearer admin-secret-for-tests x", "invalid token"),
        ("Bearer " + "x" * 5000, "invalid token"),
    ],
)
async def test_without_a_good_token_the_answer_is_401(
    api: Api, header: str | None, text: str
) -> None:
    headers = {} if header is None else {"Authorization": header}

    answer = await api.get("/api/tunnels", secret=None, headers=headers)

    assert (answer.status, answer.json) == (401, {"error": text})


async def test_the_scheme_may_have_any_case(api: Api) -> None:
    headers = {"Authorization": "bEARER  admin-secret-for-tests"}

    assert (await api.get("/api/tunnels", secret=None, headers=headers)).status == 200


@pytest.mark.parametrize(
    ("method", "path", "how"),
    [
        ("GET", "/api/history?limit=-1", {}),
        ("GET", "/api/tunnels/x/requests?limit=abc", {}),
        ("POST", "/api/tokens", {"data": b"{"}),
        ("DELETE", "/api/tunnels/not-a-uuid", {}),
        ("DELETE", "/api/sessions/unknown?drain_seconds=x", {}),
    ],
)
async def test_strangers_are_told_nothing_about_their_mistakes(
    api: Api, method: str, path: str, how: dict[str, object]
) -> None:
    answer = await api.call(method, path, secret=None, **how)

    assert (answer.status, answer.json["error"]) == (401, "missing token")


async def test_too_many_wrong_tokens_are_limited_and_a_right_one_is_not(api: Api) -> None:
    answers = [await api.get("/api/tunnels", secret=f"wrong-{index}") for index in range(60)]

    assert answers[-1].status == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert (await api.get("/api/tunnels")).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/tokens"),
        ("POST", "/api/tokens"),
        ("DELETE", "/api/tokens/00000000-0000-4000-8000-000000000000"),
    ],
)
async def test_tokens_are_for_the_admin(world: ApiWorld, api: Api, method: str, path: str) -> None:
    await world.add_token("s1")

    answer = await api.call(method, path, secret="s1")

    assert (answer.status, answer.json) == (403, {"error": "admin token required"})


async def test_tokens_are_admin_where_the_setting_says_so() -> None:
    world = ApiWorld(options={"tokens_are_admin": True})
    await world.add_token("s1")
    world.add_tunnel(world.add_session())
    async with world.serving() as api:
        assert (await api.get("/api/tokens", secret="s1")).status == 200
        assert len((await api.get("/api/tunnels", secret="s1")).json) == 1
        assert (await api.get("/api/tunnels", secret="s2")).status == 401
