import asyncio
import base64
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clock import FakeClock
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.access.visitors import (
    MAX_REMEMBERED,
    MAX_WAITING,
    REMEMBERED_SECONDS,
    WORKERS,
    Decision,
    VisitorGate,
)
from moleport_server.domain.tunnel import OPEN, BasicCredential, VisitorRules
from moleport_wire.passwords import hash_password, verify_password

PEER = "192.0.2.1"
KEY = b"k" * 32
BCRYPT = BasicCredential(
    user="eve", password_hash=bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
)


def phc(password: str, salt: bytes = b"salt") -> str:
    return hash_password(password, salt, log_n=4, r=1, p=1)


RULES = VisitorRules(
    basic_auth=(
        BasicCredential(user="ann", password_hash=phc("secret")),
        BasicCredential(user="bob", password_hash=phc("other")),
    )
)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


class Verifier:
    """Counts verifications, and holds them while `may_run` is not set."""

    def __init__(self) -> None:
        self.count = 0
        self.running = 0
        self.most_running = 0
        self.may_run = threading.Event()
        self.may_run.set()
        self._lock = threading.Lock()

    def __call__(self, password: bytes, password_hash: str) -> bool:
        with self._lock:
            self.count += 1
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        assert self.may_run.wait(10)
        with self._lock:
            self.running -= 1
        return verify_password(password, password_hash)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def verifier() -> Verifier:
    return Verifier()


@pytest.fixture
async def gate(clock: FakeClock, verifier: Verifier) -> AsyncIterator[VisitorGate]:
    limiter = KeyedLimiter(10 / 60, 3, clock)
    async with VisitorGate(clock, limiter, key=KEY, verify_password=verifier) as gate:
        yield gate
    verifier.may_run.set()


async def test_a_tunnel_without_rules_is_open(gate: VisitorGate) -> None:
    assert gate.decide(OPEN, address=PEER, authorization=None) is Decision.ALLOW


@pytest.mark.parametrize(
    ("cidrs", "decision"),
    [
        pytest.param(("192.0.2.0/24",), Decision.ALLOW, id="inside"),
        pytest.param(("10.0.0.0/8",), Decision.DENY_ADDRESS, id="outside"),
        pytest.param((), Decision.DENY_ADDRESS, id="nobody"),
    ],
)
async def test_addresses_are_compared_at_once(
    gate: VisitorGate, cidrs: tuple[str, ...], decision: Decision
) -> None:
    rules = VisitorRules(allowed_cidrs=tuple(map(ip_network, cidrs)))

    assert gate.decide(rules, address=PEER, authorization=None) is decision


async def test_the_address_is_checked_before_the_password(gate: VisitorGate) -> None:
    rules = replace(RULES, allowed_cidrs=())

    decision = gate.decide(rules, address=PEER, authorization=basic("ann", "secret"))

    assert decision is Decision.DENY_ADDRESS


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(None, id="none"),
        pytest.param(b"", id="empty"),
        pytest.param(b"Basic", id="no credential"),
        pytest.param(b"Basic !!!", id="no base64"),
        pytest.param(b"Basic " + base64.b64encode(b"ann"), id="no colon"),
        pytest.param(b"Bearer abc", id="other scheme"),
        pytest.param(b"Basic " + b"A" * 2000, id="too long"),
    ],
)
async def test_what_is_no_credential_needs_one_and_costs_nothing(
    gate: VisitorGate, verifier: Verifier, authorization: bytes | None
) -> None:
    assert gate.decide(RULES, address=PEER, authorization=authorization) is Decision.NEEDS_AUTH
    assert (
        await gate.verify(RULES, address=PEER, authorization=authorization) is Decision.NEEDS_AUTH
    )
    assert verifier.count == 0


async def test_an_empty_list_of_users_lets_nobody_pass(gate: VisitorGate) -> None:
    rules = VisitorRules(basic_auth=())

    assert (
        await gate.verify(rules, address=PEER, authorization=basic("ann", "secret"))
        is Decision.NEEDS_AUTH
    )


