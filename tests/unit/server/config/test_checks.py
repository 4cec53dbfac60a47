"""Settings that contradict each other."""

from pathlib import Path
from typing import Any

import pytest

from moleport_server.config.checks import endpoints
from moleport_server.config.load import load
from moleport_server.config.settings import ListenSettings
from moleport_server.errors import ConfigError

FILES = {"token": "t0ken\n", "empty": " \n", "two": "a b\n"}


def read_file(path: Path) -> str:
    if path.name == "binary":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    try:
        return FILES[path.name]
    except KeyError:
        raise FileNotFoundError(2, "No such file or directory") from None


def load_flags(**flags: Any) -> Any:
    given = {name.replace("__", "."): value for name, value in flags.items()}
    return load(
        {"auth.admin_token_file": "token", "listen.control_tls": "false"} | given, {}, read_file
    )


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"listen__api": ":4040"}, "listen.api: 0.0.0.0:4040 is also listen.control"),
        ({"listen__tcp_ports": "9000-9100"}, "listen.metrics: port 9090 is in listen.tcp_ports"),
        ({"tls__certificate_file": "c"}, "tls.key_file: missing, tls.certificate_file needs it"),
        ({"tls__key_file": "k"}, "tls.certificate_file: missing, tls.key_file needs it"),
        ({"tls__control_key_file": "k"}, "tls.control_certificate_file: missing"),
        (
            {"tls__authority_dir": "d", "tls__certificates": "c:k"},
            "tls.authority_dir: excludes tls.certificate_file",
        ),
        ({"listen__edge_https": ":8443"}, "listen.edge_https: needs tls.certificate_file"),
        ({"listen__control_tls": "true"}, "listen.control_tls: needs tls.certificate_file"),
        ({"listen__api_tls": "true"}, "listen.api_tls: needs tls.certificate_file"),
        ({"auth__admin_token_file": "empty"}, "auth.admin_token_file: empty is empty"),
        ({"auth__admin_token_file": "two"}, "auth.admin_token_file: two has to hold one word"),
        ({"auth__admin_token_file": "binary"}, "auth.admin_token_file: binary is not text"),
        (
            {"auth__admin_token_file": "gone"},
            "auth.admin_token_file: gone cannot be read: No such file or directory",
        ),
        ({"auth__admin_token_file": ""}, "auth.admin_token_file: missing"),
        ({"flow__session_window_bytes": "300000", "flow__stream_window_bytes": "400000"}, "larger"),
        ({"flow__receive_budget_bytes": "2000000"}, "flow.session_window_bytes: larger"),
        (
            {"limits__connections_before_auth": "10"},
            "limits.connections_per_address_before_auth: larger",
        ),
        ({"capture__tunnel_bytes": "1000"}, "capture.body_bytes: larger"),
        ({"capture__budget_bytes": "100000"}, "capture.tunnel_bytes: larger"),
        ({"listen__edge_http_mode": "redirect"}, "listen.edge_http_mode: redirect needs"),
        ({"proxy__proxy_protocol": "tcp"}, "proxy.proxy_protocol: needs proxy.trusted"),
        (
            {"public__control_url": "https://a", "listen__control": "off"},
            "public.control_url: neither listen.control nor listen.edge_https is on",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_contradiction_names_the_key_to_change(flags: Any, problem: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_flags(**flags)

    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_two_admin_tokens_are_refused() -> None:
    environ = {"MOLEPORT__AUTH__ADMIN_TOKEN": "x"}
    flags = {"auth.admin_token_file": "token", "listen.control_tls": "false"}

    with pytest.raises(ConfigError, match=r"excludes auth\.admin_token_file, set one of them"):
        load(flags, environ, read_file)


def test_the_same_port_on_other_addresses_is_fine() -> None:
    settings = load_flags(listen__api="127.0.0.2:4040", listen__control="127.0.0.1:4040")

    assert endpoints(settings.listen).keys() == {"edge_http", "control", "api", "metrics"}


def test_a_port_of_the_tcp_range_is_fine_on_another_address() -> None:
    settings = load_flags(
        listen__tcp_host="127.0.0.2", listen__tcp_ports="4041-4050", listen__api="127.0.0.1:4041"
    )

    assert settings.listen.api is not None


def test_listeners_that_are_off_are_not_listed() -> None:
    assert "api" not in endpoints(ListenSettings(api=None))
