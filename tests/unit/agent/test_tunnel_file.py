import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from moleport_agent.errors import ConfigError
from moleport_agent.tunnel_file import LONGEST_FILE_BYTES, read_tunnel_file


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "moleport.yaml"
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


def problems_of(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        read_tunnel_file(path)
    return [problem.removeprefix(f"{path}: ") for problem in refusal.value.problems]


def test_a_whole_file_is_read(write: Callable[[str], Path], tmp_path: Path) -> None:
    path = write("""
        server: https://tunnels.example.com:4040
        token_file: token
        ca_file: /etc/ca.pem
        connections: 2
        tunnels:
          web: {protocol: http, target: 3000, name: shop, host_header: rewrite}
          db: {protocol: tcp, target: "localhost:5432", port: 20005, proxy_protocol: v2}
        """)

    file = read_tunnel_file(path)

    assert file.server == "https://tunnels.example.com:4040"
    assert file.token_file == tmp_path / "token"
    assert str(file.ca_file) == "/etc/ca.pem"
    assert file.connections == 2
    assert [(tunnel.name, tunnel.target.port) for tunnel in file.tunnels] == [
        ("web", 3000),
        ("db", 5432),
    ]


def test_every_problem_is_told_at_once_with_its_path(write: Callable[[str], Path]) -> None:
    path = write("""
        sever: x
        connections: 99
        tunnels:
          web: {protocol: http, target: 3000, nmae: shop, allow_cidr: [10.0.0.1/8]}
          db: {protocol: udp, target: 1}
          api: {protocol: http}
          other: 5
          last: {protocol: http, target: x, name: a.b}
        """)

    problems = problems_of(path)

    assert [problem.partition(": ")[0] for problem in problems] == [
        "sever",
        "connections",
        "tunnels.web.nmae",
        "tunnels.web.allow_cidr",
        "tunnels.db.protocol",
        "tunnels.api.target",
        "tunnels.other",
        "tunnels.last.name",
        "tunnels.last.target",
    ]
    assert "did you mean server?" in problems[0]
    assert "did you mean name?" in problems[2]


def test_a_value_of_the_wrong_type_hides_nothing_else_of_its_tunnel(
    write: Callable[[str], Path],
) -> None:
    path = write("""
        connections: many
        tunnels:
          web: {protocol: udp, target: 99999, basic_auth: 5}
          db: {protocol: tcp, target: 1, port: x, host_header: rewrite}
          api: {target: 1, proxy_protocol: v3, upstream_insecure: 1, name: a b, port: 0}
          app: {protocol: http, target: 1, host_header: ""}
        """)

    assert problems_of(path) == [
        "connections: must be a whole number",
        "tunnels.web.protocol: must be http or tcp",
        "tunnels.web.basic_auth: must be text or a list of texts",
        "tunnels.web.target: target '99999' has a wrong port; it must be a number from 1 to 65535",
        "tunnels.db.port: must be a whole number",
        "tunnels.db.host_header: works with protocol http only; leave it out",
        "tunnels.api.proxy_protocol: must be v1 or v2",
        "tunnels.api.upstream_insecure: must be true or false",
        "tunnels.api.protocol: is missing",
        "tunnels.api.name: may have letters, digits and inner hyphens only, at most 63 of them",
        "tunnels.api.port: must be a number from 1 to 65535",
        "tunnels.app.host_header: must be preserve, rewrite or a host name",
    ]


UNREADABLE = {
    "no yaml": ("tunnels: [", "is no valid YAML: line "),
    "a list": ("- 1", "must have the key tunnels"),
    "empty": ("", "must have the key tunnels"),
    "no tunnels": ("server: https://a", "tunnels: names no tunnel"),
    "a key twice": (
        "tunnels:\n  web: {protocol: http, target: 1}\n  web: {protocol: http, target: 2}",
        "is no valid YAML: line 3, column 3: the key web is there twice",
    ),
    "an object tag": ("tunnels: !!python/object/apply:os.getcwd []", "is no valid YAML"),
    "nested without end": ("[" * 1500, "is nested too deeply"),
    "too long": ("#" * (LONGEST_FILE_BYTES + 1), "is larger than"),
    "an unhashable key": ("{[a]: 1}: 2", "is no valid YAML"),
}


@pytest.mark.parametrize(("text", "complaint"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_file_that_makes_no_sense_is_refused_with_the_place(
    write: Callable[[str], Path], text: str, complaint: str
) -> None:
    (problem,) = problems_of(write(text))

    assert problem.startswith(complaint)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read it: No such file"):
        read_tunnel_file(tmp_path / "none.yaml")


def test_two_tunnels_may_not_want_one_address(write: Callable[[str], Path]) -> None:
    path = write("""
        tunnels:
          a: {protocol: tcp, target: 1, port: 20000}
          b: {protocol: tcp, target: 2, port: 20000}
        """)

    assert problems_of(path) == ["tunnels.b.port: 20000 is already that of tunnel a"]


def test_a_key_in_the_wrong_place_is_not_guessed(write: Callable[[str], Path]) -> None:
    path = write("tunnels: {web: {protocol: http, target: 1, zzz: 1}}")

    (problem,) = problems_of(path)

    assert problem.startswith("tunnels.web.zzz: is not known; the keys are protocol, target")
