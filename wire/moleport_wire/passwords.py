"""Password hashes of HTTP basic authentication: made by the agent, checked by the server.

The server never sees the password of a tunnel, only its scrypt hash (RFC 7914) in the PHC string
format: `$scrypt$ln=14,r=8,p=1$<salt>$<hash>`, both in base64 without padding. What a hash may cost
is bounded here, because the party that chooses it is not the one that pays for it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from moleport_wire.errors import WireError

DEFAULT_LOG_N: Final = 14
"""16 MiB and some tens of milliseconds per verification."""
DEFAULT_R: Final = 8
DEFAULT_P: Final = 1
HASH_BYTES: Final = 32

MAX_LOG_N: Final = 15
MAX_R: Final = 8
MAX_P: Final = 2
"""Together at most 32 MiB and a few tenths of a second per verification."""
MAX_SALT_BYTES: Final = 64
MAX_HASH_BYTES: Final = 64
MIN_HASH_BYTES: Final = 16
"""Shorter ones could be met by chance."""

_BASE64: Final = r"[A-Za-z0-9+/]+"
_PHC: Final = re.compile(
    rf"\$scrypt\$ln=([0-9]{{1,2}}),r=([0-9]{{1,2}}),p=([0-9]{{1,2}})\$({_BASE64})\$({_BASE64})",
    re.ASCII,
)


class PasswordHashError(WireError):
    """The text is no scrypt hash in PHC format, or one that costs too much; it says which."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """A parsed hash whose cost is within the bounds."""

    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes = field(repr=False)

    def __str__(self) -> str:
        """Return the PHC string."""
        salt, digest = _encode(self.salt), _encode(self.digest)
        return f"$scrypt$ln={self.log_n},r={self.r},p={self.p}${salt}${digest}"

    def matches(self, password: str | bytes) -> bool:
        """Whether this is the hash of the password, compared in constant time.

        Blocks for tens of milliseconds: never call it on an event loop.
        """
        digest = _scrypt(
            password, self.salt, log_n=self.log_n, r=self.r, p=self.p, length=len(self.digest)
        )
        return hmac.compare_digest(digest, self.digest)


def hash_password(
    password: str | bytes,
    salt: bytes,
    *,
    log_n: int = DEFAULT_LOG_N,
    r: int = DEFAULT_R,
    p: int = DEFAULT_P,
) -> str:
    """Return the PHC string of a password.

    Blocks for tens of milliseconds.

    Args:
        password: text is hashed in UTF-8.
        salt: random, 16 bytes; a new one for each password.
        log_n: cost, as the binary logarithm of scrypt's N.
        r: block size.
        p: parallelisation.

    Raises:
        PasswordHashError: a parameter is out of its bounds.
    """
    _check_parameters(log_n, r, p, salt)
    return str(
        PasswordHash(
            log_n, r, p, salt, _scrypt(password, salt, log_n=log_n, r=r, p=p, length=HASH_BYTES)
        )
    )


def verify_password(password: str | bytes, phc: str) -> bool:
    """Whether `phc` is the hash of the password, compared in constant time.

    Blocks for tens of milliseconds: never call it on an event loop.

    Raises:
        PasswordHashError: as `parse_hash`.
    """
    return parse_hash(phc).matches(password)


def parse_hash(phc: str) -> PasswordHash:
    """Return the parts of a PHC string.

    Raises:
        PasswordHashError: it is malformed, or its cost or length is out of bounds.
    """
    match = _PHC.fullmatch(phc)
    if match is None:
        raise PasswordHashError("expected $scrypt$ln=…,r=…,p=…$salt$hash")
    log_n, r, p = (int(text) for text in match.group(1, 2, 3))
    salt, digest = _decode(match[4]), _decode(match[5])
    _check_parameters(log_n, r, p, salt)
    if not MIN_HASH_BYTES <= len(digest) <= MAX_HASH_BYTES:
        raise PasswordHashError(f"the hash must have {MIN_HASH_BYTES} to {MAX_HASH_BYTES} bytes")
    return PasswordHash(log_n, r, p, salt, digest)


def _check_parameters(log_n: int, r: int, p: int, salt: bytes) -> None:
    for name, value, most in (("ln", log_n, MAX_LOG_N), ("r", r, MAX_R), ("p", p, MAX_P)):
        if not 1 <= value <= most:
            raise PasswordHashError(f"{name} must be 1 to {most}, not {value}")
    # RFC 7914 section 2: N must be less than 2^(128 * r / 8), which bites for r = 1 only.
    if log_n >= 16 * r:
        raise PasswordHashError(f"ln must be less than {16 * r} for r={r}")
    if not 1 <= len(salt) <= MAX_SALT_BYTES:
        raise PasswordHashError(f"the salt must have 1 to {MAX_SALT_BYTES} bytes")


def _scrypt(
    password: str | bytes, salt: bytes, *, log_n: int, r: int, p: int, length: int
) -> bytes:
    secret = password.encode() if isinstance(password, str) else password
    needed = 128 * r * ((1 << log_n) + p + 2)
    return hashlib.scrypt(
        secret, salt=salt, n=1 << log_n, r=r, p=p, maxmem=needed + (1 << 20), dklen=length
    )


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise PasswordHashError("salt and hash must be base64 without padding") from error
