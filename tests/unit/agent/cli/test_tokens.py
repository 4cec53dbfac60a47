from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.command_line import printed_json, run
from helpers.control_server import ControlServer


def row(token_id: str, label: str, scope: str | None = None) -> dict[str, Any]:
    return {
        "id": token_id,
        "label": label,
        "scope": scope,
        "created_at": "2025-01-31T12:00:00Z",
        "last_used_at": None,
        "tunnel_count": 0,
    }


@pytest.fixture
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        running.answer("GET", "/api/tokens", [row("1", "ci"), row("2", "x"), row("3", "x", "a-*")])
        running.answer("DELETE", "/api/tokens/1", None, status=204)
        created = {"id": "9", "label": "new", "token": "raw-secret"}
        running.answer("POST", "/api/tokens", created, status=201)
        yield running


@pytest.fixture
def environ(server: ControlServer, tmp_path: Path) -> dict[str, str]:
    return {
        "MOLEPORT_SERVER": server.url,
        "MOLEPORT_TOKEN": "secret",
        "MOLEPORT_CONFIG_DIR": str(tmp_path),
    }


def test_a_new_secret_is_alone_on_standard_output(environ: dict[str, str]) -> None:
    result = run("token", "create", "new", **environ)

    assert result.stdout == "raw-secret\n"
    assert "only now" in result.stderr


def test_a_new_token_as_json_has_everything(server: ControlServer, environ: dict[str, str]) -> None:
    created = printed_json(run("token", "create", "new", "--scope", "shop-*", "--json", **environ))

    assert created == {"id": "9", "label": "new", "token": "raw-secret"}
    assert server.seen[-1].body == b'{"label":"new","scope":"shop-*"}'


def test_tokens_are_listed(environ: dict[str, str]) -> None:
    assert "a-*" in run("token", "list", **environ).stdout
    assert len(printed_json(run("token", "list", "--json", **environ))) == 3


@pytest.mark.parametrize("which", ["1", "ci"], ids=["id", "label"])
def test_a_token_is_deleted_by_id_or_label(
    server: ControlServer, environ: dict[str, str], which: str
) -> None:
    result = run("token", "delete", which, "--yes", "--json", **environ)

    assert printed_json(result) == {"id": "1", "deleted": True}
    assert (server.seen[-1].method, server.seen[-1].path) == ("DELETE", "/api/tokens/1")


def test_a_token_is_not_deleted_without_consent(
    server: ControlServer, environ: dict[str, str]
) -> None:
    result = run("token", "delete", "1", text="n\n", **environ)

    assert result.exit_code == 1
    assert all(seen.method != "DELETE" for seen in server.seen)


@pytest.mark.parametrize(("which", "code"), [("x", 2), ("none", 5)], ids=["ambiguous", "unknown"])
def test_what_is_not_one_token_is_not_deleted(
    server: ControlServer, environ: dict[str, str], which: str, code: int
) -> None:
    assert run("token", "delete", which, "--yes", **environ).exit_code == code
    assert all(seen.method != "DELETE" for seen in server.seen)
