"""Password files as Apache's `htpasswd -B` writes them: one `user:hash` per line, bcrypt only.

What a check may cost is bounded here, as for the hashes that agents make. Other hashes of such files
(MD5, SHA-1, crypt, plain text) are refused: they protect nothing.
"""

import re
from typing import Final

import bcrypt

from moleport_server.access.visitor_rules import MAX_USERS, is_user_name
from moleport_server.domain.tunnel import BasicCredential
from moleport_server.errors import InvalidRequest

MAX_COST: Final = 12
"""A few tenths of a second of a core per check; each step doubles it."""
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_MAX_PASSWORD_BYTES: Final = 72
"""What bcrypt looks at; longer passwords are cut by those who hash them."""


def parse_htpasswd(text: str) -> tuple[BasicCredential, ...]:
    """Return the users of a file; empty lines and comments are skipped.

    Raises:
        InvalidRequest: a line is malformed, a hash is not bcrypt or too expensive, a user comes twice,
            or there are too many; the text says which line, and never quotes a hash.
    """
    users: dict[str, BasicCredential] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        user, colon, password_hash = line.strip().partition(":")
        if not colon or not is_user_name(user):
            raise InvalidRequest(f"htpasswd line {number}: write user:hash")
        match = _HASH.fullmatch(password_hash)
        if match is None:
            raise InvalidRequest(f"htpasswd line {number}: the hash is not bcrypt (htpasswd -B)")
        if not 4 <= int(match[1]) <= MAX_COST:
            raise InvalidRequest(f"htpasswd line {number}: use a cost from 4 to {MAX_COST}")
        if user in users:
            raise InvalidRequest(f"htpasswd line {number}: {user!r} is given twice")
        users[user] = BasicCredential(user=user, password_hash=password_hash)
        if len(users) > MAX_USERS:
            raise InvalidRequest(f"htpasswd has more than {MAX_USERS} users")
    return tuple(users.values())


def is_bcrypt(password_hash: str) -> bool:
    """Whether the hash is one of these."""
    return password_hash.startswith("$2")


def verify_bcrypt(password: bytes, password_hash: str) -> bool:
    """Whether this is the hash of the password, compared in constant time.

    Blocks for tens of milliseconds: never call it on an event loop.
    """
    if b"\0" in password:
        return False
    return bcrypt.checkpw(password[:_MAX_PASSWORD_BYTES], password_hash.encode())
