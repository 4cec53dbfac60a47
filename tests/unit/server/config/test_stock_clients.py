import pytest

from moleport_server.config.load import load
from moleport_server.errors import ConfigError

ENVIRON = {"MOLEPORT__AUTH__ADMIN_TOKEN": "secret"}
FLAGS = {
    "listen.edge_https": "off",
    "listen.control_tls": "false",
}


def read_nothing(path: object) -> str:
    raise FileNotFoundError(path)


def test_container_ports_are_off_until_somebody_wants_them() -> None:
    hoody = load(FLAGS, ENVIRON, read_nothing).hoody

    assert (hoody.expose, hoody.pull) == (False, False)
    assert (hoody.privileged_expose, hoody.privileged_pull) == (False, False)
    assert hoody.trusted == ()


@pytest.mark.parametrize("pattern", ["port", "port-{number}", "{port}.shop", "-{port}", "{port}_"])
def test_a_pattern_has_to_make_a_name_for_each_port(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"hoody\.hostname"):
        load({**FLAGS, "hoody.hostname": pattern}, ENVIRON, read_nothing)


@pytest.mark.parametrize("pattern", ["", "port-{port}", "{port}-box"])
def test_a_pattern_may_be_any_label_or_nothing(pattern: str) -> None:
    assert (
        load({**FLAGS, "hoody.hostname": pattern}, ENVIRON, read_nothing).hoody.hostname == pattern
    )
