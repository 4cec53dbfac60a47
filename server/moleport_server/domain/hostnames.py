"""Host names: one spelling for each, so that bindings and Host headers meet in one dictionary.

`normalise` is for names of any origin (a Host header, SNI, what an agent asks for); `parse_label`
adds the stricter rules for the single label that agents choose under our domains. Its texts are
what agents of the rustunnel family show to people, so they are fixed. Names stay in their ASCII
form: whoever wants an internationalised name gives its `xn--` spelling (RFC 5890).
"""

import re
from collections.abc import Collection
from typing import Final

from moleport_server.errors import InvalidRequest

MAX_NAME_LENGTH: Final = 253
"""RFC 1035 allows 255 bytes on the wire, which is 253 characters of text."""
MIN_LABEL_LENGTH: Final = 3
MAX_LABEL_LENGTH: Final = 63

_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII
)
_PORT: Final = re.compile(r":[0-9]{0,5}\Z", re.ASCII)
_LABEL_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def normalise(host: str) -> str:
    """Return the one spelling of a host name: lower case, no port, no trailing dot.

    Raises:
        InvalidRequest: the text is no host name of letters, digits and hyphens (an IPv6 literal
            is none either), or it is too long.
    """
    if not host.isascii():
        # Before lowering: the Kelvin sign would become an ASCII letter.
        raise InvalidRequest(f"host name {host[:80]!r}: write it in its ASCII form (xn--…)")
    name = _PORT.sub("", host).lower().removesuffix(".")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"the host name is longer than {MAX_NAME_LENGTH} characters")
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"host name {name!r}: use labels of 1 to 63 letters, digits and inner hyphens"
        )
    return name


def normalise_binding(host: str) -> str:
    """Like `normalise`, and accept a wildcard as the whole first label (`*.shop.example.com`).

    Raises:
        InvalidRequest: as `normalise`.
    """
    if not host.startswith("*."):
        return normalise(host)
    name = "*." + normalise(host[2:])
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"the host name is longer than {MAX_NAME_LENGTH} characters")
    return name


def is_wildcard(hostname: str) -> bool:
    """Whether a normalised binding stands for every label in its first place."""
    return hostname.startswith("*.")


def label_error(label: str) -> str | None:
    """Tell what is wrong with a label that an agent chose, or None.

    Length counts bytes. Upper case is fine here; `parse_label` lowers it.
    """
    if not MIN_LABEL_LENGTH <= len(label.encode("utf-8", "surrogatepass")) <= MAX_LABEL_LENGTH:
        return f"subdomain '{label}' must be 3–63 characters long"
    if label.startswith("-") or label.endswith("-"):
        return f"subdomain '{label}' must not start or end with a hyphen"
    # A few letters outside of ASCII have ASCII lower-case forms, hence the first condition.
    if not label.isascii() or not _LABEL_CHARACTERS.issuperset(label.lower()):
        return f"subdomain '{label}' may only contain letters, digits, and hyphens"
    return None


def parse_label(label: str) -> str:
    """Return the label in lower case.

    Raises:
        InvalidRequest: `label_error` has something to say; that is the text.
    """
    problem = label_error(label)
    if problem is not None:
        raise InvalidRequest(problem)
    return label.lower()


def label_under(hostname: str, domains: Collection[str]) -> str | None:
    """Return the single label of `hostname` under one of `domains`, or None.

    A wildcard is no label, and neither is a domain of ours that lies under another one.

    Args:
        hostname: normalised.
        domains: normalised.
    """
    label, dot, parent = hostname.partition(".")
    if not dot or label == "*" or parent not in domains or hostname in domains:
        return None
    return label
