import asyncio
import hashlib
from dataclasses import replace

import pytest

from helpers.clock import FakeClock
from moleport_server.access.authentication import (
    BELIEVED_SECONDS,
    DOUBTED_SECONDS,
    MAX_CACHED,
    MAX_WAITING,
    Authenticator,
)
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.domain.policy import Policy
from moleport_server.domain.token import ADMIN, Credential, Limits, Principal, Token
from moleport_server.errors import RateLimited, StoreError, Unauthenticated
from moleport_server.store.base import TokenRow
from moleport_server.store.memory import MemoryStateStore

PEER = "192.0.2.1"


class CountingStore(MemoryStateStore):
    """The memory store, which also counts look-ups and can be made to hang or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.lookups = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def find_credential(self, sha256: str) -> tuple[Token, Credential] | None:
        self.lookups += 1
        found = await super().find_credential(sha256)
        await self.gate.wait()
        return found

    async def touch_credentials(self, used_at: dict[tuple[str, int], float]) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        await super().touch_credentials(used_at)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def authenticator(store: CountingStore, clock: FakeClock) -> Authenticator:
    return Authenticator(
        store,
        clock,
        read_admin_token=lambda: "admin-secret",
        limiter=KeyedLimiter(10 / 60, 3, clock),
    )


async def add(
    store: MemoryStateStore,
    clock: FakeClock,
    secret: str = "s1",
    *,
    token_id: str = "t1",
    expires_at: float | None = None,
    suspended: bool = False,
    not_after: float | None = None,
) -> Token:
    token = Token(
        id=token_id,
        label="ci",
        created_at=clock.now(),
        expires_at=expires_at,
        suspended=suspended,
    )
    await store.create_token(
        token,
        Credential(
            token_id=token_id,
            revision=1,
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            not_after=not_after,
        ),
    )
    return token


async def test_the_admin_token_proves_the_admin_without_a_lookup(
    authenticator: Authenticator, store: CountingStore
) -> None:
    assert await authenticator.authenticate("admin-secret", address=PEER) == ADMIN
    assert store.lookups == 0


async def test_a_credential_proves_its_token(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    token = await add(store, clock)

    principal = await authenticator.authenticate("s1", address=PEER)

    assert principal == Principal(token=token, revision=1)


@pytest.mark.parametrize("read", [lambda: None, lambda: ""], ids=["none", "empty"])
async def test_without_an_admin_token_nobody_is_admin(
    store: CountingStore, clock: FakeClock, read: object
) -> None:
    assert callable(read)
    authenticator = Authenticator(
        store, clock, read_admin_token=read, limiter=KeyedLimiter(1, 100, clock)
    )

    with pytest.raises(Unauthenticated) as caught:
        await authenticator.authenticate("", address=PEER)
    assert caught.value.missing
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("admin-secret", address=PEER)


@pytest.mark.parametrize("secret", ["wrong", "\ud800", "é" * 10_000])
async def test_an_unknown_secret_of_any_shape_proves_nothing(
    authenticator: Authenticator, secret: str
) -> None:
    with pytest.raises(Unauthenticated, match="invalid token") as caught:
        await authenticator.authenticate(secret, address=PEER)
    assert not caught.value.missing


async def test_the_cache_spares_lookups_and_gets_old(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)

    for _ in range(5):
        await authenticator.authenticate("s1", address=PEER)
    assert store.lookups == 1

    clock.advance(BELIEVED_SECONDS)
    await authenticator.authenticate("s1", address=PEER)
    assert store.lookups == 2


async def test_a_deleted_token_is_refused_at_once_after_forget(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    await authenticator.authenticate("s1", address=PEER)
    await store.delete_token("t1")

    authenticator.forget("t1")

    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("s1", address=PEER)


async def test_a_lookup_that_was_under_way_during_forget_is_not_remembered(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    store.gate.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        early = tasks.create_task(authenticator.authenticate("s1", address=PEER))
        while not store.lookups:
            await asyncio.sleep(0)
        await store.delete_token("t1")
        authenticator.forget("t1")
        store.gate.set()
    assert early.result().token_id == "t1"

    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("s1", address=PEER)


async def test_a_wrong_secret_is_looked_up_once_and_works_soon_after_it_became_right(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("s1", address=PEER)
    assert store.lookups == 1
    await add(store, clock)

    clock.advance(DOUBTED_SECONDS)

    assert (await authenticator.authenticate("s1", address=PEER)).token_id == "t1"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"suspended": True}, "token is suspended or revoked", id="suspended"),
        pytest.param({"expires_at": 60.0}, "token has expired", id="expired"),
        pytest.param({"not_after": 60.0}, "token has expired", id="revision ended"),
    ],
)
async def test_a_credential_that_ended_says_why_even_from_the_cache(
    authenticator: Authenticator,
    store: CountingStore,
    clock: FakeClock,
    changes: dict[str, float],
    text: str,
) -> None:
    timed = {key: value if value is True else clock.now() + 3 for key, value in changes.items()}
    await add(store, clock, **timed)  # type: ignore[arg-type]  # the table mixes keyword types
    if "suspended" not in changes:
        await authenticator.authenticate("s1", address=PEER)
        clock.advance(3)

    for _ in range(10):
        with pytest.raises(Unauthenticated, match=text):
            await authenticator.authenticate("s1", address=PEER)


async def test_failures_are_limited_but_a_correct_credential_never_is(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    for number in range(3):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(f"wrong-{number}", address=PEER)

    with pytest.raises(RateLimited) as caught:
        await authenticator.authenticate("wrong-again", address=PEER)

    assert 0 < caught.value.retry_after <= 60
    assert (await authenticator.authenticate("s1", address=PEER)).token_id == "t1"
    assert await authenticator.authenticate("admin-secret", address=PEER) == ADMIN
    with pytest.raises(Unauthenticated):
        await authenticator.authenticate("wrong", address="192.0.2.2")


async def test_an_ipv6_network_has_one_limit(authenticator: Authenticator) -> None:
    for number in range(3):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate("wrong", address=f"2001:db8::{number}")

    with pytest.raises(RateLimited):
        await authenticator.authenticate("wrong", address="2001:db8::ffff")


async def test_the_line_before_a_slow_store_is_bounded(
    authenticator: Authenticator, store: CountingStore
) -> None:
    store.gate.clear()

    async def attempt(number: int) -> type[Exception]:
        try:
            await authenticator.authenticate(f"wrong-{number}", address=f"10.0.{number}.1")
        except (RateLimited, Unauthenticated) as error:
            return type(error)
        raise AssertionError

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        attempts = [tasks.create_task(attempt(number % 256)) for number in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(RateLimited):
            await authenticator.authenticate("one more", address="192.0.2.77")
        assert store.lookups == 8
        store.gate.set()
    assert {task.result() for task in attempts} == {Unauthenticated}


async def test_cancelled_logins_leave_no_slot_behind(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    store.gate.clear()
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        hanging = [
            tasks.create_task(authenticator.authenticate("s1", address=PEER)) for _ in range(20)
        ]
        await asyncio.sleep(0)
        for task in hanging:
            task.cancel()
    store.gate.set()

    async with asyncio.timeout(20):
        assert (await authenticator.authenticate("s1", address=PEER)).token_id == "t1"


async def test_caches_are_bounded(authenticator: Authenticator, store: CountingStore) -> None:
    for number in range(MAX_CACHED + 10):
        with pytest.raises((Unauthenticated, RateLimited)):
            await authenticator.authenticate(f"wrong-{number}", address=PEER)

    assert len(authenticator._unknown) == MAX_CACHED


async def test_times_of_use_are_written_in_batches(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    await authenticator.authenticate("s1", address=PEER)
    clock.advance(1)
    await authenticator.authenticate("s1", address=PEER)

    await authenticator.flush()

    row = await store.get_token("t1")
    assert row is not None
    assert row.credentials[0].last_used_at == clock.now()


async def test_a_failed_or_cancelled_flush_loses_nothing(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await add(store, clock)
    await authenticator.authenticate("s1", address=PEER)
    store.failure = StoreError("no")
    with pytest.raises(StoreError):
        await authenticator.flush()
    store.failure = None
    store.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await authenticator.flush()
    store.gate.set()

    await authenticator.flush()

    row = await store.get_token("t1")
    assert row is not None
    assert row.credentials[0].last_used_at == clock.now()


async def test_revalidation_tells_whose_sessions_go_on(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    token = await add(store, clock, not_after=clock.now() + 100)
    principal = Principal(token=token, revision=1)

    assert await authenticator.revalidate(ADMIN) == ADMIN
    assert await authenticator.revalidate(principal) == principal
    with pytest.raises(Unauthenticated, match="revision 2 of the token was removed"):
        await authenticator.revalidate(replace(principal, revision=2))
    clock.advance(100)
    with pytest.raises(Unauthenticated, match="token has expired"):
        await authenticator.revalidate(principal)
    await store.delete_token("t1")
    with pytest.raises(Unauthenticated, match="token deleted"):
        await authenticator.revalidate(principal)


@pytest.mark.parametrize("changes", [{"suspended": True}, {"expires_at": 1.0}])
async def test_revalidation_ends_suspended_and_expired_tokens(
    clock: FakeClock, changes: dict[str, float]
) -> None:
    token = Token(id="t1", label="ci", created_at=0.0)
    changed = replace(token, **changes)  # type: ignore[arg-type]  # the table mixes field types
    credential = Credential(token_id="t1", revision=1, sha256="00")

    class OneToken(MemoryStateStore):
        async def get_token(self, token_id: str) -> TokenRow | None:
            return TokenRow(token=changed, credentials=(credential,), tunnel_count=0)

    authenticator = Authenticator(
        OneToken(), clock, read_admin_token=lambda: None, limiter=KeyedLimiter(1, 1, clock)
    )

    with pytest.raises(Unauthenticated):
        await authenticator.revalidate(Principal(token=token, revision=1))
    with pytest.raises(Unauthenticated):
        await authenticator.owner("t1")


async def test_a_principal_comes_with_its_policies_and_follows_them(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    policy = Policy(id="p1", limits=Limits(max_tunnels=2))
    await store.create_policy(policy)
    token = await add(store, clock)
    await store.replace_token(replace(token, policy_ids=("p1",)), version=1)

    first = await authenticator.authenticate("s1", address=PEER)
    await store.replace_policy(replace(policy, limits=Limits(max_tunnels=1)), version=1)
    believed = await authenticator.authenticate("s1", address=PEER)
    authenticator.forget_policy("p1")
    second = await authenticator.authenticate("s1", address=PEER)

    limits = [who.effective.limits.max_tunnels for who in (first, believed, second)]
    assert limits == [2, 2, 1]
    assert (await authenticator.owner("t1")).effective == second.effective


async def test_a_policy_ends_credentials_that_live_too_long(
    authenticator: Authenticator, store: CountingStore, clock: FakeClock
) -> None:
    await store.create_policy(Policy(id="p1", max_lifetime_seconds=60))
    token = await add(store, clock)
    await store.replace_token(replace(token, policy_ids=("p1",)), version=1)

    principal = await authenticator.authenticate("s1", address=PEER)
    clock.advance(60)

    assert principal.ends_at == token.created_at + 60
    with pytest.raises(Unauthenticated, match="expired"):
        await authenticator.authenticate("s1", address=PEER)
    with pytest.raises(Unauthenticated, match="expired"):
        await authenticator.revalidate(principal)
