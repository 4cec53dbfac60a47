"""Tunnels as rows and back: what a restart must not change."""

from dataclasses import fields, replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.edge_rig import DOMAIN
from moleport_server.domain.tunnel import (
    OPEN,
    BasicCredential,
    ContainerMode,
    ContainerPort,
    TunnelProtocol,
    VisitorRules,
)
from moleport_server.registry.addresses import PublicAddresses
from moleport_server.registry.claim import wished_rules
from moleport_server.registry.container_ports import ContainerPorts, ContainerPortSettings
from moleport_server.registry.lease_records import to_lease, to_tunnel
from moleport_server.registry.live import Tunnel
from moleport_wire.passwords import hash_password

ADDRESSES = PublicAddresses(scheme="https", port=443, tcp_host=DOMAIN)
PORTS = ContainerPorts(
    ContainerPortSettings(expose=True, pull=True, expose_host="0.0.0.0"), lambda _: 0
)
HASH = str(hash_password("secret", b"0123456789abcdef"))

names = st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True)
numbers = st.integers(min_value=1, max_value=65_535)
containers = st.one_of(
    st.builds(
        ContainerPort, mode=st.just(ContainerMode.EXPOSE), port=numbers, host=st.just("0.0.0.0")
    ),
    st.builds(
        ContainerPort,
        mode=st.just(ContainerMode.PULL),
        port=numbers,
        host=st.sampled_from(["127.0.0.1", "::1"]),
    ),
)
rules = st.one_of(
    st.just(OPEN),
    st.builds(
        VisitorRules,
        basic_auth=st.one_of(
            st.none(),
            st.lists(names, min_size=1, max_size=3, unique=True).map(
                lambda users: tuple(BasicCredential(user=u, password_hash=HASH) for u in users)
            ),
        ),
        allowed_cidrs=st.sampled_from([wished_rules(None, ["192.0.2.0/24", "2001:db8::/32"])]).map(
            lambda made: made.allowed_cidrs
        ),
    ),
)


@st.composite
def tunnels(draw: st.DrawFn) -> Tunnel:
    """Draw a tunnel with each kind of address that the registry gives out."""
    hostname = port = container = None
    kind = draw(st.sampled_from(["name", "port", "container", "named container"]))
    if kind == "port":
        port = draw(numbers)
    if "container" in kind:
        container = draw(containers)
    is_pull = container is not None and container.mode is ContainerMode.PULL
    if "name" in kind and not is_pull:
        hostname = f"{draw(names)}.{DOMAIN}"
    return Tunnel(
        id=draw(st.uuids()),
        protocol=TunnelProtocol.TCP if is_pull or kind == "port" else TunnelProtocol.HTTP,
        hostname=hostname,
        port=port,
        container=container,
        public_url=ADDRESSES.url(hostname, port),
        token_id=draw(st.one_of(st.none(), names)),
        token_label="laptop",
        session=None,
        session_id=draw(names),
        bind_id=draw(st.integers(min_value=0, max_value=2**32 - 1)),
        opened_at=1_750_000_000.25,
        wished=draw(rules),
        host_header=draw(st.one_of(st.none(), names)),
        keepsake=draw(st.one_of(st.none(), names)),
        lease_until=60.0,
    )


@given(tunnels())
def test_a_tunnel_comes_back_as_it_was(tunnel: Tunnel) -> None:
    again = to_tunnel(
        to_lease(tunnel),
        until=60.0,
        token_label="laptop",
        addresses=ADDRESSES,
        container_ports=PORTS,
    )

    assert {f.name: getattr(again, f.name) for f in fields(again)} == {
        f.name: getattr(tunnel, f.name) for f in fields(tunnel)
    }


@pytest.mark.parametrize("expose", [True, False], ids=["opened", "not opened"])
def test_the_settings_of_this_run_say_whether_a_container_port_is_opened(expose: bool) -> None:
    tunnel = Tunnel(
        id=UUID(int=1),
        protocol=TunnelProtocol.HTTP,
        container=ContainerPort(mode=ContainerMode.EXPOSE, port=3000, host="0.0.0.0"),
        public_url="",
        token_id=None,
        token_label=None,
        session=None,
        session_id="S-1",
        bind_id=1,
        opened_at=0.0,
    )
    settings = ContainerPortSettings(expose=expose, expose_host="192.0.2.1")

    again = to_tunnel(
        to_lease(tunnel),
        until=1.0,
        token_label=None,
        addresses=replace(ADDRESSES, port=8443),
        container_ports=ContainerPorts(settings, lambda _: 0),
    )

    assert again.container == ContainerPort(
        mode=ContainerMode.EXPOSE, port=3000, host="192.0.2.1", is_listening=expose
    )
    assert again.has_listener is expose
