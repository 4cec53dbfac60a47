import random
from collections.abc import Callable
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.access.authorization import (
    PortOrder,
    authorize_agent,
    choose_hostname,
    choose_port,
)
from moleport_server.domain.scope import matches
from moleport_server.domain.token import ADMIN, Grant, Principal, Token
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import Forbidden, InvalidRequest, NameTaken, PortTaken, ServerError

DOMAINS = ("tunnels.example.com", "example.net")
RESERVED = frozenset({"www", "control", "control.tunnels.example.com"})


def holder(grant: Grant = Grant()) -> Principal:  # noqa: B008 - frozen
    return Principal(token=Token(id="t", label="ci", created_at=0.0, grant=grant), revision=1)


def always(_: object) -> bool:
    return True


def choose(
    principal: Principal,
    *,
    hostname: str | None = None,
    subdomain: str | None = None,
    is_free: Callable[[str], bool] = always,
) -> str:
    return choose_hostname(
        principal,
        hostname=hostname,
        subdomain=subdomain,
        domains=DOMAINS,
        reserved=RESERVED,
        is_free=is_free,
        random_bits=random.Random(1).getrandbits,
    )


@pytest.mark.parametrize(
    ("grant", "wanted", "expected"),
    [
        pytest.param(Grant(), {"subdomain": "Shop"}, "shop.tunnels.example.com", id="label"),
        pytest.param(Grant(), {"hostname": "Shop.Example.net."}, "shop.example.net", id="full"),
        pytest.param(
            Grant(hostnames=("ci-*",)),
            {"subdomain": "ci-7"},
            "ci-7.tunnels.example.com",
            id="glob",
        ),
        pytest.param(
            Grant(hostnames=("app.example.org",)),
            {"hostname": "app.example.org"},
            "app.example.org",
            id="foreign host by name",
        ),
        pytest.param(
            Grant(hostnames=("*.example.org",)),
            {"hostname": "*.example.org"},
            "*.example.org",
            id="wildcard by name",
        ),
        pytest.param(
            Grant(hostnames=("www",)),
            {"subdomain": "www"},
            "www.tunnels.example.com",
            id="reserved name by name",
        ),
        pytest.param(Grant(hostnames=("shop",)), {}, "shop.tunnels.example.com", id="default"),
        pytest.param(
            Grant(hostnames=("shop.example.org",)), {}, "shop.example.org", id="foreign default"
        ),
    ],
)
def test_a_granted_host_name_is_given(grant: Grant, wanted: dict[str, str], expected: str) -> None:
    assert choose(holder(grant), **wanted) == expected  # type: ignore[arg-type]  # keyword table


