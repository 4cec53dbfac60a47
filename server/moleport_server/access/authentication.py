"""Authentication: from a secret to the principal that it proves.

The secret is looked up by its SHA-256, so neither a cache nor the store ever holds it. Successful
look-ups are believed for a few seconds, which spares the store the poll of a dashboard; a token that
was changed or deleted, or whose policy was, is forgotten at once through `forget`. The principal comes
with its policies merged in, so whoever decides later asks nobody else.

Failures are limited per address, yet a correct credential is never limited: colleagues behind one
NAT do not lock each other out. A limited address therefore still gets its look-ups, but all limited
addresses together share two slots, so guessing costs the store no more than a trickle. Only when
the line before the slots is full are look-ups refused unseen.
"""

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Literal, NamedTuple, NoReturn, Protocol

from moleport_server.access.addresses import limit_key
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.clock import Clock
from moleport_server.domain.policy import Policy, merge, nothing_allowed
from moleport_server.domain.token import ADMIN, Credential, Effective, Principal, Token
from moleport_server.errors import RateLimited, StoreError, Unauthenticated
from moleport_server.store.base import PolicyStore, TokenStore

BELIEVED_SECONDS: Final = 5.0
"""How long a successful look-up stands for the next ones."""
DOUBTED_SECONDS: Final = 2.0
"""How long a failed look-up does; short, because the credential may be being created now."""
MAX_CACHED: Final = 4096
LOOKUP_SECONDS: Final = 5.0
"""Deadline for a turn and for the store; an agent waits 10 s for its answer."""
LOOKUPS: Final = 8
LIMITED_LOOKUPS: Final = 2
MAX_WAITING: Final = 256
"""Look-ups in line before further ones are refused."""


CallerKind = Literal["agent", "api"]
CheckResult = Literal["accepted", "rejected", "limited", "failed"]
"""What became of a credential; `failed`: the store did not answer, so nothing is known."""


class CredentialStore(TokenStore, PolicyStore, Protocol):
    """The part of the state store that tells who somebody is and what holds for them."""


class _Known(NamedTuple):
    token: Token
    credential: Credential
    merged: Effective | None
    until: float
    """Monotonic seconds."""


def merge_named(token: Token, policies: Iterable[Policy]) -> Effective:
    """Return what holds for a token, given the policies that the store has of those it names.

    The store lets no token name a missing one; should one slip through, nothing is allowed.
    """
    known = {policy.id: policy for policy in policies}
    return merge(token, [known.get(name) or nothing_allowed(name) for name in token.policy_ids])


class _Lane:
    """A few look-ups at a time, and a bounded line before them."""

    def __init__(self, slots: int) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.waiting = 0


