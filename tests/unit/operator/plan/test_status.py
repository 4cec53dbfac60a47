from dataclasses import replace
from typing import Any

import pytest

from helpers.operator_records import NOW, attached, seen, token
from moleport_operator.plan.conditions import find_condition
from moleport_operator.plan.records import ServerToken, Settled, Usage
from moleport_operator.plan.status import (
    is_same_status,
    token_status,
    transition,
)
from moleport_operator.plan.token import wanted_token

ISSUED = Settled("Issued", "revision 1 is in Secret shop")


def server(**fields: Any) -> ServerToken:
    return ServerToken(etag="1", wish=wanted_token(seen()), **fields)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("Issued", {"Ready": "True"}),
        ("Suspended", {"Ready": "False"}),
        ("Pending", {"Ready": "False", "Reconciling": "True"}),
        ("ServerUnavailable", {"Ready": "False", "Reconciling": "True"}),
        ("SecretNotOwned", {"Ready": "False", "Stalled": "True"}),
        ("InvalidSpec", {"Ready": "False", "Stalled": "True"}),
        ("ServerRejected", {"Ready": "False", "Stalled": "True"}),
    ],
)
def test_kstatus_reads_progress_and_dead_ends(reason: str, expected: dict[str, str]) -> None:
    status = token_status(seen(server=server()), Settled(reason, ""))
    summary = {
        c["type"]: c["status"]
        for c in status["conditions"]
        if c["type"] in {"Ready", "Reconciling", "Stalled"}
    }

    assert summary == expected


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "NoPolicy"),
        ({"policies": (attached(),)}, "Applied"),
        ({"policies": (attached(is_accepted=False),)}, "PolicyNotAccepted"),
        (
            {
                "policies": (attached(),),
                "server": server(effective={"access": {"protocols": []}}),
            },
            "Restricted",
        ),
    ],
    ids=["none", "applied", "not accepted", "restricted"],
)
def test_the_status_tells_what_policies_do(fields: dict[str, Any], reason: str) -> None:
    status = token_status(seen(**({"server": server()} | fields)), ISSUED)

    assert find_condition(status, "PolicyApplied")["reason"] == reason


def test_a_failure_keeps_what_was_known_and_counts() -> None:
    old = {"revision": 4, "binding": {"name": "shop"}, "failedAttempts": 2}

    status = token_status(
        seen(token=token(status=old)), Settled("ServerUnavailable", "refused"), is_failure=True
    )

    assert (status["revision"], status["binding"], status["failedAttempts"]) == (
        4,
        {"name": "shop"},
        3,
    )


def test_usage_is_written_at_most_once_a_minute_and_only_when_it_changed() -> None:
    first = token_status(seen(server=server(usage=Usage(tunnels=1))), ISSUED)
    later = seen(token=token(status=first), server=server(usage=Usage(tunnels=2)))

    soon = token_status(replace(later, now=NOW + 59), ISSUED)
    then = token_status(replace(later, now=NOW + 60), ISSUED)
    same = token_status(
        replace(later, server=server(usage=Usage(tunnels=1)), now=NOW + 600), ISSUED
    )

    assert soon["usage"]["activeTunnels"] == 1
    assert then["usage"]["activeTunnels"] == 2
    assert same["usage"] == first["usage"]


def test_events_come_on_transitions_only() -> None:
    first = token_status(seen(server=server()), ISSUED)
    again = token_status(seen(token=token(status=first), server=server()), ISSUED)
    failed = token_status(seen(server=server()), Settled("ServerRejected", "no"))

    made, broke = transition({}, first), transition(first, failed)

    assert made is not None
    assert (made.reason, made.is_warning) == ("Issued", False)
    assert transition(first, again) is None
    assert broke is not None
    assert broke.is_warning


def test_a_status_that_says_the_same_is_not_written() -> None:
    first = token_status(seen(server=server()), ISSUED)
    again = seen(token=token(status=first), server=server(), now=NOW + 5)

    assert is_same_status(first, token_status(again, ISSUED))


def test_kubectl_get_tells_why_a_name_is_refused() -> None:
    restricted = server(effective={"access": {"protocols": []}})

    status = token_status(seen(policies=(attached("web-only"),), server=restricted), ISSUED)

    assert find_condition(status, "Ready")["message"] == (
        "revision 1 is in Secret shop; less than asked for, by web-only: without protocols http"
    )
