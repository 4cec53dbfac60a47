import secrets

import pytest

from moleport_operator.credentials import digest, fingerprint, is_well_formed, make_credential


def test_a_credential_is_well_formed_and_new_each_time() -> None:
    made = {make_credential(secrets.token_bytes).text for _ in range(50)}

    assert len(made) == 50
    assert all(is_well_formed(text) for text in made)


@pytest.mark.parametrize("index", [0, 6, 20, 59], ids=["prefix", "key id", "secret", "checksum"])
def test_a_changed_letter_anywhere_is_noticed(index: int) -> None:
    text = make_credential(secrets.token_bytes).text
    other = "0" if text[index] != "0" else "1"

    assert not is_well_formed(text[:index] + other + text[index + 1 :])


def test_bytes_that_would_favour_letters_are_passed_over() -> None:
    chunks = iter([b"\xff" * 8, b"\x00" * 8, b"\x01" * 40])

    credential = make_credential(lambda size: next(chunks)[:size])

    assert credential.text.startswith("mole_00000000_1111")


def test_a_credential_hides_its_text() -> None:
    credential = make_credential(secrets.token_bytes)

    assert credential.text not in repr(credential)
    assert credential.sha256 == digest(credential.text)
    assert fingerprint(credential.sha256) == credential.sha256[:16]
