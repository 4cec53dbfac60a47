import pytest

from helpers.operator_records import NOW, policy
from moleport_operator.plan.conditions import find_condition
from moleport_operator.plan.policy import (
    MOST_USERS,
    PolicyResult,
    auth_secret_name,
    parse_htpasswd,
    password_conflict,
    policy_status,
    users_mark,
    wanted_policy,
)

HASH = "$2y$05$" + "a" * 53
AUTH = {"auth": {"basic": {"secretRef": {"name": "visitors"}}}}


def test_an_empty_policy_bounds_nothing() -> None:
    wish = wanted_policy(policy(), "cluster-1", None)

    assert (wish.protocols, wish.hostnames, wish.tcp_ports, wish.users) == (None, None, None, None)
    flags = (wish.requires_tls, wish.requires_rotation, wish.is_auth_unresolved)
    assert not any(flags)
    assert wish.owner is not None
    assert wish.owner.uid == "uid-strict"


def test_every_field_reaches_the_wish() -> None:
    spec = {
        "targetRefs": [],
        "access": {
            "protocols": ["tcp", "http"],
            "hostnames": ["b", "a"],
            "tcpPorts": [{"start": 5}, {"start": 1, "end": 2}],
            "agentCIDRs": ["10.0.0.0/8"],
            "clientCIDRs": ["::/0"],
            "deniedClientCIDRs": ["192.0.2.0/24"],
        },
        "limits": {
            "maxTunnelsPerToken": 1,
            "maxConnectionsPerTunnel": 2,
            "requestsPerSecond": 3,
            "burst": 4,
            "requestBodyBytes": "1Mi",
            "bandwidth": "2Mi",
            "idleTimeout": "5m",
        },
        "tokens": {"maxLifetime": "24h", "maxTokens": 6, "requireRotation": True},
        "http": {"requireTLS": True},
    }

    wish = wanted_policy(policy(spec=spec), "cluster-1", None)

    assert wish.protocols == ("http", "tcp")
    assert wish.hostnames == ("a", "b")
    assert wish.tcp_ports == ((1, 2), (5, 5))
    assert (wish.agent_cidrs, wish.client_cidrs) == (("10.0.0.0/8",), ("::/0",))
    assert wish.denied_client_cidrs == ("192.0.2.0/24",)
    assert (wish.max_tunnels_per_token, wish.max_connections_per_tunnel) == (1, 2)
    assert (wish.requests_per_second, wish.burst) == (3, 4)
    assert (wish.request_body_bytes, wish.bandwidth) == (2**20, 2**21)
    assert wish.idle_timeout_seconds == 300
    assert (wish.max_lifetime_seconds, wish.max_tokens) == (86_400, 6)
    assert wish.requires_rotation
    assert wish.requires_tls


def test_passwords_that_cannot_be_found_are_told_as_unresolved() -> None:
    asking = policy(spec={"targetRefs": [], "http": AUTH})

    assert auth_secret_name(asking) == "visitors"
    assert wanted_policy(asking, "c", None).is_auth_unresolved
    found = wanted_policy(asking, "c", (("ann", HASH),))
    assert (found.users, found.is_auth_unresolved) == ((("ann", HASH),), False)
    assert HASH not in repr(found)


def test_a_policy_of_the_cluster_never_reads_a_secret() -> None:
    assert auth_secret_name(policy(namespace="", spec={"targetRefs": [], "http": AUTH})) is None
    assert auth_secret_name(policy()) is None


@pytest.mark.parametrize(
    ("text", "users"),
    [
        (f"ann:{HASH}\n# a comment\n\nbob:{HASH}", (("ann", HASH), ("bob", HASH))),
        ("", None),
        ("ann:plain", None),
        (f"ann:{HASH}\nbob:$apr1$x$y", None),
        ("\n".join(f"u{n}:{HASH}" for n in range(MOST_USERS + 1)), None),
    ],
    ids=["two users", "empty", "plain text", "one other hash", "too many"],
)
def test_an_htpasswd_is_taken_whole_or_not_at_all(
    text: str, users: tuple[tuple[str, str], ...] | None
) -> None:
    assert parse_htpasswd(text) == users


ANN, BOB = users_mark((("ann", HASH),)), users_mark((("bob", HASH),))
TOLD = {"conditions": [{"type": "Enforced", "reason": "AuthConflict", "message": "told before"}]}


def test_marks_are_equal_for_equal_passwords_only_and_tell_nothing_of_them() -> None:
    assert users_mark((("ann", HASH),)) == ANN != BOB
    assert users_mark(None) == b""
    assert b"ann" not in ANN


@pytest.mark.parametrize(
    ("own", "neighbours", "status", "expected"),
    [
        (ANN, {}, {}, ""),
        (ANN, {"same": ANN}, {}, ""),
        (ANN, {"closed": b""}, {}, ""),
        (b"", {"other": BOB}, {}, ""),
        (ANN, {"z": BOB, "same": ANN, "b": BOB}, {}, "also have b, z:"),
        (ANN, {"unseen": None}, {}, ""),
        (ANN, {"unseen": None}, TOLD, "told before"),
        (ANN, {"same": ANN}, TOLD, ""),
    ],
    ids=[
        "alone",
        "the same",
        "the other unresolved",
        "itself unresolved",
        "others",
        "one that had no round yet",
        "a restart",
        "over",
    ],
)
def test_a_conflict_of_passwords_names_the_other_policies(
    own: bytes, neighbours: dict[str, bytes | None], status: dict[str, object], expected: str
) -> None:
    found = password_conflict(policy(status=status), own, neighbours)

    assert expected in found
    assert bool(found) == bool(expected)


@pytest.mark.parametrize(
    ("result", "accepted", "enforced"),
    [
        (PolicyResult("Accepted", "Enforced"), "True", "True"),
        (PolicyResult("Invalid", "Invalid", "no"), "False", "False"),
        (PolicyResult("Accepted", "ServerUnavailable"), "True", "False"),
        (PolicyResult("Accepted", "AuthConflict"), "True", "False"),
    ],
)
def test_the_status_tells_whether_it_is_accepted_and_enforced(
    result: PolicyResult, accepted: str, enforced: str
) -> None:
    status = policy_status(policy(), result, attached_tokens=3, now=NOW)

    assert find_condition(status, "Accepted")["status"] == accepted
    assert find_condition(status, "Enforced")["status"] == enforced
    assert status["attachedTokens"] == 3
