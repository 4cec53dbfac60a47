from __future__ import annotations

from typing import Any

import pytest

from moleport_operator.plan.effective import leaves_nothing, left_out
from moleport_operator.plan.records import ServerToken, TokenWish

DOMAINS = ("a.test", "b.test")
HTTP: dict[str, Any] = {"protocols": ("http",), "hostnames": None, "tcp_ports": ()}


def server(effective: dict[str, Any], **wish: Any) -> ServerToken:
    asked = TokenWish(label="default/shop", owner=None, **(HTTP | wish))
    return ServerToken(etag="1", wish=asked, effective=effective)


@pytest.mark.parametrize(
    ("access", "wish", "expected"),
    [
        ({}, {}, ""),
        ({"protocols": ["http"]}, {}, ""),
        ({"protocols": []}, {}, "without protocols http"),
        ({"protocols": ["http"]}, {"protocols": None}, "only protocols http"),
        ({"hostnames": ["x.a.test"]}, {}, "only hostnames x.a.test"),
        ({"hostnames": []}, {}, "only hostnames none"),
        ({"hostnames": ["x", "y"]}, {"hostnames": ("x", "y")}, ""),
        ({"hostnames": ["x.a.test", "x.b.test"]}, {"hostnames": ("x",)}, ""),
        ({"hostnames": ["x.a.test"]}, {"hostnames": ("x",)}, "without hostnames x.b.test"),
        (
            {"hostnames": ["x.a.test", "x.b.test"]},
            {"hostnames": ("x", "y", "z.else.test")},
            "without hostnames y, z.else.test",
        ),
        ({"hostnames": []}, {"hostnames": ("x",)}, "without hostnames x"),
        (
            {"hostnames": ["x-1.a.test"]},
            {"hostnames": ("x-*",)},
            "only hostnames x-1.a.test",
        ),
        ({"tcp_ports": [{"start": 1, "end": 9}]}, {"tcp_ports": ((1, 9),)}, ""),
        (
            {"tcp_ports": [{"start": 1, "end": 5}, {"start": 9, "end": 9}]},
            {"tcp_ports": None},
            "only TCP ports 1-5, 9",
        ),
        ({"agent_cidrs": ["10.0.0.0/8"]}, {}, "only agent networks 10.0.0.0/8"),
        (
            {"protocols": [], "agent_cidrs": []},
            {"agent_cidrs": ("::/0",)},
            "without protocols http; without agent networks ::/0",
        ),
    ],
)
def test_what_policies_take_from_a_token_is_said_by_name(
    access: dict[str, Any], wish: dict[str, Any], expected: str
) -> None:
    assert left_out(server({"access": access}, **wish), DOMAINS) == expected


def test_names_are_compared_as_they_are_where_no_domain_is_known() -> None:
    assert left_out(server({"access": {"hostnames": ["x"]}}, hostnames=("x",)), ()) == ""


def test_a_token_whose_policies_close_http_says_why() -> None:
    closed = server({"http": {"denied": "its policies ask for different passwords"}})

    said = left_out(closed, DOMAINS)

    assert said == "without http, because its policies ask for different passwords"
    assert left_out(server({"http": {"denied": None}}), DOMAINS) == ""


@pytest.mark.parametrize(
    ("effective", "wish", "expected"),
    [
        ({}, {}, False),
        ({"access": {"protocols": []}}, {}, True),
        ({"access": {"hostnames": []}}, {}, False),
        ({"access": {"protocols": ["http"], "hostnames": []}}, {}, True),
        ({"access": {"protocols": ["http"], "tcp_ports": []}}, {}, False),
        ({"access": {"protocols": ["tcp"], "tcp_ports": []}}, {}, True),
        ({"access": {"hostnames": [], "tcp_ports": []}}, {}, True),
        ({"access": {"agent_cidrs": []}}, {}, True),
        ({"limits": {"max_tunnels": 0}}, {}, True),
        ({"limits": {"max_tunnels": 1}}, {}, False),
        ({"access": {"protocols": ["http"], "hostnames": []}}, {"hostnames": ()}, False),
        ({"limits": {"max_tunnels": 0}}, {"max_tunnels": 0}, False),
    ],
    ids=[
        "no policy",
        "no protocol",
        "no names but ports",
        "http without names",
        "http without ports",
        "tcp without ports",
        "neither names nor ports",
        "no agents",
        "no tunnel",
        "one tunnel",
        "a token that asks for no names",
        "a token that asks for no tunnel",
    ],
)
def test_nothing_is_left_when_no_tunnel_can_be_opened(
    effective: dict[str, Any], wish: dict[str, Any], expected: bool
) -> None:
    assert leaves_nothing(server(effective, **wish)) == expected
