import logging
import os
from pathlib import Path

import pytest

from moleport_server.access.admin_token import AdminToken
from moleport_server.errors import ConfigError


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first-secret\n")
    return path


def replace(path: Path, content: bytes) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.rename(path)


def test_a_value_is_taken_as_it_is() -> None:
    assert AdminToken("secret").read() == "secret"


def test_a_file_is_read_without_the_newline_and_again_when_it_changes(token_file: Path) -> None:
    token = AdminToken(path=token_file)

    assert token.read() == "first-secret"
    replace(token_file, b"second-secret\n")
    assert token.read() == "second-secret"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"x" * 5000, id="too long"),
    ],
)
def test_a_file_without_a_token_keeps_the_last_one_and_says_so_once(
    token_file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    token = AdminToken(path=token_file)
    replace(token_file, content)

    with caplog.at_level(logging.WARNING):
        assert [token.read() for _ in range(3)] == ["first-secret"] * 3

    assert len(caplog.records) == 1
    assert "secret" not in caplog.text
    replace(token_file, b"second-secret")
    assert token.read() == "second-secret"


def test_a_vanished_file_keeps_the_last_token_and_says_so_once(
    token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = AdminToken(path=token_file)
    token_file.unlink()

    with caplog.at_level(logging.WARNING):
        assert [token.read() for _ in range(3)] == ["first-secret"] * 3

    assert len(caplog.records) == 1
    token_file.write_text("second-secret")
    assert token.read() == "second-secret"


def test_a_change_within_the_same_size_is_seen(token_file: Path) -> None:
    token = AdminToken(path=token_file)
    token_file.write_text("other-secret\n")
    os.utime(token_file, ns=(1, 1))

    assert token.read() == "other-secret"


@pytest.mark.parametrize("value", ["", "  \n", None])
def test_no_token_is_a_configuration_error(value: str | None) -> None:
    with pytest.raises(ConfigError, match="auth"):
        AdminToken(value)


def test_an_unusable_file_at_the_start_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        AdminToken(path=tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="empty"):
        AdminToken(path=tmp_path / "empty")


def test_the_secret_is_not_in_the_representation() -> None:
    assert "secret" not in repr(AdminToken("secret"))
