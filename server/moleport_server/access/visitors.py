"""Visitor rules: the one place that decides whether a visitor may use a tunnel.

`decide` is synchronous and cheap, for the hot path: addresses are compared, and a credential that
was verified in the last minute is recognised by a keyed hash. Only an unknown credential is
`PENDING`: the edge then awaits `verify`, which runs scrypt (hashes of agents) or bcrypt (those of
policies) in two threads of its own, because each verification takes tens of milliseconds and up to
32 MiB. The line before the threads is bounded,
and an address that keeps failing is refused before it gets into it.
"""

import asyncio
import base64
import binascii
import hmac
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from hashlib import sha256
from types import TracebackType
from typing import Final, NamedTuple, Self

from moleport_server.access.addresses import is_admitted, limit_key
from moleport_server.access.authentication import CheckResult
from moleport_server.access.htpasswd import is_bcrypt, verify_bcrypt
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.clock import Clock
from moleport_server.domain.tunnel import BasicCredential, VisitorRules
from moleport_wire.passwords import PasswordHashError
from moleport_wire.passwords import verify_password as verify_scrypt

WORKERS: Final = 2
"""At most 64 MiB of scrypt memory, and a core is left for everybody else."""
MAX_WAITING: Final = 64
"""Some two seconds of work for the two threads."""
REMEMBERED_SECONDS: Final = 60.0
MAX_REMEMBERED: Final = 4096
VERIFY_SECONDS: Final = 10.0
MAX_HEADER_BYTES: Final = 1024
"""Longer credentials are refused unread."""


class Decision(Enum):
    """What to do with a visitor."""

    ALLOW = auto()
    """Let it pass."""
    DENY_ADDRESS = auto()
    """Its address is outside of the allowed networks, or inside of a denied one: 403."""
    NEEDS_TLS = auto()
    """It came without TLS where that is required: 403."""
    HTTP_DENIED = auto()
    """Nobody may, whatever they show: 403."""
    NEEDS_AUTH = auto()
    """No credential, or a wrong one: 401 with a realm."""
    PENDING = auto()
    """Only from `decide`: await `verify`."""
    RATE_LIMITED = auto()
    """Too many wrong credentials from this address: 429."""
    BUSY = auto()
    """Too many verifications are waiting: 503."""


class _Given(NamedTuple):
    """A credential as the visitor gave it."""

    user: bytes
    password: bytes


class _Remembered(NamedTuple):
    is_right: bool
    until: float
    """Monotonic seconds."""


def verify_password(password: bytes, password_hash: str) -> bool:
    """Whether a password fits its hash, of whichever kind; blocks."""
    if is_bcrypt(password_hash):
        return verify_bcrypt(password, password_hash)
    return verify_scrypt(password, password_hash)


