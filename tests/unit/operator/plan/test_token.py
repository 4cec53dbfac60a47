from dataclasses import replace
from typing import Any

import pytest

from helpers.operator_records import NOW, attached, seen, token
from moleport_operator.errors import InvalidResource
from moleport_operator.plan.records import (
    AddFinalizer,
    ClaimSecret,
    IssueCredential,
    PutToken,
    RemoveFinalizer,
    SecretContent,
    SecretView,
    ServerToken,
    Settled,
)
from moleport_operator.plan.token import plan_token, wanted_token

CLAIMED = SecretView(
    uid="s",
    resource_version="1",
    claimed_by="uid-shop",
    content=SecretContent(labels={}, annotations={}, values={}, is_owned=False),
)


def ours(**fields: Any) -> ServerToken:
    return ServerToken(etag="1", wish=replace(wanted_token(seen()), **fields))


def test_the_finalizer_comes_before_anything_else() -> None:
    assert plan_token(seen(token=token())) == AddFinalizer()


def test_then_the_server_hears_of_the_token() -> None:
    assert plan_token(seen()) == PutToken(wanted_token(seen()), None)


def test_then_the_secret_is_claimed_and_only_then_a_credential_made() -> None:
    assert plan_token(seen(server=ours())) == ClaimSecret()
    assert plan_token(seen(server=ours(), secret=CLAIMED)) == IssueCredential(1, None, "Issued")


def test_a_difference_at_the_server_is_put_with_its_etag() -> None:
    assert plan_token(seen(server=ours(label="old"), secret=CLAIMED)) == PutToken(
        wanted_token(seen()), "1"
    )


def test_what_the_server_writes_in_its_own_way_is_put_only_once_in_a_round() -> None:
    step = plan_token(seen(server=ours(label="old"), secret=CLAIMED, was_put=True))

    assert isinstance(step, IssueCredential)


def test_a_new_token_waits_for_its_policies() -> None:
    step = plan_token(seen(policies=(attached(is_accepted=False),)))

    assert step == Settled("Pending", "waits for the server to take strict")


def test_a_token_without_our_finalizer_may_go() -> None:
    leaving = token(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["other"])

    assert isinstance(plan_token(seen(token=leaving)), Settled)


def test_a_token_that_never_reached_the_server_goes_at_once() -> None:
    leaving = token(deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["moleport.dev/revoke"])

    assert plan_token(seen(token=leaving)) == RemoveFinalizer()


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        ({}, {"protocols": ("http",), "hostnames": None, "tcp_ports": ()}),
        (
            {"protocols": ["tcp"]},
            {"protocols": ("tcp",), "hostnames": (), "tcp_ports": None},
        ),
        (
            {"protocols": ["tcp", "http"], "http": {"hostnames": ["b", "a"]}},
            {"protocols": ("http", "tcp"), "hostnames": ("a", "b"), "tcp_ports": None},
        ),
        (
            {"protocols": ["tcp"], "tcp": {"ports": [{"start": 7}, {"start": 1, "end": 5}]}},
            {"tcp_ports": ((1, 5), (7, 7))},
        ),
    ],
    ids=["defaults", "tcp only", "names", "ports"],
)
def test_access_is_told_to_the_server_in_full(
    access: dict[str, Any], expected: dict[str, Any]
) -> None:
    wish = wanted_token(seen(token=token(spec={"access": access})))

    assert {name: getattr(wish, name) for name in expected} == expected


def test_limits_suspension_policies_and_owner_are_told_to_the_server() -> None:
    spec = {"limits": {"maxTunnels": 1, "bandwidth": "1Mi"}, "suspend": True}

    wish = wanted_token(seen(token=token(spec=spec), policies=(attached("b"), attached("a"))))

    assert (wish.max_tunnels, wish.bandwidth, wish.suspended) == (1, 2**20, True)
    assert wish.policy_ids == ("uid-a", "uid-b")
    assert wish.owner is not None
    assert (wish.owner.cluster, wish.owner.uid) == ("cluster-1", "uid-shop")
    assert wish.label == "default/shop"


def test_a_spec_that_makes_no_sense_is_an_error_of_its_author() -> None:
    bad = token(spec={"lifetime": "soon"}, finalizers=["moleport.dev/revoke"])

    with pytest.raises(InvalidResource):
        plan_token(seen(token=bad, now=NOW))
