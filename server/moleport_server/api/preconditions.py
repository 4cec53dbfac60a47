"""Conditional requests (RFC 9110 section 13): change an object only in the state that was read.

An entity tag is the version of the object in quotes. Only strong comparison is of use here, so weak
tags never match.
"""

import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from moleport_server.api.problems import PreconditionFailed
from moleport_server.errors import InvalidRequest

_TAGS: Final = re.compile(r'\s*(?:W/)?"[^"]*"(?:\s*,\s*(?:W/)?"[^"]*")*\s*')
_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


@dataclass(frozen=True, slots=True)
class Preconditions:
    """What a request says about the state of its object; None is no condition."""

    match: frozenset[str] | None = None
    """Tags of which it must have one; `*` is any."""
    none_match: frozenset[str] | None = None
    """Tags of which it must have none; `*` is any."""

    @classmethod
    def of(cls, request: web.Request) -> "Preconditions":
        """Read the conditions of a request.

        Raises:
            InvalidRequest: a header is no list of entity tags.
        """
        return cls(_tags(request, "If-Match"), _tags(request, "If-None-Match"))

    def check(self, version: int | None) -> None:
        """Check the object's version; None: there is no object.

        Raises:
            PreconditionFailed: a condition does not hold.
        """
        known = set() if version is None else {"*", str(version)}
        if self.match is not None and not self.match & known:
            state = "there is none" if version is None else f"it has the ETag {etag(version)}"
            raise PreconditionFailed(f"If-Match does not hold: {state}")
        if self.none_match is not None and self.none_match & known:
            raise PreconditionFailed(
                f"If-None-Match does not hold: it has the ETag {etag(version or 0)}"
            )


def _tags(request: web.Request, name: str) -> frozenset[str] | None:
    values = request.headers.getall(name, ())
    if not values:
        return None
    text = ",".join(values)
    if text.strip() == "*":
        return frozenset("*")
    if _TAGS.fullmatch(text) is None:
        raise InvalidRequest(f'{name} must be * or entity tags in quotes, such as "7"')
    return frozenset(tag for weak, tag in _TAG.findall(text) if not weak)
