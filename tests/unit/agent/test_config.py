import json
import os
from pathlib import Path

import pytest

from moleport_agent.config import (
    LONGEST_TOKEN_BYTES,
    Layer,
    Profile,
    check_token,
    config_directory,
    environment_layers,
    is_readable_by_others,
    parse_server,
    profile_layers,
    read_token_file,
    resolve,
    secret_directory_layer,
    write_profile,
)
from moleport_agent.errors import ConfigError
from moleport_agent.settings import Secret

FLAGS = Layer(source="flags", server="https://flags", token=Secret("flag-token"))
ENVIRONMENT = Layer(source="environment", server="https://env", token=Secret("env-token"))
FILE = Layer(source="file", server="https://file", token_file=Path("/none/file-token"))
PROFILE = Layer(
    source="profile", server="https://profile", token=Secret("kept"), is_bound_to_server=True
)
NOTHING = Layer(source="nothing")

PRECEDENCE = {
    "flags win": ([FLAGS, ENVIRONMENT, FILE, PROFILE], "https://flags", "flags"),
    "then the environment": ([NOTHING, ENVIRONMENT, FILE, PROFILE], "https://env", "environment"),
    "then the file": ([NOTHING, NOTHING, FILE, PROFILE], "https://file", "file"),
    "then the profile": ([NOTHING, NOTHING, NOTHING, PROFILE], "https://profile", "profile"),
    "each value by itself": (
        [Layer(source="flags", server="https://flags"), ENVIRONMENT],
        "https://flags",
        "environment",
    ),
}


@pytest.mark.parametrize(("layers", "url", "holder"), PRECEDENCE.values(), ids=PRECEDENCE)
def test_the_first_source_that_says_something_wins(
    layers: list[Layer], url: str, holder: str
) -> None:
    resolved = resolve(layers)

    assert (resolved.settings.url, resolved.token_source) == (url, holder)


def test_the_profiles_token_is_never_used_for_another_server() -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve([Layer(source="flags", server="https://stranger"), PROFILE])

    assert "no token for https://stranger" in str(refusal.value)
    assert "kept" not in str(refusal.value)


def test_the_profiles_trust_is_never_used_for_another_server() -> None:
    careless = Layer(
        source="profile", server="https://profile", insecure=True, is_bound_to_server=True
    )

    resolved = resolve([FLAGS, careless])

    assert not resolved.settings.insecure


def test_the_profile_serves_its_server_however_it_is_written() -> None:
    resolved = resolve([Layer(source="flags", server="https://PROFILE/"), PROFILE])

    assert resolved.settings.read_token() == "kept"


def test_an_explicit_ca_undoes_a_weaker_insecure(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    trusting = Layer(source="environment", ca_file=tmp_path / "ca.pem")
    careless = Layer(source="file", insecure=True)

    resolved = resolve([FLAGS, trusting, careless])

    assert (resolved.settings.insecure, resolved.settings.ca_file) == (False, tmp_path / "ca.pem")


def test_everything_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve([Layer(source="flags", ca_file=Path("/none/ca.pem"))])

    assert [problem.split(":")[0] for problem in refusal.value.problems] == [
        "no server",
        "no token",
        "CA file /none/ca.pem",
    ]


WARNINGS = {
    "verified": (Layer(source="flags", server="https://a", token=Secret("t")), ""),
    "insecure": (
        Layer(source="flags", server="https://a", token=Secret("t"), insecure=True),
        "NOT verified",
    ),
    "clear text": (Layer(source="flags", server="http://a", token=Secret("t")), "not encrypted"),
    "clear text at home": (
        Layer(source="flags", server="http://127.0.0.1:1", token=Secret("t")),
        "",
    ),
}


@pytest.mark.parametrize(("layer", "expected"), WARNINGS.values(), ids=WARNINGS)
def test_what_is_dangerous_is_said(layer: Layer, expected: str) -> None:
    warnings = resolve([layer]).warnings

    assert expected in " ".join(warnings)
    assert bool(warnings) == bool(expected)


SERVERS = {
    "https://host:4040": "https://host:4040",
    "https://HOST:4040/": "https://host:4040",
    "host:4040": "https://host:4040",
    "host": "https://host",
    "http://[::1]:4041": "http://[::1]:4041",
    " https://host ": "https://host",
}


@pytest.mark.parametrize(("text", "url"), SERVERS.items(), ids=SERVERS)
def test_a_server_is_normalised(text: str, url: str) -> None:
    assert parse_server(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ws://host",
        "https://",
        "https://host:port",
        "https://host/path",
        "https://u:p@host",
        "https://host?x",
        "https://[::1",
        "https://ho\x00st",
    ],
)
def test_a_server_that_is_no_base_url_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="server"):
        parse_server(text)


