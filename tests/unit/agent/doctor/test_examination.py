from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from helpers.control_server import ControlServer
from moleport_agent.config import Layer, resolve
from moleport_agent.doctor.examination import Resolve, examine, is_healthy
from moleport_agent.doctor.findings import CHECKS, Finding, Outcome
from moleport_agent.errors import ConfigError
from moleport_agent.settings import Secret


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.healthy()
        yield running


def settings_for(url: str, **fields: Any) -> Resolve:
    layer = Layer(source="flags", server=url, **{"token": Secret("t")} | fields)
    return partial(resolve, [layer])


def outcomes(findings: Iterable[Finding]) -> dict[str, str]:
    return {finding.check: finding.outcome.value for finding in findings}


def test_a_healthy_way_passes_every_check_in_order(server: ControlServer) -> None:
    findings = list(examine(settings_for(server.url)))

    assert [finding.check for finding in findings] == list(CHECKS)
    assert is_healthy(findings)


def test_wrong_settings_are_the_only_thing_that_is_looked_at() -> None:
    def broken(*, needs_token: bool) -> NoReturn:
        raise ConfigError(["no server: set it"])

    findings = list(examine(broken))

    assert [finding.check for finding in findings] == list(CHECKS)
    assert findings[0].sentence == "no server: set it"
    assert {finding.outcome for finding in findings[1:]} == {Outcome.SKIPPED}
    assert not is_healthy(findings)


def test_a_missing_token_spares_no_check_that_needs_none(server: ControlServer) -> None:
    findings = {f.check: f for f in examine(settings_for(server.url, token=None))}

    assert "no token: run `moleport login`" in findings["token"].sentence
    assert {check for check, finding in findings.items() if finding.outcome is Outcome.OK} >= {
        *("settings", "name resolution", "tcp", "http", "latency")
    }
    assert findings["websocket"].outcome is findings["streaming"].outcome is Outcome.SKIPPED
    assert not is_healthy(findings.values())


def test_a_missing_token_file_is_told_before_anything_is_dialled() -> None:
    resolving = settings_for("http://127.0.0.1:1", token=None, token_file=Path("/none/token"))

    findings = list(examine(resolving))

    assert findings[0].outcome is Outcome.FAILED
    assert "/none/token" in findings[0].sentence


def test_a_token_that_others_can_read_is_a_warning(server: ControlServer, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("t")
    path.chmod(0o644)

    findings = list(examine(settings_for(server.url, token=None, token_file=path)))

    assert findings[0].outcome is Outcome.WARNING
    assert is_healthy(findings)


def test_what_builds_on_a_failure_is_skipped() -> None:
    found = outcomes(examine(settings_for("http://127.0.0.1:1")))

    assert found["name resolution"] == "ok"
    assert found["tcp"] == "failed"
    assert found["tls"] == found["streaming"] == "skipped"


def test_a_refused_token_leaves_what_needs_none(server: ControlServer) -> None:
    server.answer("GET", "/api/tunnels", {"error": "invalid token"}, status=401)

    found = outcomes(examine(settings_for(server.url)))

    assert (found["token"], found["websocket"], found["latency"], found["streaming"]) == (
        "failed",
        "skipped",
        "ok",
        "skipped",
    )


def test_another_service_on_the_port_ends_the_round(server: ControlServer) -> None:
    server.answer("GET", "/api/status", "hello")

    findings = list(examine(settings_for(server.url)))

    assert [finding.check for finding in findings] == list(CHECKS)
    assert outcomes(findings)["http"] == "failed"