async def test_a_right_password_is_verified_once_and_then_known_for_a_minute(
    gate: VisitorGate, verifier: Verifier, clock: FakeClock
) -> None:
    header = basic("ann", "secret")

    assert gate.decide(RULES, address=PEER, authorization=header) is Decision.PENDING
    assert await gate.verify(RULES, address=PEER, authorization=header) is Decision.ALLOW
    assert gate.decide(RULES, address="192.0.2.9", authorization=header) is Decision.ALLOW
    assert verifier.count == 1
    clock.advance(REMEMBERED_SECONDS)
    assert gate.decide(RULES, address=PEER, authorization=header) is Decision.PENDING


@pytest.mark.parametrize(
    ("user", "password"),
    [
        pytest.param("ann", "other", id="password of another user"),
        pytest.param("eve", "secret", id="unknown user with a password that fits"),
        pytest.param("", "", id="empty"),
    ],
)
async def test_a_wrong_credential_is_verified_once_whoever_it_names(
    gate: VisitorGate, verifier: Verifier, user: str, password: str
) -> None:
    header = basic(user, password)

    assert await gate.verify(RULES, address=PEER, authorization=header) is Decision.NEEDS_AUTH
    assert gate.decide(RULES, address=PEER, authorization=header) is Decision.NEEDS_AUTH
    assert verifier.count == 1


async def test_a_changed_password_forgets_the_old_one(gate: VisitorGate) -> None:
    header = basic("ann", "secret")
    await gate.verify(RULES, address=PEER, authorization=header)
    changed = VisitorRules(basic_auth=(BasicCredential(user="ann", password_hash=phc("new")),))

    assert await gate.verify(changed, address=PEER, authorization=header) is Decision.NEEDS_AUTH


async def test_an_address_that_keeps_failing_is_refused_unverified_but_known_ones_pass(
    gate: VisitorGate, verifier: Verifier
) -> None:
    good = basic("ann", "secret")
    await gate.verify(RULES, address=PEER, authorization=good)
    for number in range(3):
        await gate.verify(RULES, address=PEER, authorization=basic("ann", f"guess-{number}"))
    before = verifier.count

    decision = await gate.verify(RULES, address=PEER, authorization=basic("ann", "guess-9"))

    assert decision is Decision.RATE_LIMITED
    assert verifier.count == before
    assert gate.decide(RULES, address=PEER, authorization=good) is Decision.ALLOW
    assert (
        gate.decide(RULES, address="192.0.2.9", authorization=basic("ann", "x")) is Decision.PENDING
    )


async def test_requests_with_the_same_credential_share_one_verification(
    gate: VisitorGate, verifier: Verifier
) -> None:
    verifier.may_run.clear()
    header = basic("ann", "secret")

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(gate.verify(RULES, address=PEER, authorization=header))
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        waiting[0].cancel()
        verifier.may_run.set()

    assert {task.result() for task in waiting[1:]} == {Decision.ALLOW}
    assert waiting[0].cancelled()
    assert verifier.count == 1


