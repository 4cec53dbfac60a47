from pathlib import Path
from typing import Any

import pytest

from moleport_agent.cli.options import ConnectionFlags
from moleport_agent.config import Layer


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLEPORT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("MOLEPORT_SERVER", "https://environment")
    monkeypatch.setenv("MOLEPORT_TOKEN", "environment")
    monkeypatch.delenv("MOLEPORT_CA_FILE", raising=False)
    monkeypatch.delenv("MOLEPORT_TOKEN_FILE", raising=False)
    monkeypatch.delenv("MOLEPORT_SECRET_DIR", raising=False)


def flags(**fields: Any) -> ConnectionFlags:
    nothing = {"server": None, "token_file": None, "ca_file": None, "secret_dir": None}
    return ConnectionFlags(**{"insecure": False, **nothing, **fields})


def test_flags_are_stronger_than_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("file")

    settings = flags(server="https://flag", token_file=tmp_path / "token").resolve().settings

    assert (settings.url, settings.read_token()) == ("https://flag", "file")


def test_a_secret_directory_is_stronger_than_the_environment_and_weaker_than_flags(
    tmp_path: Path,
) -> None:
    (tmp_path / "token").write_text("mounted")
    (tmp_path / "uri").write_text("https://mounted")

    mounted = flags(secret_dir=tmp_path).resolve().settings
    mixed = flags(secret_dir=tmp_path, server="https://flag").resolve().settings

    assert (mounted.url, mounted.read_token()) == ("https://mounted", "mounted")
    assert (mixed.url, mixed.read_token()) == ("https://flag", "mounted")


def test_moleport_yaml_is_weaker_than_the_environment() -> None:
    layer = Layer(source="moleport.yaml", server="https://file", token_file=Path("/none"))

    settings = flags().resolve(file_layer=layer).settings

    assert (settings.url, settings.read_token()) == ("https://environment", "environment")


def test_warnings_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    flags(insecure=True).resolve_loudly()

    assert capsys.readouterr().err.startswith("warning: the certificate of https://environment")
