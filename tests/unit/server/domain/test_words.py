import re

import pytest

from moleport_server.domain.words import ADJECTIVES, NOUNS


@pytest.mark.parametrize("words", [ADJECTIVES, NOUNS], ids=["adjectives", "nouns"])
def test_eight_bits_choose_a_word_without_bias(words: tuple[str, ...]) -> None:
    assert len(words) == len(set(words)) == 256


def test_words_are_short_plain_and_in_one_list_only() -> None:
    assert not set(ADJECTIVES) & set(NOUNS)
    assert all(re.fullmatch("[a-z]{3,8}", word) for word in ADJECTIVES + NOUNS)
