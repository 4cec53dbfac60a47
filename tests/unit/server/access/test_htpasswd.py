import bcrypt
import pytest

from moleport_server.access.htpasswd import is_bcrypt, parse_htpasswd, verify_bcrypt
from moleport_server.access.visitor_rules import MAX_USERS
from moleport_server.domain.tunnel import BasicCredential
from moleport_server.errors import InvalidRequest

HASH = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
# Apache writes this prefix; the algorithm is the same.
APACHE_HASH = HASH.replace("$2b$", "$2y$")


def test_users_are_read_and_the_rest_is_skipped() -> None:
    text = f"# people\n\nann:{HASH}\n  bob:{APACHE_HASH}\r\n"

    assert parse_htpasswd(text) == (
        BasicCredential(user="ann", password_hash=HASH),
        BasicCredential(user="bob", password_hash=APACHE_HASH),
    )


def test_a_file_without_users_lets_nobody_in() -> None:
    assert parse_htpasswd("# nobody yet\n") == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ann", "line 1: write user:hash"),
        (f"\n:{HASH}", "line 2: write user:hash"),
        ("ann:open sesame", "line 1: the hash is not bcrypt"),
        ("ann:$apr1$x$y", "not bcrypt"),
        ("ann:{SHA}x", "not bcrypt"),
        (f"ann:{HASH}x", "not bcrypt"),
        (f"ann:{HASH.replace('$04$', '$13$')}", "use a cost from 4 to 12"),
        (f"ann:{HASH.replace('$04$', '$03$')}", "use a cost from 4 to 12"),
        (f"ann:{HASH}\nann:{HASH}", "line 2: 'ann' is given twice"),
        ("\n".join(f"u{n}:{HASH}" for n in range(MAX_USERS + 1)), "more than"),
    ],
)
def test_what_is_wrong_is_told_by_its_line_and_without_the_hash(text: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as caught:
        parse_htpasswd(text)

    assert HASH not in str(caught.value)


@pytest.mark.parametrize("password_hash", [HASH, APACHE_HASH], ids=["2b", "2y"])
def test_the_right_password_fits_and_others_do_not(password_hash: str) -> None:
    assert is_bcrypt(password_hash)
    assert verify_bcrypt(b"open sesame", password_hash)
    assert not verify_bcrypt(b"open", password_hash)
    assert not verify_bcrypt(b"open sesame\0", password_hash)


def test_a_password_is_compared_as_far_as_bcrypt_looks() -> None:
    long = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()

    assert verify_bcrypt(b"x" * 100, long)
