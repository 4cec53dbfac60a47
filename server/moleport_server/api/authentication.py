"""Who calls: the bearer token of a request, and what its bearer may do here."""

from typing import Final

from aiohttp import web

from moleport_server.api.ports import Authenticator
from moleport_server.domain.token import ADMIN, Principal
from moleport_server.errors import Unauthenticated

_LONGEST_SECRET: Final = 4096
"""Hashing what strangers send has to stay cheap."""


def bearer_secret(request: web.Request) -> str:
    """Return the secret of the Authorization header.

    Raises:
        Unauthenticated: there is no header, another scheme, or no secret behind it (`missing`).
    """
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated("missing token", missing=True)
    if len(secret) > _LONGEST_SECRET:
        raise Unauthenticated
    return secret


class Gate:
    """Identifies callers.

    With `tokens_are_admin` every valid token counts as the admin, as in the seed's servers.
    """

    def __init__(self, authenticator: Authenticator, *, tokens_are_admin: bool) -> None:
        self._authenticator = authenticator
        self._tokens_are_admin = tokens_are_admin

    async def identify(self, request: web.Request) -> Principal:
        """Return who sent the request.

        Raises:
            Unauthenticated: the token is missing or proves nothing.
            RateLimited: too many wrong tokens from this address.
            StoreError: the token could not be looked up.
        """
        secret = bearer_secret(request)
        principal = await self._authenticator.authenticate(secret, address=request.remote or "")
        return ADMIN if self._tokens_are_admin else principal
