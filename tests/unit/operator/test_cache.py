from typing import Any

import pytest

from helpers.operator_records import body
from moleport_operator.cache import Cache
from moleport_operator.errors import InvalidResource
from moleport_operator.queue import Key
from moleport_operator.resources import (
    CLUSTER_POLICIES,
    POLICIES,
    TOKENS,
    read_meta,
    read_policy,
)

ALL = {"targetRefs": [{"kind": "TunnelToken"}]}


def meta(name: str = "shop", **fields: Any) -> Any:
    return read_meta(body(name, **fields))


def test_only_what_matters_is_a_change() -> None:
    cache = Cache()

    key, is_new = cache.put(TOKENS, body())
    same = cache.put(TOKENS, body(status={"revision": 1}, resourceVersion="2"))[1]
    edited = cache.put(TOKENS, body(generation=2, resourceVersion="3"))[1]

    assert key == Key("tunneltokens", "default", "shop")
    assert (is_new, same, edited) == (True, False, True)


def test_managed_fields_are_not_kept() -> None:
    cache = Cache()
    key, _ = cache.put(TOKENS, body(managedFields=[{"manager": "kubectl"}]))

    kept = cache.get(key)

    assert kept is not None
    assert "managedFields" not in kept["metadata"]


def asking(name: str, *refs: str, **fields: Any) -> dict[str, Any]:
    http = {"auth": {"basic": {"secretRef": {"name": "visitors"}}}}
    spec = {"targetRefs": [{"kind": "TunnelToken", "name": ref} for ref in refs], "http": http}
    return body(name, spec=spec, **fields)


def test_neighbours_are_policies_with_passwords_that_share_a_token() -> None:
    cache = Cache()
    for name in ("shop", "till"):
        cache.put(TOKENS, body(name))
    keys = {
        name: cache.put(POLICIES, asking(name, *refs, **fields))[0]
        for name, refs, fields in (
            ("own", ["shop"], {}),
            ("shares", ["shop", "till"], {}),
            ("elsewhere", ["till"], {}),
            ("going", ["shop"], {"deletionTimestamp": "2026-01-01T00:00:00Z"}),
            ("far", ["shop"], {"namespace": "another"}),
        )
    }
    cache.put(POLICIES, body("no-passwords", spec=ALL))
    own = read_policy(asking("own", "shop"))

    before = cache.neighbours(own, cache.tokens_of(own))
    news = [cache.set_users(keys["shares"], "uid-shares", mark) for mark in (b"", b"", b"x")]
    stale = cache.set_users(keys["shares"], "uid-of-one-before", b"y")

    assert before == {"shares": None}
    assert (news, stale) == ([True, False, True], False)
    assert cache.neighbours(own, cache.tokens_of(own)) == {"shares": b"x"}
    assert {key.name for key in cache.password_policies("default")} == {
        *("own", "shares", "elsewhere", "going")
    }
    cache.remove(POLICIES, "default", "shares")
    assert cache.neighbours(own, cache.tokens_of(own)) == {}
    assert not cache.set_users(keys["shares"], "uid-shares", b"x")


def test_a_full_list_drops_what_it_does_not_have() -> None:
    cache = Cache()
    cache.put(TOKENS, body("old"))

    gone = cache.replace_all(TOKENS, [body("new")], "7")

    assert [key.name for key in gone] == ["old"]
    assert [key.name for key in cache.keys(TOKENS)] == ["new"]


def test_a_full_list_keeps_what_the_watch_has_told_since() -> None:
    cache = Cache()
    cache.put(TOKENS, body("just-made", resourceVersion="8"))

    gone = cache.replace_all(TOKENS, [], "7")

    assert gone == []
    assert [key.name for key in cache.keys(TOKENS)] == ["just-made"]


def test_an_older_body_that_comes_late_changes_nothing() -> None:
    cache = Cache()
    key, _ = cache.put(TOKENS, body(resourceVersion="10", finalizers=["moleport.dev/revoke"]))

    _, is_changed = cache.put(TOKENS, body(resourceVersion="9"))
    kept = cache.get(key)
    _, is_another = cache.put(TOKENS, body(resourceVersion="9", uid="made-anew"))

    assert not is_changed
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "10"
    assert is_another


def test_an_answer_to_our_own_write_brings_nothing_back_that_is_gone() -> None:
    cache = Cache()
    key, _ = cache.put(TOKENS, body(resourceVersion="1"))

    cache.refresh(TOKENS, body(resourceVersion="2"))
    kept = cache.get(key)
    cache.remove(TOKENS, "default", "shop")
    cache.refresh(TOKENS, body(resourceVersion="3"))

    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == "2"
    assert cache.get(key) is None


def test_policies_of_namespace_and_cluster_attach() -> None:
    cache = Cache()
    cache.set_namespace("default", {"tier": "dev"})
    cache.put(POLICIES, body("mine", spec=ALL))
    cache.put(POLICIES, body("theirs", namespace="other", spec=ALL))
    refs = [{"kind": "Namespace", "selector": {"matchLabels": {"tier": "dev"}}}]
    cache.put(CLUSTER_POLICIES, body("wide", namespace="", spec={"targetRefs": refs}))

    assert {policy.name for policy in cache.policies_of(meta())} == {"mine", "wide"}


def test_a_policy_counts_as_accepted_once_the_server_took_it() -> None:
    cache = Cache()
    cache.put(POLICIES, body("strict", spec=ALL))
    assert not cache.policies_of(meta())[0].is_accepted

    assert cache.set_accepted("uid-strict")
    assert not cache.set_accepted("uid-strict")

    assert cache.policies_of(meta())[0].is_accepted
    cache.forget_accepted()
    assert not cache.policies_of(meta())[0].is_accepted


def test_the_quota_is_counted_anew_when_a_token_goes() -> None:
    cache = Cache()
    cache.put(POLICIES, body("one", spec=ALL | {"tokens": {"maxTokens": 1}}))
    for name in ("a", "b"):
        cache.put(TOKENS, body(name))
    assert cache.is_above_quota(meta("b"))

    cache.remove(TOKENS, "default", "a")

    assert not cache.is_above_quota(meta("b"))


def test_an_unreadable_policy_is_named() -> None:
    cache = Cache()
    cache.put(POLICIES, body("odd", spec=ALL | {"tokens": {"maxLifetime": "soon"}}))

    with pytest.raises(InvalidResource, match="policy odd"):
        cache.policies_of(meta())


def test_a_namespace_changes_only_with_its_labels() -> None:
    cache = Cache()

    assert cache.set_namespace("a", {"x": "1"})
    assert not cache.set_namespace("a", {"x": "1"})
    assert cache.set_namespace("a", None)


def test_the_tokens_and_policies_of_each_other_are_found() -> None:
    cache = Cache()
    cache.put(TOKENS, body())
    key, _ = cache.put(POLICIES, body("strict", spec=ALL))

    assert cache.policy_keys_for(Key("tunneltokens", "default", "shop")) == [key]
    assert cache.policy_keys_for(Key("tunneltokens", "other", "shop")) == []
