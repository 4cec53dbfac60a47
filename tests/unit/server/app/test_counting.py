"""What the components' observers count."""

import pytest
from aiohttp import web

from moleport_server.api.routing import EVENT_STREAM, Call, Route
from moleport_server.app.counting import Counting
from moleport_server.metrics.catalogue import PREFIX


async def _answer(_: Call[object, object]) -> web.Response:
    return web.Response()


def _value(counting: Counting, name: str, **labels: str) -> float | None:
    return counting.collectors.get_sample_value(PREFIX + name, labels)


@pytest.mark.parametrize(
    ("media_type", "durations"),
    [
        pytest.param("application/json", 1.0, id="an answer"),
        pytest.param(EVENT_STREAM, None, id="a stream that lasts as long as somebody watches"),
    ],
)
def test_a_call_is_counted_and_timed_by_its_route(media_type: str, durations: float | None) -> None:
    counting = Counting.create("9.9")
    route = Route(
        method="GET",
        path="/api/tokens/{id}",
        operation="getToken",
        summary="",
        handler=_answer,
        family="tokens",
        media_type=media_type,
    )

    counting.count_call(route, 200, 0.01)

    assert _value(counting, "api_requests_total", route=route.path, method="GET", code="200") == 1
    timed = _value(counting, "api_request_duration_seconds_count", route=route.path)
    assert timed == durations


@pytest.mark.parametrize(("result", "refusals"), [("rejected", None), ("limited", 1.0)])
def test_a_login_counts_as_refused_for_its_rate_only_if_it_was(
    result: str, refusals: float | None
) -> None:
    counting = Counting.create("9.9")
    before = _value(counting, "rate_limited_total", limit="login_failures") or 0.0

    counting.count_login("agent", result)

    assert _value(counting, "auth_attempts_total", kind="agent", result=result) == 1
    after = _value(counting, "rate_limited_total", limit="login_failures") or 0.0
    assert after - before == (refusals or 0.0)


def test_passwords_of_visitors_are_told_from_logins() -> None:
    counting = Counting.create("9.9")

    counting.count_password("accepted")

    assert _value(counting, "auth_attempts_total", kind="visitor", result="accepted") == 1


def test_what_runs_is_shown() -> None:
    counting = Counting.create("9.9")

    samples = [s for m in counting.collectors.collect() for s in m.samples]

    assert [s.labels["version"] for s in samples if s.name == f"{PREFIX}build_info"] == ["9.9"]
