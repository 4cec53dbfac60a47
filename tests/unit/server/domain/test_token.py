import pytest

from moleport_server.domain.token import ADMIN, Principal, Token


def make_token(*, expires_at: float | None = None, suspended: bool = False) -> Token:
    return Token(id="t-1", label="ci", created_at=0.0, expires_at=expires_at, suspended=suspended)


@pytest.mark.parametrize(
    ("token", "is_valid"),
    [
        (make_token(), True),
        (make_token(expires_at=100.1), True),
        (make_token(expires_at=100.0), False),
        (make_token(suspended=True), False),
        (make_token(expires_at=200.0, suspended=True), False),
    ],
    ids=["for ever", "not yet expired", "expired at this moment", "suspended", "both"],
)
def test_a_token_is_valid_until_it_expires_or_is_suspended(token: Token, is_valid: bool) -> None:
    assert token.is_valid(100.0) is is_valid


def test_the_admin_owns_everything() -> None:
    assert ADMIN.is_admin
    assert ADMIN.owns("t-1")
    assert ADMIN.owns(None)
    assert ADMIN.token_id is None
    assert ADMIN.label is None


def test_a_token_owns_what_is_its_own() -> None:
    principal = Principal(token=make_token(), revision=2)

    assert not principal.is_admin
    assert principal.owns("t-1")
    assert not principal.owns("t-2")
    assert not principal.owns(None)
    assert (principal.token_id, principal.label) == ("t-1", "ci")
