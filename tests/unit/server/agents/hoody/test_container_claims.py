from typing import Any

import pytest

from moleport_server.agents.hoody.container_claims import container_claim
from moleport_server.agents.hoody.refusals import InvalidHost, InvalidKind
from moleport_server.domain.tunnel import ContainerMode, TunnelProtocol
from moleport_server.registry.container_ports import Contest
from moleport_wire.hoody.messages import Bind


def bind(**members: Any) -> Bind:
    values: dict[str, Any] = {"kind": "http", "container_port": 3000}
    return Bind(client_bind_ref=1, **(values | members))


def test_an_expose_asks_for_http_a_port_and_a_name() -> None:
    claim = container_claim(bind(label="shop"), Contest.REFUSE)

    assert claim.protocol is TunnelProtocol.HTTP
    assert claim.container is not None
    assert (claim.container.mode, claim.container.port) == (ContainerMode.EXPOSE, 3000)
    assert (claim.container.name, claim.container.contest) == ("shop", Contest.REFUSE)


@pytest.mark.parametrize("host", [None, "127.0.0.1", "::1"])
def test_a_pull_asks_for_tcp_on_loopback(host: str | None) -> None:
    claim = container_claim(bind(kind="tcp", mode="pull", host=host, label="db"), Contest.RETURN)

    assert claim.protocol is TunnelProtocol.TCP
    assert claim.container is not None
    assert claim.container.loopback == (host or "127.0.0.1")
    assert (claim.container.name, claim.container.contest) == (None, Contest.RETURN)


def test_a_takeover_is_stronger_than_what_holds_otherwise() -> None:
    claim = container_claim(bind(takeover=True), Contest.REFUSE)

    assert claim.container is not None
    assert claim.container.contest is Contest.TAKE


@pytest.mark.parametrize(
    "members",
    [
        {"kind": "tcp"},
        {"mode": "pull"},
        {"kind": "udp"},
        {"mode": "push"},
        {"kind": "tcp", "mode": "pull", "takeover": True},
    ],
    ids=str,
)
def test_other_kinds_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidKind):
        container_claim(bind(**members), Contest.REFUSE)


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost", "10.0.0.1", "::"])
def test_a_pull_elsewhere_is_refused(host: str) -> None:
    with pytest.raises(InvalidHost):
        container_claim(bind(kind="tcp", mode="pull", host=host), Contest.REFUSE)
