"""Names drawn for tunnels that did not ask for one: readable, and always inside of the grant.

Two words are enough for people to read a name aloud (`quick-otter`); when they collide, a growing
third part settles it, so a draw from an open pattern never fails because names are taken. Where
the grant has globs their stars are filled with such words. A grant of exact names only is a short
list: a single one is the default even while it is bound, because its owner may be coming back.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import product
from typing import Final

from moleport_server.domain.hostnames import (
    MAX_LABEL_LENGTH,
    label_error,
    label_under,
    normalise,
)
from moleport_server.domain.scope import is_exact
from moleport_server.domain.words import ADJECTIVES, NOUNS
from moleport_server.errors import InvalidRequest, NameTaken

RandomBits = Callable[[int], int]
"""Returns a uniformly random integer of that many bits (`secrets.randbits`)."""

_SUFFIX_BITS: Final = (0, 0, 0, 0, 8, 8, 8, 8, 16, 16, 32, 32, 64, 64)
"""Bits of the third part per attempt: readable first, then as long as it has to be."""
_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_MAX_ENUMERATED: Final = 4096
"""Names tried of a pattern that has question marks but no star."""


def draw_words(random_bits: RandomBits, suffix_bits: int = 0) -> str:
    """Return `adjective-noun`, or `adjective-noun-hex` with that many random bits behind."""
    words = f"{ADJECTIVES[random_bits(8)]}-{NOUNS[random_bits(8)]}"
    if not suffix_bits:
        return words
    return f"{words}-{random_bits(suffix_bits):0{suffix_bits // 4}x}"


def draw_name(
    random_bits: RandomBits,
    is_free: Callable[[str], bool],
    *,
    patterns: Collection[str] | None,
    domains: Collection[str],
) -> str:
    """Return a host name inside of the grant: a free one, or the only exact one there is.

    Args:
        random_bits: where the names come from.
        is_free: whether a host name may be handed out now.
        patterns: the grant, as `scope.parse_scope` returns it; None draws under the first domain.
        domains: ours, the default first.

    Raises:
        NameTaken: every name that the grant allows is taken, or it allows no valid one.
    """
    domain = next(iter(domains))
    if patterns is None:
        patterns = ("*",)
    full = [pattern if "." in pattern else f"{pattern}.{domain}" for pattern in patterns]
    exact = [name for name in full if is_exact(name) and _is_usable(name, domains)]
    if len(full) == len(exact) == 1:
        return full[0]
    for hostname in exact:
        if is_free(hostname):
            return hostname
    for pattern in full:
        candidates = _open(pattern, random_bits) if "*" in pattern else _closed(pattern)
        for hostname in candidates:
            if _is_usable(hostname, domains) and is_free(hostname):
                return hostname
    raise NameTaken("no host name that the token may use is free")


def _open(pattern: str, random_bits: RandomBits) -> Iterator[str]:
    """Fill the first star with words, all others with nothing, until the caller is content."""
    head, _, tail = pattern.partition("*")
    head_label = head.rpartition(".")[2]
    tail_label = tail.partition(".")[0]
    room = MAX_LABEL_LENGTH - len((head_label + tail_label).replace("*", ""))
    # A star that stands alone in its label must not become an empty one.
    tail = ".".join("x" if label == "*" else label.replace("*", "") for label in tail.split("."))
    for bits in _SUFFIX_BITS:
        words = draw_words(random_bits, bits)
        if len(words) > room:
            # Little room is left: as much randomness as fits.
            words = "".join(_CHARACTERS[random_bits(16) % 36] for _ in range(min(room, 8)))
        yield "".join(
            _CHARACTERS[random_bits(16) % 36] if character == "?" else character
            for character in head + words + tail
        )


def _closed(pattern: str) -> Iterator[str]:
    """Fill the question marks in order; there are few such names."""
    pieces = pattern.split("?")
    fillings = product(_CHARACTERS, repeat=len(pieces) - 1)
    for _, filling in zip(range(_MAX_ENUMERATED), fillings, strict=False):
        yield pieces[0] + "".join(
            character + piece for character, piece in zip(filling, pieces[1:], strict=True)
        )


def _is_usable(hostname: str, domains: Collection[str]) -> bool:
    """Whether a filled pattern is a host name, and its label under our domains a proper one."""
    try:
        label = label_under(normalise(hostname), domains)
    except InvalidRequest:
        return False
    return label is None or label_error(label) is None


def is_reserved(label: str | None, hostname: str, reserved: Collection[str]) -> bool:
    """Whether a name is kept from ordinary tokens.

    Args:
        label: the single label under our domains, None for other hosts.
        hostname: normalised.
        reserved: labels (under any of our domains) and full host names, lower case.
    """
    return hostname in reserved or (label is not None and label in reserved)
