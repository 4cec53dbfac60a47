"""One walk over everything, in groups: which resources have their round next.

Tokens come in the order in which the tunnel server lists them, so that one page of its list spares each token
of a group a question of its own. What a list does not show comes all the same: a token that the server lost,
and every token while the server is away.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from moleport_operator.errors import OperatorError, Rejected
from moleport_operator.queue import Key
from moleport_operator.resources import TOKENS
from moleport_operator.server_bodies import ListedToken

LEAST_LISTED: Final = 4
"""Smaller groups are not worth a list."""
MOST_LISTED: Final = 500
"""Rows of one page: neither side is busy with it for long."""
MOST_PAGES: Final = 3
"""Of one group: where other operators of the cluster own most of the rows, a list finds too few of ours."""


class Pages(Protocol):
    """The list of the tunnel server, page by page."""

    async def look_ahead(
        self, owner_cluster: str, *, after: str | None, limit: int
    ) -> tuple[list[ListedToken], str | None]:
        """List a page of our tokens, and remember for a few seconds what their rounds will want to see.

        Args:
            owner_cluster: marks what is ours.
            after: what the page before returned; None is the first page.
            limit: rows at most.

        Returns:
            The rows, and what the next page comes after; None: there is none.

        Raises:
            Rejected: there is no token any more where the page should begin.
            ServerUnavailable: as every call.
        """
        ...


class Walk:
    """Hands out each key once."""

    def __init__(self, server: Pages, owner_cluster: str, keys: Iterable[Key]) -> None:
        """Begin a walk over keys of all kinds."""
        self._server = server
        self._owner_cluster = owner_cluster
        self._others: deque[Key] = deque()
        self._tokens: dict[Key, None] = {}
        for key in keys:
            if key.plural == TOKENS.plural:
                self._tokens[key] = None
            else:
                self._others.append(key)
        self._after: str | None = None
        self._is_listed = False

    async def group(self, size: int) -> list[Key]:
        """Return the next keys; fewer when no more are left, and sometimes a few more."""
        found: list[Key] = []
        while self._others and len(found) < size:
            found.append(self._others.popleft())
        if (wanted := min(size - len(found), len(self._tokens))) >= LEAST_LISTED:
            found += await self._listed(min(wanted, MOST_LISTED))
        while self._tokens and len(found) < size:
            found.append(self._take(next(iter(self._tokens))))
        return found

    async def _listed(self, wanted: int) -> list[Key]:
        """Return the next tokens of the server's list."""
        found: list[Key] = []
        for _ in range(MOST_PAGES):
            if self._is_listed or len(found) >= wanted:
                break
            try:
                rows, self._after = await self._server.look_ahead(
                    self._owner_cluster, after=self._after, limit=wanted
                )
            except Rejected:
                # The last row of the page before was deleted. What was walked is no longer in our list.
                self._after = None
                break
            except OperatorError:
                break  # their rounds will say so
            self._is_listed = self._after is None
            keys = (Key(TOKENS.plural, row.owner.namespace, row.owner.name) for row in rows)
            found += [self._take(key) for key in keys if key in self._tokens]
        return found

    def _take(self, key: Key) -> Key:
        del self._tokens[key]
        return key