@pytest.mark.parametrize(
    ("grant", "wanted", "kind", "text"),
    [
        pytest.param(
            Grant(protocols=(TunnelProtocol.TCP,)),
            {"subdomain": "shop"},
            Forbidden,
            "token 'ci' may not use protocol http",
            id="protocol",
        ),
        pytest.param(
            Grant(hostnames=("ci-*",)),
            {"subdomain": "shop"},
            Forbidden,
            "token 'ci' may not bind host name 'shop.tunnels.example.com' (allowed: ci-*)",
            id="outside of the patterns",
        ),
        pytest.param(
            Grant(hostnames=tuple(f"n{number}" for number in range(9))),
            {"subdomain": "shop"},
            Forbidden,
            "token 'ci' may not bind host name 'shop.tunnels.example.com'"
            " (allowed: n0, n1, n2, n3, n4, n5, n6, n7, …)",
            id="many patterns",
        ),
        pytest.param(
            Grant(hostnames=()),
            {"subdomain": "shop"},
            Forbidden,
            "token 'ci' may not bind host name 'shop.tunnels.example.com' (allowed: none)",
            id="nothing allowed",
        ),
        pytest.param(
            Grant(hostnames=()), {}, Forbidden, "token 'ci' may not bind any host name", id="none"
        ),
        pytest.param(
            Grant(),
            {"hostname": "app.example.org"},
            Forbidden,
            "token 'ci' may not bind host name 'app.example.org'"
            " (allowed: single names under tunnels.example.com, example.net)",
            id="foreign without a grant",
        ),
        pytest.param(
            Grant(),
            {"subdomain": "www"},
            Forbidden,
            "host name 'www.tunnels.example.com' is reserved",
            id="reserved",
        ),
        pytest.param(
            Grant(hostnames=("w*",)),
            {"subdomain": "www"},
            Forbidden,
            "host name 'www.tunnels.example.com' is reserved",
            id="reserved and only covered by a glob",
        ),
        pytest.param(
            Grant(hostnames=("control",)),
            {"subdomain": "control"},
            Forbidden,
            "host name 'control.tunnels.example.com' is reserved",
            id="the server's own name",
        ),
        pytest.param(
            Grant(),
            {"subdomain": "ab"},
            InvalidRequest,
            "subdomain 'ab' must be 3\u201363 characters long",
            id="label too short",
        ),
        pytest.param(
            Grant(),
            {"hostname": "ab.example.net"},
            InvalidRequest,
            "subdomain 'ab' must be 3\u201363 characters long",
            id="label too short within a full name",
        ),
        pytest.param(
            Grant(),
            {"hostname": "a.example.net", "subdomain": "a"},
            InvalidRequest,
            "give either a host name or a subdomain, not both",
            id="both",
        ),
    ],
)
def test_a_refused_host_name_names_the_rule(
    grant: Grant, wanted: dict[str, str], kind: type[ServerError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        choose(holder(grant), **wanted)  # type: ignore[arg-type]  # keyword table
    assert str(caught.value) == text
    # Old rustunnel clients end for good on any text with these letters.
    assert "auth" not in text.lower()


def test_a_taken_name_is_told_as_its_owner_wrote_it() -> None:
    with pytest.raises(NameTaken) as caught:
        choose(holder(), subdomain="Shop", is_free=lambda _: False)
    assert str(caught.value) == "subdomain 'Shop' is already in use"
    with pytest.raises(NameTaken) as caught:
        choose(holder(), hostname="shop.example.net", is_free=lambda _: False)
    assert str(caught.value) == "host name 'shop.example.net' is already in use"


def test_the_admin_has_every_name_but_the_servers_own() -> None:
    assert choose(ADMIN, subdomain="www") == "www.tunnels.example.com"
    assert choose(ADMIN, hostname="*.example.net") == "*.example.net"
    assert choose(ADMIN, hostname="a.b.example.org") == "a.b.example.org"
    with pytest.raises(Forbidden, match="reserved"):
        choose(ADMIN, subdomain="control")


def test_a_drawn_name_is_never_a_reserved_one() -> None:
    principal = holder(Grant(hostnames=("ww?", "w?w")))

    for _ in range(3):
        assert choose(principal) != "www.tunnels.example.com"
    assert choose(principal, is_free=lambda name: name[:3] in {"www", "wxw"}) == (
        "wxw.tunnels.example.com"
    )


@given(
    st.none() | st.lists(st.text("abw*?-.", min_size=1, max_size=6), max_size=3).map(tuple),
    st.none() | st.text("abw-.", max_size=12) | st.sampled_from(["*.example.net", "a.example.org"]),
)
def test_no_request_gets_a_name_outside_of_its_grant(
    patterns: tuple[str, ...] | None, wanted: str | None
) -> None:
    try:
        name = choose(holder(Grant(hostnames=patterns)), hostname=wanted)
    except ServerError:
        return
    assert matches(patterns, name, DOMAINS)


@pytest.mark.parametrize(
    ("grant", "address", "is_allowed"),
    [
        pytest.param(Grant(), "192.0.2.1", True, id="unrestricted"),
        pytest.param(Grant(agent_cidrs=()), "192.0.2.1", False, id="nowhere"),
        pytest.param(Grant(agent_cidrs=(ip_network("10.0.0.0/8"),)), "10.1.1.1", True, id="inside"),
        pytest.param(
            Grant(agent_cidrs=(ip_network("10.0.0.0/8"),)), "192.0.2.1", False, id="outside"
        ),
    ],
)
def test_agents_come_from_the_networks_of_their_token(
    grant: Grant, address: str, *, is_allowed: bool
) -> None:
    authorize_agent(ADMIN, address)
    if is_allowed:
        authorize_agent(holder(grant), address)
    else:
        with pytest.raises(Forbidden, match=r"token 'ci' may not be used from 192\.0\.2\.1"):
            authorize_agent(holder(grant), address)


@pytest.mark.parametrize(
    ("grant", "wanted", "kind", "text"),
    [
        pytest.param(
            Grant(protocols=()),
            None,
            Forbidden,
            "token 'ci' may not use protocol tcp",
            id="protocol",
        ),
        pytest.param(Grant(), 0, InvalidRequest, "port 0 is not between 1 and 65535", id="zero"),
        pytest.param(
            Grant(), 70000, InvalidRequest, "port 70000 is not between 1 and 65535", id="no port"
        ),
        pytest.param(
            Grant(),
            22,
            InvalidRequest,
            "port 22 is outside of 20000-20003",
            id="outside of the range",
        ),
        pytest.param(
            Grant(tcp_ports=((20001, 20002),)),
            20003,
            Forbidden,
            "token 'ci' may not use port 20003",
            id="outside of the grant",
        ),
        pytest.param(
            Grant(tcp_ports=((1, 100),)),
            None,
            Forbidden,
            "token 'ci' may not use any port of 20000-20003",
            id="no port granted",
        ),
        pytest.param(Grant(), 20000, PortTaken, "port 20000 is already in use", id="taken"),
        pytest.param(
            Grant(tcp_ports=((20000, 20000),)),
            None,
            PortTaken,
            "no TCP ports available",
            id="none free",
        ),
    ],
)
def test_a_refused_port_names_the_rule(
    grant: Grant, wanted: int | None, kind: type[ServerError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        choose_port(
            holder(grant),
            wanted,
            ports=PortOrder(20000, 20003),
            is_free=lambda port: port != 20000,
        )
    assert str(caught.value) == text
    assert "auth" not in text.lower()


def test_a_wanted_port_inside_of_the_grant_is_given() -> None:
    principal = holder(Grant(tcp_ports=((20002, 20003),)))
    ports = PortOrder(20000, 20003)

    assert choose_port(principal, 20003, ports=ports, is_free=always) == 20003
    assert choose_port(principal, None, ports=ports, is_free=always) == 20002


def test_a_freed_port_is_handed_out_last() -> None:
    ports = PortOrder(20000, 20002)
    used: set[int] = set()

    def open_one() -> int:
        port = choose_port(ADMIN, None, ports=ports, is_free=lambda port: port not in used)
        used.add(port)
        return port

    first, second = open_one(), open_one()
    used.remove(first)
    ports.touch(first)

    assert open_one() not in {first, second}
    assert open_one() == first


def test_touching_a_port_outside_of_the_range_changes_nothing() -> None:
    ports = PortOrder(1, 2)

    ports.touch(3)

    assert list(ports) == [1, 2]
    assert 3 not in ports