def test_a_token_file_is_read_anew_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    settings = resolve([Layer(source="flags", server="https://a", token_file=path)]).settings
    first = settings.read_token()

    path.write_text("second")

    assert (first, settings.read_token()) == ("first", "second")


@pytest.mark.parametrize(
    "content",
    [b"", b" \n", b"two words", b"line\nline", b"\xff\xfe", b"x" * (LONGEST_TOKEN_BYTES + 1)],
    ids=["empty", "blank", "words", "lines", "binary", "huge"],
)
def test_a_file_without_a_token_is_an_error_of_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)

    with pytest.raises(OSError, match="the token") as refusal:
        read_token_file(path)

    assert refusal.value.filename == str(path)


def test_a_token_in_the_environment_is_checked_at_once() -> None:
    with pytest.raises(ConfigError, match="spaces"):
        resolve([Layer(source="environment", server="https://a", token=Secret("a b"))])


def test_the_environment_is_read() -> None:
    (layer,) = environment_layers(
        {"MOLEPORT_SERVER": "s", "MOLEPORT_TOKEN_FILE": "/t", "MOLEPORT_CA_FILE": "/c"}
    )

    assert (layer.server, layer.token_file, layer.ca_file) == ("s", Path("/t"), Path("/c"))


def test_two_tokens_in_the_environment_are_an_error() -> None:
    with pytest.raises(ConfigError, match="both set"):
        environment_layers({"MOLEPORT_TOKEN": "a", "MOLEPORT_TOKEN_FILE": "b"})


@pytest.mark.parametrize("name", ["uri", "MOLEPORT_SERVER"])
def test_a_mounted_secret_has_all_that_is_needed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("https://tunnels:4040\n")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.crt").write_text("pem")

    layers = environment_layers({"MOLEPORT_SECRET_DIR": str(tmp_path)})
    resolved = resolve(layers)

    assert resolved.settings.url == "https://tunnels:4040"
    assert resolved.settings.read_token() == "secret"
    assert resolved.settings.ca_file == tmp_path / "ca.crt"


def test_a_directory_without_a_token_is_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file named token"):
        secret_directory_layer(tmp_path)


def test_a_profile_comes_back_as_it_was_written(tmp_path: Path) -> None:
    directory = tmp_path / "new" / "moleport"

    path = write_profile(directory, Profile(server="https://a", token="secret", insecure=True))
    (layer,) = profile_layers(directory)

    assert json.loads(path.read_text()) == {
        "server": "https://a",
        "token": "secret",
        "insecure": True,
    }
    assert (layer.server, layer.token, layer.insecure) == ("https://a", "secret", True)
    assert list(directory.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="Windows has access lists instead of modes")
def test_a_profile_is_for_its_owner_only(tmp_path: Path) -> None:
    path = write_profile(tmp_path, Profile(server="https://a", token="secret"))

    assert path.stat().st_mode & 0o777 == 0o600
    assert not is_readable_by_others(path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has access lists instead of modes")
def test_only_a_file_of_ours_is_ours_to_hide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text("secret")
    path.chmod(0o644)

    assert is_readable_by_others(path)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert not is_readable_by_others(path)


def test_keys_of_other_writers_do_not_disturb(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"server": "https://a", "written_by": "somebody"}')

    assert profile_layers(tmp_path)[0].server == "https://a"


def test_no_profile_says_nothing(tmp_path: Path) -> None:
    assert profile_layers(tmp_path) == []


def test_a_damaged_profile_is_named_and_its_token_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text('{"server": 5, "token": "hunter2"}')

    with pytest.raises(ConfigError, match="damaged") as refusal:
        profile_layers(tmp_path)

    assert "hunter2" not in str(refusal.value)


def test_a_profile_that_cannot_be_written_is_an_error_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot write"):
        write_profile(tmp_path / "file", Profile(server="https://a"))


def test_the_directory_follows_its_variable() -> None:
    assert config_directory({"MOLEPORT_CONFIG_DIR": "/somewhere"}) == Path("/somewhere")
    assert config_directory({}).name == "moleport"


def test_no_repr_shows_a_token() -> None:
    token = check_token("hunter2")
    resolved = resolve([Layer(source="flags", server="https://a", token=token)])

    shown = repr((FLAGS, token, resolved, Profile(server="https://a", token="hunter2")))

    assert "hunter2" not in shown
    assert "flag-token" not in shown
