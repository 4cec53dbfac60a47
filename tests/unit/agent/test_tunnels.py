from pathlib import Path
from typing import Any

import pytest

from moleport_agent.settings import TunnelSettings
from moleport_agent.tunnels import LONGEST_CREDENTIALS_FILE, Problem, TunnelEntry, make_tunnel


def make(directory: Path, **fields: Any) -> tuple[TunnelSettings | None, list[Problem]]:
    problems: list[Problem] = []
    written: dict[str, Any] = {"protocol": "http", "target": 3000} | fields
    return make_tunnel("web", TunnelEntry(**written), directory, problems), problems


def made(directory: Path, **fields: Any) -> TunnelSettings:
    tunnel, problems = make(directory, **fields)
    assert tunnel is not None, problems
    return tunnel


def test_everything_an_http_tunnel_may_ask_for_arrives(tmp_path: Path) -> None:
    tunnel = made(
        tmp_path,
        name="Shop",
        host_header="localhost:3000",
        basic_auth=["ann:secret", "bob:a:b"],
        allow_cidr=["10.0.0.0/8", "2001:db8::1"],
    )

    assert (tunnel.subdomain, tunnel.host_header) == ("shop", "localhost:3000")
    assert tunnel.basic_auth == (("ann", "secret"), ("bob", "a:b"))
    assert tunnel.allow_cidrs == ("10.0.0.0/8", "2001:db8::1/128")


def test_everything_a_tcp_tunnel_may_ask_for_arrives(tmp_path: Path) -> None:
    tunnel = made(tmp_path, protocol="tcp", port=20005, proxy_protocol="v2")

    assert (tunnel.protocol, tunnel.port, tunnel.proxy_protocol) == ("tcp", 20005, "v2")


def test_an_absent_rule_is_open_and_an_empty_one_is_closed(tmp_path: Path) -> None:
    open_tunnel = made(tmp_path)
    closed_tunnel = made(tmp_path, allow_cidr=[], basic_auth=[])

    assert (open_tunnel.allow_cidrs, open_tunnel.basic_auth) == (None, None)
    assert (closed_tunnel.allow_cidrs, closed_tunnel.basic_auth) == ((), ())


WRONG = {
    "dots in a name": ({"name": "a.b"}, "name", "write a full host name as hostname"),
    "underscore in a name": ({"name": "a_b"}, "name", "letters, digits"),
    "empty name": ({"name": ""}, "name", "letters, digits"),
    "bad hostname": ({"hostname": "a..b"}, "hostname", "full host name"),
    "name and hostname": ({"name": "a", "hostname": "a.example"}, "hostname", "excludes name"),
    "header injection": ({"host_header": "a\r\nb: c"}, "host_header", "preserve, rewrite"),
    "port with http": ({"port": 20000}, "port", "protocol tcp only"),
    "name with tcp": ({"protocol": "tcp", "name": "a"}, "name", "protocol http only"),
    "port too large": ({"protocol": "tcp", "port": 70000}, "port", "1 to 65535"),
    "target": ({"target": "nonsense"}, "target", "has no port"),
    "missing ca": (
        {"target": "https://a", "upstream_ca": "none.pem"},
        "upstream_ca",
        "does not exist",
    ),
    "host bits": ({"allow_cidr": "10.1.2.3/8"}, "allow_cidr", "write 10.0.0.0/8"),
    "no network": ({"allow_cidr": ["all"]}, "allow_cidr", "is no network"),
    "no password": ({"basic_auth": ["ann"]}, "basic_auth", "user:password"),
    "control character": ({"basic_auth": ["ann:\x00"]}, "basic_auth", "control character"),
    "user twice": ({"basic_auth": ["ann:a", "ann:b"]}, "basic_auth", "second time"),
    "no auth file": ({"basic_auth_file": "none"}, "basic_auth_file", "cannot read"),
}


@pytest.mark.parametrize(("fields", "field", "complaint"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_with_its_field(
    tmp_path: Path, fields: dict[str, Any], field: str, complaint: str
) -> None:
    tunnel, problems = make(tmp_path, **fields)

    assert tunnel is None
    assert [name for name, _ in problems] == [field]
    assert complaint in problems[0][1]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    _, problems = make(tmp_path, name="a.b", target="x", allow_cidr="y", port=1)

    assert {name for name, _ in problems} == {"name", "target", "allow_cidr", "port"}


def test_a_password_never_shows_in_a_problem_or_repr(tmp_path: Path) -> None:
    tunnel = made(tmp_path, basic_auth=["ann:hunter2"])
    _, problems = make(tmp_path, basic_auth=[":hunter2", "hunter2", "ann:hunter2\x07"])

    assert "hunter2" not in repr(tunnel)
    assert len(problems) == 3
    assert "hunter2" not in str(problems)


def test_users_come_from_a_file_without_comments_and_blank_lines(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("# shop\nann:secret\n\nbob:pass word\n")

    tunnel = made(tmp_path, basic_auth_file="users")

    assert tunnel.basic_auth == (("ann", "secret"), ("bob", "pass word"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"# nobody\n", "no line user:password"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x" * (LONGEST_CREDENTIALS_FILE + 1), "too large"),
    ],
    ids=["empty", "binary", "huge"],
)
def test_a_file_that_is_no_list_of_users_is_refused(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    (tmp_path / "users").write_bytes(content)

    tunnel, problems = make(tmp_path, basic_auth_file="users")

    assert tunnel is None
    assert complaint in problems[0][1]
