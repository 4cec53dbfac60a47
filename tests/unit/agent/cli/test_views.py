import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from moleport_agent import logs
from moleport_agent.cli.options import OutputFlags
from moleport_agent.cli.views import open_view
from moleport_agent.events import Connected, Disconnected, RequestSeen, TunnelOpened
from moleport_agent.settings import AgentSettings, Secret, ServerSettings

EVENTS = (
    Connected("s", "https://a", False),
    TunnelOpened("web", "https://x.a", "3000"),
    RequestSeen("web", "GET", "/", 200, 1, "p"),
)
SETTINGS = AgentSettings(
    server=ServerSettings(url="https://a", read_token=lambda: Secret("t")), tunnels=()
)


@pytest.fixture(autouse=True)
def _restored_loggers() -> Iterator[None]:
    yield
    for name in logs.LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def shown(capsys: pytest.CaptureFixture[str], **flags: Any) -> list[str]:
    with open_view(SETTINGS, OutputFlags(**{"json": False} | flags)) as (observe, restore):
        for event in EVENTS:
            observe(event)
        restore()
    return capsys.readouterr().out.splitlines()


def test_without_a_terminal_there_is_one_line_per_event(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == [
        "online at https://a",
        "web: https://x.a -> 3000",
        "web: GET / 200 1 ms p",
    ]


def test_quiet_leaves_urls_and_problems(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, quiet=True) == ["web: https://x.a -> 3000"]


def test_an_outage_is_said_once_and_again_after_it_was_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost, online = Disconnected("refused", 1.0), Connected("s", "https://a", True)

    with open_view(SETTINGS, OutputFlags(json=False)) as (observe, _):
        for event in (lost, lost, Disconnected("reset", 1.0), online, lost, lost):
            observe(event)

    assert capsys.readouterr().out.count("offline: refused") == 2


def test_json_is_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in shown(capsys, json=True)]

    assert [line["event"] for line in lines] == ["connected", "tunnel_opened", "request_seen"]


def test_verbose_logs_details(capsys: pytest.CaptureFixture[str]) -> None:
    with open_view(SETTINGS, OutputFlags(json=False, verbose=True)):
        logging.getLogger("moleport_agent.session").debug("a detail")

    assert "a detail" in capsys.readouterr().err


def test_on_a_terminal_there_is_the_live_view(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    assert any("https://x.a" in line for line in shown(capsys))
