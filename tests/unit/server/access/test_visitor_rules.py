from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.access.visitor_rules import parse_rules
from moleport_server.domain.tunnel import OPEN, BasicCredential
from moleport_server.errors import InvalidRequest
from moleport_wire.passwords import hash_password

HASH = hash_password("secret", b"salt", log_n=4, r=1, p=1)


def test_what_is_not_given_is_not_restricted() -> None:
    assert parse_rules() == OPEN
    assert parse_rules(None, None).is_open


def test_users_and_networks_are_parsed() -> None:
    rules = parse_rules(
        [{"user": "ann", "hash": HASH}], ["10.0.0.0/8", "2001:db8::1", "10.0.0.0/8"]
    )

    assert rules.basic_auth == (BasicCredential(user="ann", password_hash=HASH),)
    assert rules.allowed_cidrs == (ip_network("10.0.0.0/8"), ip_network("2001:db8::1/128"))


def test_empty_lists_let_nobody_pass() -> None:
    rules = parse_rules([], [])

    assert rules.basic_auth == ()
    assert rules.allowed_cidrs == ()
    assert not rules.is_open


@pytest.mark.parametrize(
    ("basic_auth", "allowed_cidrs", "text"),
    [
        pytest.param({}, None, "basic_auth must be a list", id="object"),
        pytest.param("a:b", None, "basic_auth must be a list", id="text"),
        pytest.param(["a:b"], None, r"basic_auth\[0\] must be an object", id="pair as text"),
        pytest.param([{"user": "a"}], None, "must be an object with", id="no hash"),
        pytest.param(
            [{"user": "a", "hash": HASH, "x": 1}], None, "must be an object with", id="extra key"
        ),
        pytest.param([{"user": "", "hash": HASH}], None, r"\.user must be", id="empty user"),
        pytest.param([{"user": "a:b", "hash": HASH}], None, r"\.user must be", id="colon"),
        pytest.param([{"user": "a\n", "hash": HASH}], None, r"\.user must be", id="control"),
        pytest.param([{"user": "\ud800", "hash": HASH}], None, r"\.user must be", id="surrogate"),
        pytest.param([{"user": "é" * 65, "hash": HASH}], None, r"\.user must be", id="long user"),
        pytest.param([{"user": 1, "hash": HASH}], None, r"\.user must be", id="number as user"),
        pytest.param([{"user": "a", "hash": 1}], None, r"\.hash must be text", id="number as hash"),
        pytest.param(
            [{"user": "a", "hash": "plain-secret"}], None, r"\[0\]\.hash: expected", id="no hash"
        ),
        pytest.param(
            [{"user": "a", "hash": HASH.replace("ln=4", "ln=20")}],
            None,
            r"\[0\]\.hash: ln must be 1 to 15",
            id="hash costs too much",
        ),
        pytest.param([{"user": "a", "hash": HASH}] * 2, None, "'a' is given twice", id="twice"),
        pytest.param(
            [{"user": f"u{number}", "hash": HASH} for number in range(33)],
            None,
            "more than 32",
            id="too many users",
        ),
        pytest.param(None, "10.0.0.0/8", "allowed_cidrs must be a list", id="network as text"),
        pytest.param(None, [10], r"allowed_cidrs\[0\] must be text", id="network as number"),
        pytest.param(None, ["10.0.0.0/33"], r"allowed_cidrs\[0\]: ", id="no network"),
        pytest.param(None, ["10.0.0.1/8"], "host bits set", id="host bits"),
        pytest.param(None, ["10.0.0.0/8"] * 257, "more than 256", id="too many networks"),
    ],
)
def test_malformed_rules_are_refused_without_quoting_hashes(
    basic_auth: object, allowed_cidrs: object, text: str
) -> None:
    with pytest.raises(InvalidRequest, match=text) as caught:
        parse_rules(basic_auth, allowed_cidrs)
    assert "plain-secret" not in str(caught.value)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["user", "hash", "x"]), inner),
    max_leaves=8,
)


@given(json, json)
def test_any_json_gives_rules_or_the_documented_error(basic_auth: object, cidrs: object) -> None:
    try:
        rules = parse_rules(basic_auth, cidrs)
    except InvalidRequest:
        return
    assert rules.is_open is (basic_auth is None and cidrs is None)
