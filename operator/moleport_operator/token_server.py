"""Port to the tunnel server: the calls for tokens and policies, in the words of the plan.

All calls raise `Conflict` when the object changed since it was seen, `ForeignOwner` and `Rejected` for
what a retry cannot heal, and `ServerUnavailable` for the rest. `server.py` implements them over REST.
"""

from __future__ import annotations

from typing import Protocol

from moleport_operator.plan.records import ServerToken, Slot, TokenWish


class TokenServer(Protocol):
    """Tokens and their credentials."""

    async def get_token(self, token_id: str) -> ServerToken | None:
        """Return a token with its slots, or None."""
        ...

    def listed(self, token_id: str) -> ServerToken | None:
        """Return a token as it was listed a few seconds ago, once, or None.

        Enough to see that all is well; whoever finds something to do asks with `get_token` first.
        """
        ...

    async def put_token(self, token_id: str, wish: TokenWish, etag: str | None) -> ServerToken:
        """Create (no etag) or replace a token.

        Raises:
            Conflict: it exists already, or is not the one of the etag.
        """
        ...

    async def delete_token(self, token_id: str) -> None:
        """Delete a token with everything that it has open; one that is gone is no error."""
        ...

    async def put_credential(
        self, token_id: str, revision: int, sha256: str, not_after: int | None
    ) -> Slot:
        """Create or replace a revision."""
        ...

    async def delete_credential(self, token_id: str, revision: int) -> None:
        """End a revision at once; one that is gone is no error."""
        ...
