from typing import Any

import pytest

from helpers.operator_records import policy, token
from moleport_operator.plan.attachment import above_quota, attached_policy, attaches, selects
from moleport_operator.resources import Expression, Selector

TOKEN = {"kind": "TunnelToken"}


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (TOKEN, True),
        (TOKEN | {"name": "shop"}, True),
        (TOKEN | {"name": "other"}, False),
        (TOKEN | {"selector": {"matchLabels": {"team": "a"}}}, True),
        (TOKEN | {"selector": {"matchLabels": {"team": "b"}}}, False),
        (TOKEN | {"selector": {}}, True),
    ],
    ids=["all", "by name", "other name", "by label", "other label", "empty selector"],
)
def test_a_policy_attaches_to_what_it_names(ref: dict[str, Any], expected: bool) -> None:
    strict = policy(spec={"targetRefs": [ref]})

    assert attaches(strict, token(labels={"team": "a"}).meta, {}) == expected


def test_a_policy_stays_in_its_namespace() -> None:
    assert not attaches(policy(spec={"targetRefs": [TOKEN]}), token(namespace="other").meta, {})


def test_a_policy_that_is_being_deleted_attaches_to_nothing() -> None:
    leaving = policy(spec={"targetRefs": [TOKEN]}, deletionTimestamp="2026-01-01T00:00:00Z")

    assert not attaches(leaving, token().meta, {})


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"kind": "Namespace"}, True),
        ({"kind": "Namespace", "name": "default"}, True),
        ({"kind": "Namespace", "name": "other"}, False),
        ({"kind": "Namespace", "selector": {"matchLabels": {"tier": "dev"}}}, True),
        ({"kind": "Namespace", "selector": {"matchLabels": {"tier": "prod"}}}, False),
    ],
    ids=["all", "by name", "other name", "by label", "other label"],
)
def test_a_policy_of_the_cluster_attaches_to_namespaces(
    ref: dict[str, Any], expected: bool
) -> None:
    strict = policy(namespace="", spec={"targetRefs": [ref]})

    assert attaches(strict, token().meta, {"tier": "dev"}) == expected


@pytest.mark.parametrize(
    ("row", "with_label", "without"),
    [
        (Expression(key="k", operator="In", values=("v",)), True, False),
        (Expression(key="k", operator="NotIn", values=("v",)), False, True),
        (Expression(key="k", operator="Exists"), True, False),
        (Expression(key="k", operator="DoesNotExist"), False, True),
    ],
    ids=lambda value: getattr(value, "operator", str(value)),
)
def test_expressions_match_as_in_kubernetes(
    row: Expression, with_label: bool, without: bool
) -> None:
    selector = Selector(match_expressions=(row,))

    assert selects(selector, {"k": "v"}) == with_label
    assert selects(selector, {}) == without


def test_the_oldest_tokens_stay_within_the_quota() -> None:
    quota = policy(spec={"targetRefs": [TOKEN], "tokens": {"maxTokens": 2}})
    old = token("z", creationTimestamp="2025-01-01T00:00:00Z").meta
    tokens = [token(name).meta for name in ("c", "a", "b")]

    assert above_quota(quota, [*tokens, old]) == {"uid-b", "uid-c"}


def test_a_token_that_is_being_deleted_uses_no_quota() -> None:
    quota = policy(spec={"targetRefs": [TOKEN], "tokens": {"maxTokens": 1}})
    leaving = token("a", deletionTimestamp="2026-01-01T00:00:00Z").meta

    assert above_quota(quota, [leaving, token("b").meta]) == frozenset()


def test_without_a_quota_nothing_is_above_it() -> None:
    assert above_quota(policy(), [token().meta]) == frozenset()


def test_what_the_operator_keeps_of_a_policy() -> None:
    rules = {"maxLifetime": "2h", "requireRotation": True}

    kept = attached_policy(policy(spec={"targetRefs": [], "tokens": rules}), is_accepted=False)

    assert (kept.max_lifetime, kept.requires_rotation, kept.is_accepted) == (7200, True, False)