class VisitorGate:
    """Decides about visitors; owns the threads that verify passwords.

    Args:
        clock: for how long results are remembered.
        limiter: of wrong credentials per address.
        key: 32 random bytes of this process, under which credentials are remembered.
        verify_password: checks a password against its hash, in a thread.
    """

    def __init__(
        self,
        clock: Clock,
        limiter: KeyedLimiter,
        *,
        key: bytes,
        verify_password: Callable[[bytes, str], bool] = verify_password,
    ) -> None:
        self._clock = clock
        self._limiter = limiter
        self._key = key
        self._verify_password = verify_password
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._is_closed = False
        self.observe: Callable[[CheckResult], None] = lambda _: None
        """Called with the result of each password that was checked, not of remembered ones."""
        self._executor = ThreadPoolExecutor(WORKERS, thread_name_prefix="visitor-passwords")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what waits for a thread; a running verification ends by itself. Idempotent.

        Whoever still awaits `verify` is cancelled, so end the connections first.
        """
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)

    def decide(
        self,
        rules: VisitorRules,
        *,
        address: str,
        authorization: bytes | None,
        is_secure: bool = True,
    ) -> Decision:
        """Decide at once, or say `PENDING`.

        Args:
            rules: of the tunnel.
            address: IP address of the visitor, without port.
            authorization: value of the Authorization header.
            is_secure: whether it came by TLS, here or at a trusted proxy.
        """
        if not is_admitted(rules, address):
            return Decision.DENY_ADDRESS
        if rules.http_denied is not None:
            return Decision.HTTP_DENIED
        if rules.requires_tls and not is_secure:
            return Decision.NEEDS_TLS
        if rules.basic_auth is None:
            return Decision.ALLOW
        given = _parse_basic(authorization)
        if given is None or not rules.basic_auth:
            return Decision.NEEDS_AUTH
        remembered = self._recall(self._mark(given, _credential_of(rules.basic_auth, given)))
        if remembered is not None:
            return Decision.ALLOW if remembered else Decision.NEEDS_AUTH
        if self._limiter.wait(limit_key(address)):
            return Decision.RATE_LIMITED
        return Decision.PENDING

    async def verify(
        self, rules: VisitorRules, *, address: str, authorization: bytes | None
    ) -> Decision:
        """Decide about a credential that `decide` called pending; never returns `PENDING`.

        Requests that bring the same credential at the same time share one verification.
        Cancellation is safe: the verification goes on for the others and for the memory. TLS is not
        asked for again.
        """
        decision = self.decide(rules, address=address, authorization=authorization)
        given = _parse_basic(authorization)
        if decision is not Decision.PENDING or given is None or not rules.basic_auth:
            return decision
        credential = _credential_of(rules.basic_auth, given)
        mark = self._mark(given, credential)
        running = self._running.get(mark)
        if running is None:
            if self._is_closed or len(self._running) >= MAX_WAITING:
                return Decision.BUSY
            running = self._start(mark, given, credential)
        try:
            async with asyncio.timeout(VERIFY_SECONDS):
                is_right = await asyncio.shield(running)
        except TimeoutError:
            self.observe("failed")
            return Decision.BUSY
        except PasswordHashError:
            # Rules are checked when they are made; should a bad hash slip in, nobody passes.
            is_right = False
        if is_right:
            self.observe("accepted")
            return Decision.ALLOW
        if self._limiter.take(limit_key(address)):
            self.observe("limited")
            return Decision.RATE_LIMITED
        self.observe("rejected")
        return Decision.NEEDS_AUTH

    def _start(
        self, mark: bytes, given: _Given, credential: BasicCredential
    ) -> asyncio.Future[bool]:
        running = asyncio.get_running_loop().run_in_executor(
            self._executor, self._check, given, credential
        )
        self._running[mark] = running

        def finish(done: asyncio.Future[bool]) -> None:
            del self._running[mark]
            if not done.cancelled() and done.exception() is None:
                self._remember(mark, is_right=done.result())

        running.add_done_callback(finish)
        return running

    def _check(self, given: _Given, credential: BasicCredential) -> bool:
        # The password is verified first, so that an unknown user takes as long as a known one.
        is_right = self._verify_password(given.password, credential.password_hash)
        return is_right and _is_user(credential, given)

    def _recall(self, mark: bytes) -> bool | None:
        remembered = self._remembered.get(mark)
        if remembered is None:
            return None
        if self._clock.monotonic() >= remembered.until:
            del self._remembered[mark]
            return None
        self._remembered.move_to_end(mark)
        return remembered.is_right

    def _remember(self, mark: bytes, *, is_right: bool) -> None:
        until = self._clock.monotonic() + REMEMBERED_SECONDS
        self._remembered[mark] = _Remembered(is_right, until)
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _mark(self, given: _Given, credential: BasicCredential) -> bytes:
        """Return what stands for a credential and the rule it is checked by.

        Useless without the key: a dump of the memory tells no password.
        """
        parts = (
            given.user,
            given.password,
            credential.user.encode(),
            credential.password_hash.encode(),
        )
        text = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return hmac.digest(self._key, text, sha256)


def _credential_of(credentials: tuple[BasicCredential, ...], given: _Given) -> BasicCredential:
    """Return the user's credential, or for an unknown user any, to spend the same time on."""
    for credential in credentials:
        if _is_user(credential, given):
            return credential
    return credentials[0]


def _is_user(credential: BasicCredential, given: _Given) -> bool:
    return credential.user.encode() == given.user


def _parse_basic(authorization: bytes | None) -> _Given | None:
    """Return the credential of an Authorization header (RFC 7617), or None."""
    if authorization is None or len(authorization) > MAX_HEADER_BYTES:
        return None
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    return _Given(user, password) if colon else None
