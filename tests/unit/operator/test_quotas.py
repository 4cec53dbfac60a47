from hypothesis import given
from hypothesis import strategies as st

from helpers.operator_records import policy, token
from moleport_operator.plan.attachment import above_quota, attaches
from moleport_operator.queue import Key
from moleport_operator.quotas import Quotas
from moleport_operator.resources import Meta, TunnelPolicy

POLICY = Key("tunnelpolicies", "default", "two")


def two_of_team_a() -> TunnelPolicy:
    target = {"kind": "TunnelToken", "selector": {"matchLabels": {"team": "a"}}}
    return policy("two", spec={"targetRefs": [target], "tokens": {"maxTokens": 2}})


def is_attached(found: TunnelPolicy, meta: Meta) -> bool:
    return attaches(found, meta, {})


def key(name: str) -> Key:
    return Key("tunneltokens", "default", name)


def made(name: str, second: int, team: str = "a", *, is_deleting: bool = False) -> Meta:
    fields = {"deletionTimestamp": "2026-01-02T00:00:00Z"} if is_deleting else {}
    created = f"2026-01-01T00:00:{second:02}Z"
    return token(name, creationTimestamp=created, labels={"team": team}, **fields).meta


def test_only_those_whose_place_changed_are_told() -> None:
    quotas = Quotas(is_attached)
    quotas.put_policy(POLICY, two_of_team_a(), {})
    assert quotas.put_token(key("a"), made("a", 1)) == set()
    assert quotas.put_token(key("c"), made("c", 3)) == set()

    assert quotas.put_token(key("b"), made("b", 2)) == {key("c")}
    assert quotas.is_above(made("c", 3))
    assert quotas.put_token(key("d"), made("d", 4)) == set()

    assert quotas.put_token(key("a"), None) == {key("c")}
    assert [quotas.is_above(made(name, 1)) for name in "bcd"] == [False, False, True]


_changes = st.lists(
    st.tuples(
        st.sampled_from("abcdef"),
        st.one_of(st.none(), st.tuples(st.integers(0, 5), st.sampled_from("ab"), st.booleans())),
    )
)


@given(_changes, st.integers(0, 20))
def test_keeping_count_is_the_same_as_counting(
    changes: list[tuple[str, tuple[int, str, bool] | None]], at: int
) -> None:
    quotas, tokens = Quotas(is_attached), dict[Key, Meta]()
    for number, (name, fields) in enumerate(changes):
        if number == at:
            quotas.put_policy(POLICY, two_of_team_a(), tokens)
        if fields is None:
            tokens.pop(key(name), None)
        else:
            tokens[key(name)] = made(name, fields[0], fields[1], is_deleting=fields[2])
        quotas.put_token(key(name), tokens.get(key(name)))

    members = [meta for meta in tokens.values() if is_attached(two_of_team_a(), meta)]
    counted = above_quota(two_of_team_a(), members) if at < len(changes) else frozenset()
    assert {meta.uid for meta in tokens.values() if quotas.is_above(meta)} == counted


def test_a_policy_that_goes_counts_no_more() -> None:
    quotas, tokens = Quotas(is_attached), {key(name): made(name, 1) for name in "abc"}
    quotas.put_policy(POLICY, two_of_team_a(), tokens)
    assert quotas.is_above(tokens[key("c")])

    quotas.remove_policy(POLICY)

    assert not quotas.is_above(tokens[key("c")])
