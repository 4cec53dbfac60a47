from collections.abc import Iterator

import pytest

from helpers.control_server import ControlServer, stream_events
from moleport_agent import live_events
from moleport_agent.errors import BadAnswer, ConnectError, NotAuthorised
from moleport_agent.rest import ServerClient
from moleport_agent.settings import Secret, ServerSettings


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        yield running


@pytest.fixture
def client(server: ControlServer) -> Iterator[ServerClient]:
    settings = ServerSettings(url=server.url, read_token=lambda: Secret("secret"))
    with ServerClient(settings) as opened:
        yield opened


def event(number: int) -> str:
    return f'id: {number}\nevent: request.finished\ndata: {{"request_id": "{number}"}}\n\n'


def test_events_arrive_in_order_and_comments_do_not(
    server: ControlServer, client: ServerClient
) -> None:
    server.routes[("GET", "/api/events")] = stream_events([": hi\n\n", event(1), event(2)])

    with client.events(tunnel_id="t") as stream:
        events = iter(stream)
        received = [next(events), next(events)]

    assert [(one.id, one.kind, one.fields) for one in received] == [
        ("1", "request.finished", {"request_id": "1"}),
        ("2", "request.finished", {"request_id": "2"}),
    ]
    assert server.seen[0].query == {"tunnel": "t"}
    assert server.seen[0].headers["authorization"] == "Bearer secret"


def test_a_lost_stream_is_taken_up_behind_the_last_event(
    server: ControlServer, client: ServerClient
) -> None:
    server.routes[("GET", "/api/events")] = stream_events([event(41)], then_wait=False)
    drops = []

    with client.events(on_drop=lambda *drop: drops.append(drop), sleep=lambda _: None) as stream:
        events = iter(stream)
        next(events)
        next(events)

    assert server.seen[1].headers["last-event-id"] == "41"
    assert len(drops) == 1
    assert 0 < drops[0][1] <= live_events.BACKOFF_FIRST_SECONDS


def test_the_pause_grows_while_the_server_is_away_and_has_an_end(
    server: ControlServer, client: ServerClient
) -> None:
    server.routes[("GET", "/api/events")] = stream_events([event(1)], then_wait=False)
    pauses = []

    def sleep(seconds: float) -> None:
        server.answer("GET", "/api/events", {"error": "starting"}, status=503)
        pauses.append(seconds)

    with client.events(sleep=sleep) as stream:
        events = iter(stream)
        next(events)
        with pytest.raises(ConnectError, match="not available"):
            next(events)

    assert max(pauses) <= live_events.BACKOFF_LIMIT_SECONDS
    assert pauses[5] > pauses[0]
    assert sum(pauses) > live_events.GIVE_UP_SECONDS


def test_a_token_that_was_revoked_ends_the_stream(
    server: ControlServer, client: ServerClient
) -> None:
    server.routes[("GET", "/api/events")] = stream_events([event(1)], then_wait=False)

    def revoke(_seconds: float) -> None:
        server.answer("GET", "/api/events", {"error": "invalid token"}, status=401)

    with client.events(sleep=revoke) as stream:
        events = iter(stream)
        next(events)
        with pytest.raises(NotAuthorised, match="invalid token"):
            next(events)


def test_an_answer_that_is_no_stream_is_refused(
    server: ControlServer, client: ServerClient
) -> None:
    server.answer("GET", "/api/events", {})

    with pytest.raises(BadAnswer, match="application/json"):
        client.events()


def test_an_event_that_is_no_object_is_refused(server: ControlServer, client: ServerClient) -> None:
    server.routes[("GET", "/api/events")] = stream_events(["data: 5\n\n"])

    with client.events() as stream, pytest.raises(BadAnswer, match="no JSON object"):
        next(iter(stream))
