"""Who calls: the bearer token of a request, and what its bearer may do here."""

from typing import Final

from aiohttp import web

from moleport_server.access.addresses import is_inside
from moleport_server.api.ports import Authenticator
from moleport_server.domain.token import ADMIN, Principal
from moleport_server.domain.tunnel import IPNetwork
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

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        tokens_are_admin: bool,
        trusted: tuple[IPNetwork, ...] = (),
    ) -> None:
        self._authenticator = authenticator
        self._trusted = trusted
        self._tokens_are_admin = tokens_are_admin

    async def identify(self, request: web.Request, *, may_be_trusted: bool = False) -> Principal:
        """Return who sent the request.

        With `may_be_trusted` a caller from a trusted address that shows no token is the admin.

        Raises:
            Unauthenticated: the token is missing or proves nothing.
            RateLimited: too many wrong tokens from this address.
            StoreError: the token could not be looked up.
        """
        is_trusted = bool(self._trusted) and is_inside(request.remote or "", self._trusted)
        if may_be_trusted and is_trusted and "Authorization" not in request.headers:
            return ADMIN
        secret = bearer_secret(request)
        principal = await self._authenticator.authenticate(secret, address=request.remote or "")
        return ADMIN if self._tokens_are_admin else principal
