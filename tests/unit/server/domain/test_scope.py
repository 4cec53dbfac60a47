import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.domain.scope import glob, is_exact, matches, parse_scope
from moleport_server.errors import InvalidRequest

DOMAINS = ("tunnels.example.com", "example.net")
PATTERN_CHARACTERS = "ab1-*?"

label_patterns = st.text(PATTERN_CHARACTERS, min_size=1, max_size=8)
patterns = st.lists(label_patterns, min_size=1, max_size=3).map(".".join)
hostnames = st.one_of(
    st.lists(st.text("ab1-", min_size=1, max_size=5), min_size=1, max_size=4).map(".".join),
    st.builds("{}.{}".format, st.text("ab1-", min_size=1, max_size=5), st.sampled_from(DOMAINS)),
    st.sampled_from(["*.tunnels.example.com", "*.a.b", "example.net"]),
)


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(None, None, id="null is unrestricted"),
        pytest.param("", (), id="empty is nothing"),
        pytest.param("  ", (), id="blank is nothing"),
        pytest.param("shop", ("shop",), id="one"),
        pytest.param("Shop, ci-* ,a.example.org.", ("shop", "ci-*", "a.example.org"), id="many"),
        pytest.param("a,b,a", ("a", "b"), id="each once"),
        pytest.param("*", ("*",), id="star"),
    ],
)
def test_scopes_are_parsed(scope: str | None, expected: tuple[str, ...] | None) -> None:
    assert parse_scope(scope) == expected


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param("a,,b", id="empty pattern"),
        pytest.param("a,", id="comma at the end"),
        pytest.param(",", id="only a comma"),
        pytest.param("a b", id="space inside"),
        pytest.param("a_b", id="underscore"),
        pytest.param("[ab]", id="set"),
        pytest.param("bücher", id="not ASCII"),
        pytest.param("a..b", id="empty label"),
        pytest.param("a" * 64, id="long label"),
        pytest.param(".".join(["a" * 50] * 6), id="long name"),
        pytest.param(",".join(f"n{number}" for number in range(257)), id="too many"),
    ],
)
def test_malformed_scopes_are_refused(scope: str) -> None:
    with pytest.raises(InvalidRequest, match="scope"):
        parse_scope(scope)


@pytest.mark.parametrize(
    ("granted", "hostname", "expected"),
    [
        pytest.param(None, "shop.tunnels.example.com", True, id="unrestricted, ours"),
        pytest.param(None, "shop.example.net", True, id="unrestricted, second domain"),
        pytest.param(None, "a.shop.example.net", False, id="unrestricted, two labels"),
        pytest.param(None, "shop.example.org", False, id="unrestricted, foreign"),
        pytest.param(None, "*.example.net", False, id="unrestricted, wildcard"),
        pytest.param(None, "example.net", False, id="unrestricted, the domain"),
        pytest.param((), "shop.example.net", False, id="nothing"),
        pytest.param(("shop",), "shop.example.net", True, id="label"),
        pytest.param(("shop",), "shop.example.org", False, id="label elsewhere"),
        pytest.param(("shop",), "a.shop.example.net", False, id="label is not a parent"),
        pytest.param(("ci-*",), "ci-42.example.net", True, id="glob"),
        pytest.param(("ci-*",), "ci-.example.net", True, id="star is also nothing"),
        pytest.param(("ci-*",), "ci-42.x.example.net", False, id="star has no dot"),
        pytest.param(("ci-??",), "ci-42.example.net", True, id="question marks"),
        pytest.param(("ci-??",), "ci-4.example.net", False, id="question marks are exact"),
        pytest.param(("*",), "*.example.net", False, id="star is no wildcard"),
        pytest.param(("?",), "*.example.net", False, id="question mark is no wildcard"),
        pytest.param(("*.example.net",), "*.example.net", True, id="wildcard by name"),
        pytest.param(("*.example.net",), "shop.example.net", True, id="names below it as well"),
        pytest.param(("*.*.net",), "*.example.net", False, id="wildcard not by glob"),
        pytest.param(("app.example.org",), "app.example.org", True, id="foreign by name"),
        pytest.param(("*.example.org",), "app.example.org", True, id="foreign by glob"),
        pytest.param(("*.example.org",), "a.b.example.org", False, id="one label per star"),
    ],
)
def test_a_grant_matches_what_it_says(
    granted: tuple[str, ...] | None, hostname: str, *, expected: bool
) -> None:
    assert matches(granted, hostname, DOMAINS) is expected


@given(st.lists(patterns, max_size=4), patterns, hostnames)
def test_a_further_pattern_never_takes_away_and_an_empty_list_grants_nothing(
    some: list[str], further: str, hostname: str
) -> None:
    assert not matches((), hostname, DOMAINS)
    if matches(some, hostname, DOMAINS):
        assert matches([*some, further], hostname, DOMAINS)


@given(st.lists(label_patterns, max_size=4), hostnames)
def test_label_patterns_never_allow_more_than_unrestricted(some: list[str], hostname: str) -> None:
    if matches(some, hostname, DOMAINS):
        assert matches(None, hostname, DOMAINS)


@given(st.text(PATTERN_CHARACTERS, max_size=8), st.text("ab1-", max_size=10))
def test_globs_agree_with_the_regular_expression_they_avoid(pattern: str, text: str) -> None:
    expression = "".join(
        {"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern
    )

    assert glob(pattern, text) is (re.fullmatch(expression, text) is not None)


def test_many_stars_cost_nothing() -> None:
    assert not glob("*a" * 30 + "*b", "a" * 63)


def test_exact_patterns_are_told_from_globs() -> None:
    assert is_exact("shop.example.com")
    assert not is_exact("sho?")
    assert not is_exact("*")
