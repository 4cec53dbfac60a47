"""Credentials that the operator makes: the server gets the digest, the Secret the text.

Format: `mole_<key id>_<secret><checksum>`. The prefix and the checksum let scanners of repositories find
a credential that leaked without guessing; the key id may be shown and logged; the secret part has
238 bits. Digests are those that the server stores: lower-case hex SHA-256 of the UTF-8 text.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

PREFIX: Final = "mole"
KEY_ID_LENGTH: Final = 8
SECRET_LENGTH: Final = 40
FINGERPRINT_LENGTH: Final = 16
"""Hex digits of the digest that are shown: enough to compare, nothing to guess from."""

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHECKSUM_LENGTH: Final = 6
"""62^6 holds every CRC-32."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One credential in the clear; never logged, only written to its Secret."""

    text: str = field(repr=False)

    @property
    def sha256(self) -> str:
        """The digest that the server keeps."""
        return digest(self.text)


def make_credential(random_bytes: Callable[[int], bytes]) -> Credential:
    """Return a new credential.

    Args:
        random_bytes: a source for secrets, such as `secrets.token_bytes`.
    """
    body = (
        f"{PREFIX}_{_letters(random_bytes, KEY_ID_LENGTH)}_{_letters(random_bytes, SECRET_LENGTH)}"
    )
    return Credential(body + _checksum(body))


def is_well_formed(text: str) -> bool:
    """Whether the text has the format and its checksum fits; says nothing about validity."""
    parts = text.split("_")
    return (
        len(parts) == 3
        and parts[0] == PREFIX
        and len(parts[1]) == KEY_ID_LENGTH
        and len(parts[2]) == SECRET_LENGTH + _CHECKSUM_LENGTH
        and _checksum(text[:-_CHECKSUM_LENGTH]) == text[-_CHECKSUM_LENGTH:]
    )


def digest(text: str) -> str:
    """Return the lower-case hex SHA-256 of a credential's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def fingerprint(sha256: str) -> str:
    """Return what is shown of a digest."""
    return sha256[:FINGERPRINT_LENGTH]


def _letters(random_bytes: Callable[[int], bytes], count: int) -> str:
    letters = ""
    while len(letters) < count:
        # 248 is the largest multiple of 62 in a byte; what is above would favour some letters.
        letters += "".join(_ALPHABET[b % 62] for b in random_bytes(count) if b < 248)
    return letters[:count]


def _checksum(body: str) -> str:
    value, letters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM_LENGTH):
        value, digit = divmod(value, 62)
        letters = _ALPHABET[digit] + letters
    return letters
