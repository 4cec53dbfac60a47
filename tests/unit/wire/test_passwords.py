import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_wire.passwords import (
    PasswordHashError,
    hash_password,
    parse_hash,
    verify_password,
)

CHEAP = {"log_n": 4, "r": 1, "p": 1}


def phc(log_n: int, r: int, p: int, salt: bytes, digest_hex: str) -> str:
    salt_text, digest_text = (
        base64.b64encode(raw).decode().rstrip("=") for raw in (salt, bytes.fromhex(digest_hex))
    )
    return f"$scrypt$ln={log_n},r={r},p={p}${salt_text}${digest_text}"


def test_a_hash_verifies_its_own_password_and_no_other() -> None:
    text = hash_password("correct horse", b"0123456789abcdef")

    assert text.startswith("$scrypt$ln=14,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$")
    assert verify_password("correct horse", text)
    assert verify_password(b"correct horse", text)
    assert not verify_password("correct horsE", text)


def test_the_vector_of_rfc_7914_for_n_16384_is_met() -> None:
    # Section 12: scrypt("pleaseletmein", "SodiumChloride", 16384, 8, 1, 64).
    text = phc(
        14,
        8,
        1,
        b"SodiumChloride",
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
    )

    assert verify_password("pleaseletmein", text)
    assert not verify_password("pleaseletmeout", text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "expected", id="empty"),
        pytest.param("hunter2", "expected", id="plain password"),
        pytest.param("$2b$12$abcdefghijklmnopqrstuv", "expected", id="bcrypt"),
        pytest.param(phc(16, 8, 1, b"s", "00" * 32), "ln must be 1 to 15", id="too much memory"),
        pytest.param(phc(99, 8, 1, b"s", "00" * 32), "ln must be 1 to 15", id="absurd"),
        pytest.param(phc(0, 8, 1, b"s", "00" * 32), "ln must be 1 to 15", id="no cost"),
        pytest.param(phc(14, 9, 1, b"s", "00" * 32), "r must be 1 to 8", id="large block"),
        pytest.param(phc(14, 8, 3, b"s", "00" * 32), "p must be 1 to 2", id="parallel"),
        pytest.param(phc(14, 8, 1, b"s" * 65, "00" * 32), "salt must have", id="long salt"),
        pytest.param(phc(14, 8, 1, b"s", "00" * 15), "hash must have", id="short hash"),
        pytest.param(phc(14, 8, 1, b"s", "00" * 65), "hash must have", id="long hash"),
        pytest.param("$scrypt$ln=14,r=8,p=1$A$" + "A" * 43, "base64", id="half a byte of salt"),
        pytest.param(phc(4, 1, 1, b"s", "00" * 32) + "\n", "expected", id="trailing newline"),
        pytest.param("$scrypt$r=8,ln=14,p=1$c2FsdA$" + "A" * 43, "expected", id="other order"),
    ],
)
def test_hashes_out_of_bounds_are_refused_before_they_cost_anything(text: str, reason: str) -> None:
    with pytest.raises(PasswordHashError, match=reason):
        parse_hash(text)


def test_making_a_hash_obeys_the_same_bounds() -> None:
    with pytest.raises(PasswordHashError, match="p must be"):
        hash_password("x", b"salt", p=3)
    with pytest.raises(PasswordHashError, match="salt"):
        hash_password("x", b"")


@given(password=st.text(max_size=40), salt=st.binary(min_size=1, max_size=64))
def test_every_password_and_salt_survives_the_round_trip(password: str, salt: bytes) -> None:
    try:
        password.encode()
    except UnicodeEncodeError:
        return
    text = hash_password(password, salt, **CHEAP)

    assert str(parse_hash(text)) == text
    assert parse_hash(text).salt == salt
    assert verify_password(password, text)


@given(st.text(max_size=200))
def test_garbage_is_a_hash_or_the_documented_error(text: str) -> None:
    try:
        parsed = parse_hash(text)
    except PasswordHashError:
        return
    assert parse_hash(str(parsed)) == parsed


def test_the_digest_does_not_show_in_the_representation() -> None:
    parsed = parse_hash(phc(4, 1, 1, b"salt", "ab" * 32))

    assert "digest" not in repr(parsed)