class Authenticator:
    """Proves secrets, and remembers when credentials were used.

    The owner calls `flush` every few seconds and before it closes the store.
    """

    def __init__(
        self,
        store: CredentialStore,
        clock: Clock,
        *,
        read_admin_token: Callable[[], str | None],
        limiter: KeyedLimiter,
    ) -> None:
        self._store = store
        self._clock = clock
        self._read_admin_token = read_admin_token
        self._limiter = limiter
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._used_at: dict[tuple[str, int], float] = {}
        self._lane = _Lane(LOOKUPS)
        self._limited_lane = _Lane(LIMITED_LOOKUPS)
        self._generation = 0
        self.observe: Callable[[CallerKind, CheckResult], None] = lambda _kind, _result: None
        """Called with the result of each credential that was checked."""

    async def authenticate(
        self, secret: str, *, address: str, kind: CallerKind = "api"
    ) -> Principal:
        """Return who the secret proves its bearer to be.

        Cancellation is safe.

        Args:
            secret: as it came; neither kept nor logged.
            address: IP address of the peer, for the limit of failures.
            kind: who brings it, for `observe`.

        Raises:
            Unauthenticated: the secret is empty (`missing`), unknown, expired or suspended.
            RateLimited: it is wrong, and so were too many before it from this address.
            StoreError: the store failed or did not answer in time.
        """
        if not secret:
            raise Unauthenticated("missing token", missing=True)
        result: CheckResult = "failed"
        try:
            principal = await self._check(secret, address)
            result = "accepted"
        except Unauthenticated:
            result = "rejected"
            raise
        except RateLimited:
            result = "limited"
            raise
        finally:
            self.observe(kind, result)
        return principal

    async def _check(self, secret: str, address: str) -> Principal:
        # Lone surrogates come in with JSON and with odd headers; they must fail, not crash.
        digest = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
        if self._is_admin(digest):
            return ADMIN
        known = self._recall(digest)
        if known is None and not self._is_doubted(digest):
            known = await self._look_up(digest, limit_key(address))
        if known is None:
            self._fail(address)
        return self._accept(known)

    async def revalidate(self, principal: Principal) -> Principal:
        """Return the principal as it is now, with today's token and policies.

        Asks the store, not the cache. The admin stays: a changed admin token is for the next login.

        Raises:
            Unauthenticated: its sessions have to end, and why: the token is gone, expired or
                suspended, or the revision which proved it has ended.
            StoreError: the store failed or did not answer in time; nothing is known then, so
                leave the session alone and ask again.
        """
        if principal.token is None:
            return principal
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                row = await self._store.get_token(principal.token.id)
                merged = None if row is None else await self._merge(row.token)
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        if row is None:
            raise Unauthenticated("token deleted")
        slots = [slot for slot in row.credentials if slot.revision == principal.revision]
        if not slots:
            raise Unauthenticated(f"revision {principal.revision} of the token was removed")
        return self._prove(row.token, slots[0], merged)

    async def owner(self, token_id: str) -> Principal:
        """Return a token as it is now, without any credential: the owner of its tunnels.

        Raises:
            Unauthenticated: it is gone, expired or suspended.
            StoreError: the store failed or did not answer in time.
        """
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                row = await self._store.get_token(token_id)
                merged = None if row is None else await self._merge(row.token)
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        if row is None:
            raise Unauthenticated("token deleted")
        self._check_token(row.token)
        return Principal(token=row.token, merged=merged)

    async def _merge(self, token: Token) -> Effective | None:
        if not token.policy_ids:
            return None
        return merge_named(token, await self._store.find_policies(token.policy_ids))

    def forget(self, token_id: str) -> None:
        """Drop what is remembered of a token; call it after each change of the token.

        Failed look-ups are dropped as well, so that a new credential works at once.
        """
        self._generation += 1
        self._unknown.clear()
        gone = [digest for digest, known in self._known.items() if known.token.id == token_id]
        for digest in gone:
            del self._known[digest]

    def forget_policy(self, policy_id: str) -> None:
        """Drop what is remembered of all tokens with a policy; call it after each change of it."""
        named = {
            known.token.id for known in self._known.values() if policy_id in known.token.policy_ids
        }
        self._generation += 1
        for token_id in named:
            self.forget(token_id)

    async def flush(self) -> None:
        """Write the times of use that came up since the last call.

        Cancelled or failed, it loses none of them: the next call writes them.

        Raises:
            StoreError: the store failed; try again later.
        """
        if not self._used_at:
            return
        batch, self._used_at = self._used_at, {}
        try:
            await self._store.touch_credentials(batch)
        except BaseException:
            self._used_at = batch | self._used_at
            raise

    def _is_admin(self, digest: str) -> bool:
        token = self._read_admin_token()
        if not token:
            return False
        expected = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(expected, digest)

    def _recall(self, digest: str) -> _Known | None:
        known = self._known.get(digest)
        if known is None:
            return None
        if self._clock.monotonic() >= known.until:
            del self._known[digest]
            return None
        self._known.move_to_end(digest)
        return known

    def _is_doubted(self, digest: str) -> bool:
        until = self._unknown.get(digest)
        if until is None:
            return False
        if self._clock.monotonic() >= until:
            del self._unknown[digest]
            return False
        return True

    async def _look_up(self, digest: str, key: str) -> _Known | None:
        retry_after = self._limiter.wait(key)
        lane = self._limited_lane if retry_after else self._lane
        if lane.waiting >= MAX_WAITING:
            raise RateLimited("too many logins at the moment", max(retry_after, 1.0))
        generation = self._generation
        lane.waiting += 1
        try:
            async with asyncio.timeout(LOOKUP_SECONDS), lane.slots:
                found = await self._store.find_credential(digest)
                merged = None if found is None else await self._merge(found[0])
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        finally:
            lane.waiting -= 1
        now = self._clock.monotonic()
        known = None if found is None else _Known(*found, merged, now + BELIEVED_SECONDS)
        if generation == self._generation:
            # Otherwise a token changed while the store answered: the answer may be outdated.
            self._remember(digest, known, now)
        return known

    def _remember(self, digest: str, known: _Known | None, now: float) -> None:
        if known is None:
            self._unknown[digest] = now + DOUBTED_SECONDS
            if len(self._unknown) > MAX_CACHED:
                self._unknown.popitem(last=False)
        else:
            self._known[digest] = known
            if len(self._known) > MAX_CACHED:
                self._known.popitem(last=False)

    def _accept(self, known: _Known) -> Principal:
        """Check what may end without the store being told: time, and the flag of suspension.

        Whoever gets here has proved to own the credential, so the true reason may be told, and
        this is no guess that counts against the address.
        """
        principal = self._prove(known.token, known.credential, known.merged)
        self._used_at[known.token.id, principal.revision] = self._clock.now()
        return principal

    def _prove(self, token: Token, credential: Credential, merged: Effective | None) -> Principal:
        self._check_token(token)
        principal = Principal(token=token, revision=credential.revision, merged=merged)
        ends = (token.expires_at, credential.ends_at(token, principal.effective))
        ends_at = min((end for end in ends if end is not None), default=None)
        if ends_at is not None and self._clock.now() >= ends_at:
            raise Unauthenticated("token has expired")
        return replace(principal, ends_at=ends_at)

    def _check_token(self, token: Token) -> None:
        if token.suspended:
            raise Unauthenticated("token is suspended or revoked")
        if not token.is_valid(self._clock.now()):
            raise Unauthenticated("token has expired")

    def _fail(self, address: str) -> NoReturn:
        retry_after = self._limiter.take(limit_key(address))
        if retry_after:
            raise RateLimited("too many failed auth attempts", retry_after)
        raise Unauthenticated
