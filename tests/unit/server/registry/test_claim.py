"""What an agent asks for."""

from ipaddress import ip_network

import pytest

from moleport_server.domain.tunnel import OPEN, TunnelProtocol
from moleport_server.errors import InvalidRequest
from moleport_server.registry.claim import Claim
from moleport_wire.passwords import hash_password

HASH = str(hash_password("secret", b"0123456789abcdef"))


def test_a_claim_without_rules_lets_everybody_in() -> None:
    assert Claim(protocol=TunnelProtocol.HTTP).rules is OPEN


def test_a_claim_asks_for_passwords_and_networks() -> None:
    rules = Claim(
        protocol=TunnelProtocol.HTTP,
        basic_auth=(("ann", HASH),),
        allowed_cidrs=("192.0.2.0/24",),
    ).rules

    assert rules.basic_auth is not None
    assert [(one.user, one.password_hash) for one in rules.basic_auth] == [("ann", HASH)]
    assert rules.allowed_cidrs == (ip_network("192.0.2.0/24"),)


def test_an_empty_list_of_networks_lets_nobody_in() -> None:
    assert Claim(protocol=TunnelProtocol.TCP, allowed_cidrs=()).rules.allowed_cidrs == ()


@pytest.mark.parametrize(
    "claim",
    [
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, allowed_cidrs=("192.0.2.0/99",)), id="network"
        ),
        pytest.param(
            Claim(protocol=TunnelProtocol.HTTP, basic_auth=(("ann", "plain"),)), id="password"
        ),
    ],
)
def test_rules_that_make_no_sense_are_refused(claim: Claim) -> None:
    with pytest.raises(InvalidRequest):
        _ = claim.rules
