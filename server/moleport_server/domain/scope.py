"""Scopes: patterns that say which host names a token may bind.

A pattern without a dot is matched with the single label under one of our domains, a pattern with
dots with the whole host name, label by label. `*` stands for any characters and `?` for exactly
one; neither matches a dot. `None` is unrestricted, which means single labels under our domains and
nothing else: hosts outside of them and wildcard bindings need a pattern that names them.
"""

import re
from collections.abc import Collection
from typing import Final

from moleport_server.domain.hostnames import MAX_NAME_LENGTH, is_wildcard, label_under
from moleport_server.errors import InvalidRequest

MAX_PATTERNS: Final = 256
"""A scope is checked on each registration; nobody types more than a few."""

_PATTERN: Final = re.compile(r"[a-z0-9*?-]{1,63}(?:\.[a-z0-9*?-]{1,63})*", re.ASCII)


def parse_scope(scope: str | None) -> tuple[str, ...] | None:
    """Return the patterns of a comma separated scope, lower case and each once.

    None stays None (unrestricted); an empty or blank scope has no pattern (nothing is allowed).

    Raises:
        InvalidRequest: a pattern is empty or malformed, or there are too many.
    """
    if scope is None:
        return None
    if not scope.strip():
        return ()
    parts = scope.split(",", MAX_PATTERNS)
    if len(parts) > MAX_PATTERNS:
        raise InvalidRequest(f"scope has more than {MAX_PATTERNS} patterns")
    return tuple(dict.fromkeys(parse_pattern(part) for part in parts))


def parse_pattern(pattern: str) -> str:
    """Return one pattern in lower case, without spaces around it or a trailing dot.

    Raises:
        InvalidRequest: it is empty, too long, or has a character that no host name has.
    """
    text = pattern.strip().lower().removesuffix(".")
    if not text:
        raise InvalidRequest("scope has an empty pattern between two commas")
    if len(text) > MAX_NAME_LENGTH or _PATTERN.fullmatch(text) is None:
        raise InvalidRequest(
            f"scope pattern {text[:80]!r}: use letters, digits, hyphens, dots, '*' and '?'"
        )
    return text


def matches(patterns: Collection[str] | None, hostname: str, domains: Collection[str]) -> bool:
    """Whether a token with these patterns may bind the host name.

    A wildcard binding is matched by the equal pattern only, never by a glob that happens to cover
    it: `*` is what people write for «any name», not for «all names at once».

    Args:
        patterns: as `parse_scope` returns them.
        hostname: normalised, possibly a wildcard.
        domains: ours, normalised.
    """
    label = label_under(hostname, domains)
    if patterns is None:
        return label is not None
    if is_wildcard(hostname):
        return hostname in patterns
    return any(_matches_one(pattern, hostname, label) for pattern in patterns)


def covers(outer: str, inner: str, domains: Collection[str]) -> bool:
    """Whether every host name that matches `inner` matches `outer` as well."""
    if "." not in outer:
        if "." in inner:
            label, _, parent = inner.partition(".")
            return parent in domains and _covers_label(outer, label)
        return _covers_label(outer, inner)
    if "." not in inner:
        # A bare label stands for that label under each of our domains.
        return all(covers(outer, f"{inner}.{domain}", domains) for domain in domains)
    wide, narrow = outer.split("."), inner.split(".")
    return len(wide) == len(narrow) and all(map(_covers_label, wide, narrow))


def _covers_label(outer: str, inner: str) -> bool:
    # A star of the inner one is a text of any length, which one character of the outer one never is.
    return glob(outer.replace("?", "\0") if "*" in inner else outer, inner)


def is_exact(pattern: str) -> bool:
    """Whether the pattern names one host and nothing else."""
    return "*" not in pattern and "?" not in pattern


def _matches_one(pattern: str, hostname: str, label: str | None) -> bool:
    if "." not in pattern:
        return label is not None and glob(pattern, label)
    globs = pattern.split(".")
    labels = hostname.split(".")
    return len(globs) == len(labels) and all(map(glob, globs, labels))


def glob(pattern: str, text: str) -> bool:
    """Whether the whole text matches; `*` is any run of characters and `?` exactly one.

    Linear retries of the last star instead of a regular expression, whose backtracking a pattern
    like `*a*a*a*a*b` makes explode.
    """
    at = start = 0
    star = -1
    position = 0
    while position < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, start = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in {"?", text[position]}:
            at += 1
            position += 1
        elif star >= 0:
            start += 1
            at, position = star + 1, start
        else:
            return False
    return all(character == "*" for character in pattern[at:])