async def test_threads_and_the_line_before_them_are_bounded(
    gate: VisitorGate, verifier: Verifier
) -> None:
    verifier.may_run.clear()

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        waiting = [
            tasks.create_task(
                gate.verify(
                    RULES, address=f"10.0.0.{number}", authorization=basic("a", str(number))
                )
            )
            for number in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        beyond = await gate.verify(RULES, address=PEER, authorization=basic("ann", "secret"))
        verifier.may_run.set()

    assert beyond is Decision.BUSY
    assert {task.result() for task in waiting} == {Decision.NEEDS_AUTH}
    assert verifier.most_running <= WORKERS


async def test_a_broken_hash_lets_nobody_pass(gate: VisitorGate) -> None:
    rules = VisitorRules(basic_auth=(BasicCredential(user="ann", password_hash="$broken"),))

    assert (
        await gate.verify(rules, address=PEER, authorization=basic("ann", ""))
        is Decision.NEEDS_AUTH
    )


async def test_a_closed_gate_is_busy_and_closes_twice(gate: VisitorGate) -> None:
    gate.close()
    gate.close()

    decision = await gate.verify(RULES, address=PEER, authorization=basic("ann", "secret"))

    assert decision is Decision.BUSY


async def test_the_memory_is_bounded_and_holds_no_password(gate: VisitorGate) -> None:
    for number in range(MAX_REMEMBERED + 5):
        gate._remember(b"%d" % number, is_right=True)
    assert len(gate._remembered) == MAX_REMEMBERED

    await gate.verify(RULES, address=PEER, authorization=basic("ann", "secret"))

    assert not any(b"secret" in mark for mark in gate._remembered)


@given(st.binary(max_size=80))
def test_no_header_makes_the_decision_fail(header: bytes) -> None:
    clock = FakeClock()
    gate = VisitorGate(clock, KeyedLimiter(1, 1, clock), key=KEY)

    decision = gate.decide(RULES, address=PEER, authorization=header)
    gate.close()

    assert decision in {Decision.NEEDS_AUTH, Decision.PENDING}


@pytest.mark.parametrize(
    ("rules", "is_secure", "decision"),
    [
        (VisitorRules(requires_tls=True), True, Decision.ALLOW),
        (VisitorRules(requires_tls=True), False, Decision.NEEDS_TLS),
        (VisitorRules(http_denied="why"), True, Decision.HTTP_DENIED),
        (VisitorRules(denied_cidrs=(ip_network("192.0.2.0/24"),)), True, Decision.DENY_ADDRESS),
        (VisitorRules(denied_cidrs=(ip_network("10.0.0.0/8"),)), True, Decision.ALLOW),
        (
            VisitorRules(
                allowed_cidrs=(ip_network("192.0.2.0/24"),),
                denied_cidrs=(ip_network("192.0.2.1/32"),),
            ),
            True,
            Decision.DENY_ADDRESS,
        ),
        (
            VisitorRules(denied_cidrs=(ip_network("192.0.2.0/24"),), http_denied="why"),
            False,
            Decision.DENY_ADDRESS,
        ),
    ],
    ids=["TLS", "no TLS", "closed", "denied", "not denied", "denied in allowed", "address first"],
)
async def test_what_policies_demand_is_decided_at_once(
    clock: FakeClock, rules: VisitorRules, is_secure: bool, decision: Decision
) -> None:
    async with VisitorGate(clock, KeyedLimiter(1, 5, clock), key=KEY) as gate:
        decided = gate.decide(rules, address=PEER, authorization=None, is_secure=is_secure)

    assert decided is decision
    assert not rules.is_open


async def test_a_peer_without_an_address_is_not_outside_of_denied_networks(
    clock: FakeClock,
) -> None:
    rules = VisitorRules(denied_cidrs=(ip_network("192.0.2.0/24"),))
    async with VisitorGate(clock, KeyedLimiter(1, 5, clock), key=KEY) as gate:
        assert gate.decide(rules, address="", authorization=None) is Decision.DENY_ADDRESS


@pytest.mark.parametrize(
    ("password", "decision"), [("secret", Decision.ALLOW), ("wrong", Decision.NEEDS_AUTH)]
)
async def test_hashes_of_policies_are_bcrypt(
    clock: FakeClock, password: str, decision: Decision
) -> None:
    rules = VisitorRules(basic_auth=(BCRYPT,))
    async with VisitorGate(clock, KeyedLimiter(1, 5, clock), key=KEY) as gate:
        authorization = basic("eve", password)

        assert gate.decide(rules, address=PEER, authorization=authorization) is Decision.PENDING
        verified = await gate.verify(rules, address=PEER, authorization=authorization)

        assert verified is decision
        assert gate.decide(rules, address=PEER, authorization=authorization) is decision
