from ipaddress import ip_network

import pytest

from moleport_server.api.grants import (
    OwnerObject,
    PortRange,
    TokenAccess,
    TokenLimits,
    parse_id,
    show_effective,
)
from moleport_server.api.problems import UnprocessableBody
from moleport_server.domain.policy import AUTH_CONFLICT
from moleport_server.domain.token import Effective, Grant, Limits, Owner
from moleport_server.domain.tunnel import BasicCredential, TunnelProtocol
from moleport_server.errors import InvalidRequest

GRANT = Grant(
    protocols=(TunnelProtocol.TCP,),
    hostnames=("shop", "*.example.org"),
    tcp_ports=((1, 2), (3, 3)),
    container_ports=(),
    agent_cidrs=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
)
LIMITS = Limits(
    max_tunnels=0,
    max_agents=1,
    max_connections=2,
    max_connections_per_tunnel=3,
    requests_per_second=4.5,
    burst=5,
    request_body_bytes=6,
    bandwidth=7,
    idle_seconds=8.5,
)
OWNER = Owner(cluster="c1", namespace="", name="limits", uid="u1")


@pytest.mark.parametrize("grant", [Grant(), GRANT], ids=["unrestricted", "restricted"])
def test_a_shown_grant_is_parsed_to_the_same(grant: Grant) -> None:
    assert TokenAccess.show(grant).parse() == grant


@pytest.mark.parametrize("limits", [Limits(), LIMITS], ids=["unlimited", "limited"])
def test_shown_limits_are_parsed_to_the_same(limits: Limits) -> None:
    assert TokenLimits.show(limits).parse() == limits


def test_a_shown_owner_is_parsed_to_the_same() -> None:
    shown = OwnerObject.show(OWNER)

    assert shown is not None
    assert shown.parse() == OWNER
    assert OwnerObject.show(None) is None


def test_wishes_have_one_spelling_and_each_entry_once() -> None:
    wish = TokenAccess(
        protocols=[TunnelProtocol.HTTP, TunnelProtocol.HTTP],
        hostnames=["Shop ", "shop."],
        tcp_ports=[PortRange(start=7)],
        agent_cidrs=["10.0.0.0/8", "10.0.0.0/255.0.0.0"],
    )

    assert wish.parse() == Grant(
        protocols=(TunnelProtocol.HTTP,),
        hostnames=("shop",),
        tcp_ports=((7, 7),),
        agent_cidrs=(ip_network("10.0.0.0/8"),),
    )


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (TokenAccess(hostnames=["a b"]), "hostnames: scope pattern 'a b'"),
        (TokenAccess(tcp_ports=[PortRange(start=2, end=1)]), "tcp_ports: the range 2-1"),
        (TokenAccess(container_ports=[PortRange(start=2, end=1)]), "container_ports: the range"),
        (TokenAccess(agent_cidrs=["10.0.0.1/8"]), "agent_cidrs: .* has host bits set"),
        (TokenLimits(burst=2), r"limits\.burst needs limits\.requests_per_second"),
    ],
    ids=["pattern", "ports", "container ports", "network", "burst"],
)
def test_what_makes_no_sense_is_refused_with_its_place(
    wish: TokenAccess | TokenLimits, says: str
) -> None:
    with pytest.raises(UnprocessableBody, match=says):
        wish.parse()


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("6F8A9E0A-9F1C-4F43-8D80-0A4B4D4C0001", "6f8a9e0a-9f1c-4f43-8d80-0a4b4d4c0001"),
        ("x", None),
        ("", None),
    ],
)
def test_ids_are_uuids_in_one_spelling(text: str, parsed: str | None) -> None:
    if parsed is not None:
        assert parse_id(text) == parsed
    else:
        with pytest.raises(InvalidRequest, match="is no UUID"):
            parse_id(text)


def test_the_view_of_what_holds_names_users_and_no_hashes() -> None:
    effective = Effective(
        grant=GRANT,
        limits=LIMITS,
        basic_auth=(BasicCredential(user="ann", password_hash="$2b$secret"),),
        http_denied=AUTH_CONFLICT,
    )

    view = show_effective(effective, ("tunnels.example.com",))

    assert view.http.users == ["ann"]
    assert view.http.denied == AUTH_CONFLICT
    assert view.access.hostnames == ["shop", "*.example.org"]
    assert view.access.denied_client_cidrs == []
    assert "secret" not in repr(view)
