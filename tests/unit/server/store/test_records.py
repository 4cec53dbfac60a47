from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.domain.token import Grant, Limits
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.errors import StoreCorrupt
from moleport_server.store.records import (
    decode_grant,
    decode_limits,
    encode_grant,
    encode_limits,
)

T = TypeVar("T")


def some(values: st.SearchStrategy[T]) -> st.SearchStrategy[tuple[T, ...] | None]:
    return st.none() | st.lists(values, max_size=3).map(tuple)


ports = st.integers(0, 65_535)
networks = st.builds(
    lambda number, prefix: IPv4Network((number, prefix), strict=False),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
) | st.builds(
    lambda number, prefix: IPv6Network((number, prefix), strict=False),
    st.integers(0, 2**128 - 1),
    st.integers(0, 128),
)
grants = st.builds(
    Grant,
    protocols=some(st.sampled_from(TunnelProtocol)),
    hostnames=some(st.text(max_size=20)),
    tcp_ports=some(st.tuples(ports, ports)),
    container_ports=some(st.tuples(ports, ports)),
    agent_cidrs=some(networks),
)
counts = st.none() | st.integers(0, 2**31)
limits = st.builds(
    Limits,
    max_tunnels=counts,
    max_agents=counts,
    max_connections=counts,
    max_connections_per_tunnel=counts,
    requests_per_second=st.none() | st.floats(0, 1e9),
    burst=st.none() | st.floats(1, 1e9),
    request_body_bytes=counts,
    bandwidth=counts,
    idle_seconds=st.none() | st.floats(0, 1e9),
)


@given(grants)
def test_a_grant_comes_back_as_it_was(grant: Grant) -> None:
    assert decode_grant(encode_grant(grant), token_id="t") == grant


@given(limits)
def test_limits_come_back_as_they_were(value: Limits) -> None:
    assert decode_limits(encode_limits(value), token_id="t") == value


WHOLE = '{"protocols":null,"hostnames":null,"tcp_ports":null,"agent_cidrs":null}'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("null", id="null"),
        pytest.param(WHOLE[:-1], id="cut"),
        pytest.param(WHOLE.replace('"hostnames":null,', ""), id="a restriction is missing"),
        pytest.param(WHOLE.replace("{", '{"days":[],'), id="an unknown restriction"),
        pytest.param(WHOLE.replace('"protocols":null', '"protocols":["udp"]'), id="protocol"),
        pytest.param(WHOLE.replace('"tcp_ports":null', '"tcp_ports":[[1]]'), id="half a range"),
        pytest.param(WHOLE.replace('"agent_cidrs":null', '"agent_cidrs":["10/99"]'), id="CIDR"),
    ],
)
def test_an_unreadable_grant_is_an_error_and_never_unrestricted(text: str) -> None:
    with pytest.raises(StoreCorrupt, match="token t-1 cannot be read"):
        decode_grant(text, token_id="t-1")


@pytest.mark.parametrize("text", ["", "{}", '{"max_tunnels":"3"}'])
def test_unreadable_limits_are_an_error_and_never_unlimited(text: str) -> None:
    with pytest.raises(StoreCorrupt, match="token t-1 cannot be read"):
        decode_limits(text, token_id="t-1")
