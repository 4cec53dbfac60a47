"""Where settings come from, and how mistakes are told."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.config.load import MAX_FILE_CHARACTERS, load, resolve
from moleport_server.config.values import Endpoint
from moleport_server.errors import ConfigError

TOKEN = {"MOLEPORT__AUTH__ADMIN_TOKEN": "t0ken", "MOLEPORT__LISTEN__CONTROL_TLS": "false"}
FILE = Path("server.toml")


def reader(**files: Any) -> Any:
    def read(path: Any) -> Any:
        try:
            return files[path.stem]
        except KeyError:
            raise FileNotFoundError(2, "No such file or directory") from None

    return read


def problems_of(
    flags: Any = None,
    environ: Any = None,
    *,
    toml: str | None = None,
    files: dict[str, str] | None = None,
    presets: Any = None,
) -> list[str]:
    read = reader(**(files or {}), **({} if toml is None else {"server": toml}))
    config_file = None if toml is None else FILE
    environ = TOKEN if environ is None else environ
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ, read, config_file=config_file, presets=presets)
    return caught.value.problems


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "presets", "expected", "source"),
    [
        pytest.param({}, {}, "", {}, "info", None, id="default"),
        pytest.param({}, {}, "", {"log.level": "debug"}, "debug", "this command", id="preset"),
        pytest.param(
            {},
            {},
            "[log]\nlevel='error'",
            {"log.level": "debug"},
            "error",
            "file server.toml",
            id="file",
        ),
        pytest.param(
            {},
            {"MOLEPORT__LOG__LEVEL": "warning"},
            "[log]\nlevel='error'",
            {},
            "warning",
            "environment variable MOLEPORT__LOG__LEVEL",
            id="environment",
        ),
        pytest.param(
            {"log.level": "debug"},
            {"MOLEPORT__LOG__LEVEL": "warning"},
            "[log]\nlevel='error'",
            {},
            "debug",
            "flag --set log.level",
            id="flag",
        ),
    ],
)
def test_the_nearest_source_wins(
    flags: Any, environ: Any, toml: Any, presets: Any, expected: Any, source: Any
) -> None:
    resolved = resolve(
        flags, TOKEN | environ, reader(server=toml), config_file=FILE, presets=presets
    )

    assert resolved.settings.log.level == expected
    assert resolved.sources.get("log.level") == source


def test_the_file_can_be_named_by_a_variable() -> None:
    environ = TOKEN | {"MOLEPORT__CONFIG": "server.toml"}

    settings = load({}, environ, reader(server="[server]\ndomains=['a.example']"))

    assert settings.server.domains == ("a.example",)


def test_all_problems_are_reported_at_once_with_key_and_source() -> None:
    problems = problems_of(
        {"limits.hed_bytes": "1", "log.format": "xml"},
        {
            "MOLEPORT__LOG__LEVLE": "x",
            "MOLEPORT__LIMITS__SESSIONS": "many",
            "MOLEPORT__AUTH__ADMIN_TOKEN": "t",
        },
        toml="[hold]\ntotal=-1\n[nonsense]\na=1\n[capture]\nenable=true\n",
    )

    assert problems == [
        "hold.total: expected whole number at least 0 and at most 10000000, from file server.toml",
        "nonsense: unknown section, from file server.toml",
        "capture.enable: unknown setting, from file server.toml, did you mean capture.enabled?",
        (
            "limits.sessions: expected whole number at least 1 and at most 10000000, "
            "from environment variable MOLEPORT__LIMITS__SESSIONS"
        ),
        "MOLEPORT__LOG__LEVLE: unknown environment variable, did you mean MOLEPORT__LOG__LEVEL?",
        (
            "limits.hed_bytes: unknown setting, from flag --set limits.hed_bytes, "
            "did you mean limits.head_bytes?"
        ),
        "log.format: expected `text` | `json`, from flag --set log.format",
        (
            "listen.control_tls: needs tls.certificate_file or tls.control_certificate_file; "
            "set it to false only behind an ingress that ends TLS"
        ),
    ]


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({"MOLEPORT_TOKEN": "x", "MOLEPORT_SERVER": "https://a"}, id="agent"),
        pytest.param({"MOLEPORT_PORT": "tcp://10.0.0.1:80"}, id="kubernetes-service"),
        pytest.param({"MOLEPORT_PUBLIC_HTTP_PORT": "tcp://10.0.0.1:80"}, id="unlucky-service"),
        pytest.param({"PATH": "/bin", "LOG_LEVEL": "x"}, id="foreign"),
    ],
)
def test_variables_of_others_are_left_alone(environ: Any) -> None:
    assert load({}, TOKEN | environ, reader()) == load({}, TOKEN, reader())


def test_a_variable_with_single_underscores_is_a_mistake() -> None:
    assert problems_of(environ=TOKEN | {"MOLEPORT_LOG_LEVEL": "debug"}) == [
        "MOLEPORT_LOG_LEVEL: unknown environment variable, did you mean MOLEPORT__LOG__LEVEL?"
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param({}, "config: file server.toml cannot be read: No such file", id="missing"),
        pytest.param({"server": "a = ["}, "config: file server.toml is not TOML", id="syntax"),
        pytest.param({"server": "log = 5"}, "log: unknown section", id="not-a-table"),
        pytest.param(
            {"server": "#" * (MAX_FILE_CHARACTERS + 1)}, "too large for a settings file", id="huge"
        ),
    ],
)
def test_an_unusable_file_is_one_problem(files: Any, message: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, TOKEN, reader(**files), config_file=FILE)

    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]


def test_a_secret_is_never_repeated_and_never_a_flag() -> None:
    problems = problems_of({"auth.admin_token": "hunter2"}, {"MOLEPORT__LISTEN__CONTROL": "off"})

    assert len(problems) == 1
    assert problems[0].startswith("auth.admin_token: not as a flag")
    assert "hunter2" not in problems[0]


def test_a_wrong_secret_is_not_repeated() -> None:
    environ = TOKEN | {"MOLEPORT__AUTH__ADMIN_TOKEN": "hunter2 hunter3"}

    problems = problems_of(environ=environ)

    assert len(problems) == 1
    assert "hunter" not in problems[0]


def test_the_https_edge_is_off_until_there_is_a_certificate() -> None:
    resolved = resolve({}, TOKEN, reader())

    assert resolved.settings.listen.edge_https is None
    assert resolved.sources["listen.edge_https"] == "the absence of a certificate"
    flags = {"tls.certificate_file": "c", "tls.key_file": "k"}
    settings = load(flags, TOKEN, reader())
    assert settings.listen.edge_https == Endpoint("0.0.0.0", 8443)


def test_a_value_replaced_by_a_nearer_source_is_still_checked() -> None:
    problems = problems_of({"log.level": "debug"}, TOKEN, toml="[log]\nlevel='loud'")

    assert problems == [
        "log.level: expected `debug` | `info` | `warning` | `error`, from file server.toml"
    ]


@given(
    st.dictionaries(st.text(max_size=30), st.text(max_size=30), max_size=5),
    st.text(max_size=200),
)
def test_garbage_ends_in_settings_or_in_a_config_error(flags: Any, toml: Any) -> None:
    problems = ["none: so far"]
    try:
        load(flags, TOKEN, reader(server=toml), config_file=FILE)
    except ConfigError as error:
        problems = error.problems

    assert problems
    assert all(": " in problem for problem in problems)
