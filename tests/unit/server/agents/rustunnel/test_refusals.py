"""Which text each error becomes."""

import pytest

from moleport_server.agents.rustunnel.refusals import registration_refusal, unsupported_protocol
from moleport_server.domain.token import ADMIN, Limits, Principal, Token
from moleport_server.errors import (
    Forbidden,
    InvalidRequest,
    NameTaken,
    PortTaken,
    QuotaExceeded,
    ServerError,
    StoreError,
)

LIMITED = Principal(
    token=Token(id="t", label="ci", created_at=0.0, limits=Limits(max_tunnels=3)), revision=1
)


@pytest.mark.parametrize(
    ("error", "subdomain", "principal", "text"),
    [
        (
            NameTaken("'shop.x' is already in use"),
            "shop",
            ADMIN,
            "subdomain 'shop' is already in use",
        ),
        (NameTaken("no name is free"), None, ADMIN, "no name is free"),
        (InvalidRequest("subdomain 'a'"), "a", ADMIN, "subdomain 'a'"),
        (Forbidden("not yours"), "shop", ADMIN, "not yours"),
        (StoreError("the disk is full"), None, ADMIN, "the disk is full"),
        (QuotaExceeded("the server is full"), None, ADMIN, "the server is full"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, ServerError) else None,
)
def test_a_text_with_the_prefix_of_the_family(
    error: ServerError, subdomain: str | None, principal: Principal, text: str
) -> None:
    assert registration_refusal(error, subdomain, principal) == f"tunnel error: {text}"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (PortTaken("port 1 is taken"), "no TCP ports available"),
        (
            QuotaExceeded("limit exceeded: session s already has 1 tunnels (max 1)"),
            "limit exceeded: session s already has 1 tunnels (max 1)",
        ),
        (QuotaExceeded("token 'ci' may have 3 tunnels at a time"), "tunnel limit of 3 reached"),
    ],
    ids=["no port", "session limit", "token limit"],
)
def test_a_text_without_it(error: ServerError, text: str) -> None:
    assert registration_refusal(error, None, LIMITED) == text


def test_a_protocol_is_repeated_only_as_far_as_it_is_one() -> None:
    assert len(unsupported_protocol("x" * 1000)) < 120
