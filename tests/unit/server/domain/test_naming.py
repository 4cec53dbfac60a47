import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.domain.hostnames import label_error, normalise
from moleport_server.domain.naming import draw_name, draw_words, is_reserved
from moleport_server.domain.scope import matches
from moleport_server.errors import NameTaken

DOMAINS = ("tunnels.example.com", "example.net")


def bits(seed: int = 1) -> random.Random:
    return random.Random(seed)


def test_a_name_is_two_words_under_the_first_domain() -> None:
    name = draw_name(bits().getrandbits, lambda _: True, patterns=None, domains=DOMAINS)

    assert re.fullmatch(r"[a-z]+-[a-z]+\.tunnels\.example\.com", name)


def test_a_collision_adds_a_third_part_instead_of_failing() -> None:
    def has_three_parts(name: str) -> bool:
        return name.count("-") == 2

    name = draw_name(bits().getrandbits, has_three_parts, patterns=None, domains=DOMAINS)

    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9a-f]{2}\.tunnels\.example\.com", name)


def test_names_stay_free_when_every_readable_one_is_taken() -> None:
    taken: set[str] = set()

    def is_free(name: str) -> bool:
        return len(name.partition(".")[0].split("-")[-1]) >= 16 and name not in taken

    for seed in range(20):
        name = draw_name(bits(seed).getrandbits, is_free, patterns=None, domains=DOMAINS)
        assert name not in taken
        taken.add(name)


def test_a_draw_ends_even_if_nothing_is_ever_free() -> None:
    with pytest.raises(NameTaken):
        draw_name(bits().getrandbits, lambda _: False, patterns=None, domains=DOMAINS)
    with pytest.raises(NameTaken):
        draw_name(bits().getrandbits, lambda _: False, patterns=("a???",), domains=DOMAINS)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        pytest.param(("ci-*",), r"ci-[a-z]+-[a-z]+\.tunnels\.example\.com", id="prefix"),
        pytest.param(("*-dev",), r"[a-z]+-[a-z]+-dev\.tunnels\.example\.com", id="suffix"),
        pytest.param(("a-*-*-b",), r"a-[a-z]+-[a-z]+--b\.tunnels\.example\.com", id="two stars"),
        pytest.param(("ci-?x",), r"ci-[a-z0-9]x\.tunnels\.example\.com", id="question mark"),
        pytest.param(("*-??",), r"[a-z]+-[a-z]+-[a-z0-9]{2}\.tunnels\.example\.com", id="mixed"),
        pytest.param(("*.example.org",), r"[a-z]+-[a-z]+\.example\.org", id="foreign domain"),
        pytest.param(("*.*.org",), r"[a-z]+-[a-z]+\.x\.org", id="star on its own further on"),
        pytest.param(("x" * 58 + "*",), r"x{58}[a-z0-9]{5}\.tunnels\..*", id="little room"),
        pytest.param(("shop",), r"shop\.tunnels\.example\.com", id="one name"),
        pytest.param(("shop", "ci-*"), r"shop\.tunnels\.example\.com", id="names before globs"),
    ],
)
def test_names_are_drawn_inside_of_the_grant(patterns: tuple[str, ...], expected: str) -> None:
    name = draw_name(bits().getrandbits, lambda _: True, patterns=patterns, domains=DOMAINS)

    assert re.fullmatch(expected, name)
    assert matches(patterns, name, DOMAINS)


def test_a_single_granted_name_is_the_default_even_while_it_is_bound() -> None:
    name = draw_name(bits().getrandbits, lambda _: False, patterns=("shop",), domains=DOMAINS)

    assert name == "shop.tunnels.example.com"


def test_of_several_names_the_first_free_one_is_given() -> None:
    def draw(*taken: str) -> str:
        return draw_name(
            bits().getrandbits,
            lambda name: name.partition(".")[0] not in taken,
            patterns=("one", "two", "x.example.org"),
            domains=DOMAINS,
        )

    assert draw() == "one.tunnels.example.com"
    assert draw("one") == "two.tunnels.example.com"
    assert draw("one", "two") == "x.example.org"
    with pytest.raises(NameTaken):
        draw("one", "two", "x")


def test_few_names_of_question_marks_are_all_found() -> None:
    name = draw_name(
        bits().getrandbits,
        lambda name: name.startswith("ci-9."),
        patterns=("ci-?",),
        domains=DOMAINS,
    )

    assert name == "ci-9.tunnels.example.com"


@given(
    st.lists(st.text("abz09-*?", min_size=1, max_size=63), min_size=1, max_size=4),
    st.integers(0, 2**32),
)
def test_whatever_is_drawn_is_a_valid_name_inside_of_the_grant(
    patterns: list[str], seed: int
) -> None:
    try:
        name = draw_name(bits(seed).getrandbits, lambda _: True, patterns=patterns, domains=DOMAINS)
    except NameTaken:
        return
    assert normalise(name) == name
    assert label_error(name.partition(".")[0]) is None
    assert matches(patterns, name, DOMAINS)


def test_suffixes_have_their_full_width() -> None:
    assert draw_words(lambda _: 0, 16).endswith("-0000")


def test_reserved_names_are_labels_of_ours_or_full_hosts() -> None:
    reserved = {"www", "control.example.com"}

    assert is_reserved("www", "www.example.net", reserved)
    assert is_reserved("control", "control.example.com", reserved)
    assert not is_reserved("control", "control.example.net", reserved)
    assert not is_reserved(None, "www.example.org", reserved)
