from uuid import UUID

import pytest

from moleport_wire.rustunnel import texts

SESSION = UUID("0192f0c1-5a3e-7b11-8d2e-4c6a9be01f23")

TEXTS = [
    (texts.EXPECTED_AUTH, "expected Auth frame"),
    (texts.INVALID_TOKEN, "invalid token"),
    (texts.TOO_MANY_FAILURES, "too many failed auth attempts"),
    (texts.NO_TCP_PORTS, "no TCP ports available"),
    (texts.UNSUPPORTED_PROTOCOL, "unsupported protocol"),
    (texts.TOKEN_SUSPENDED, "token is suspended or revoked"),
    (texts.TOKEN_EXPIRED, "token has expired"),
    (texts.P2P_DISABLED, "P2P tunnels are not enabled on this server"),
    (texts.name_taken("shop"), "tunnel error: subdomain 'shop' is already in use"),
    (
        texts.name_length("ab"),
        "tunnel error: subdomain 'ab' must be 3\u201363 characters long",
    ),
    (
        texts.name_hyphen("-ab"),
        "tunnel error: subdomain '-ab' must not start or end with a hyphen",
    ),
    (
        texts.name_characters("a_b"),
        "tunnel error: subdomain 'a_b' may only contain letters, digits, and hyphens",
    ),
    (
        texts.session_limit(SESSION, 10, 10),
        f"limit exceeded: session {SESSION} already has 10 tunnels (max 10)",
    ),
    (texts.session_gone(SESSION), f"session not found: {SESSION}"),
    (texts.token_limit(3), "tunnel limit of 3 reached"),
    (
        texts.group_key_differs("shop"),
        "tunnel error: group key does not match existing group for subdomain 'shop'",
    ),
]
FINAL = {texts.EXPECTED_AUTH, texts.INVALID_TOKEN, texts.TOO_MANY_FAILURES}


@pytest.mark.parametrize(("text", "expected"), TEXTS, ids=[expected[:30] for _, expected in TEXTS])
def test_a_text_is_that_of_the_family(text: str, expected: str) -> None:
    assert text == expected


def is_fatal_for_0_3_6(text: str) -> bool:
    return "auth" in text or "Auth" in text


def test_no_text_that_is_retried_ends_old_clients() -> None:
    assert [text for text, _ in TEXTS if is_fatal_for_0_3_6(text) and text not in FINAL] == []


@pytest.mark.parametrize("name", ["oauth-demo", "Author", "auth", "authauth"])
def test_a_name_with_these_letters_does_not_end_old_clients(name: str) -> None:
    text = texts.retried(texts.name_taken(name))

    assert not is_fatal_for_0_3_6(text)
    assert text.replace("\u200b", "") == texts.name_taken(name)


def test_other_texts_are_left_as_they_are() -> None:
    assert texts.retried(texts.name_taken("shop")) == texts.name_taken("shop")
