import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from helpers.clock import FakeClock
from helpers.operator_records import FACTS, body
from moleport_operator.breaker import FAILURES_TO_OPEN, Breaker
from moleport_operator.cache import Cache
from moleport_operator.controller import REJECTED_SECONDS, Controller
from moleport_operator.errors import Conflict, Denied, Rejected, ServerUnavailable
from moleport_operator.metrics import Instruments
from moleport_operator.policy_reconciler import PolicyOutcome
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import POLICIES, TOKENS
from moleport_operator.token_reconciler import TokenOutcome

SHOP = Key("tunneltokens", "default", "shop")
ALL = {"targetRefs": [{"kind": "TunnelToken"}]}


class Rig:
    """A controller whose rounds end as the test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.cache = Cache()
        self.queue = WorkQueue(self.clock, lambda: 0.5)
        self.breaker = Breaker(self.clock)
        self.registry = CollectorRegistry()
        self.rounds: list[str] = []
        self.outcome: TokenOutcome | PolicyOutcome | Exception = TokenOutcome(recheck_at=None)
        self.controller = Controller(
            cache=self.cache,
            queue=self.queue,
            breaker=self.breaker,
            tokens=self,  # type: ignore[arg-type]  # has the one method that is called
            policies=self,  # type: ignore[arg-type]  # likewise
            instruments=Instruments.make(self.registry),
            clock=self.clock,
            random=lambda: 0.5,
            facts=lambda: FACTS,
        )

    async def reconcile(self, resource: Any, *_: Any, **__: Any) -> TokenOutcome | PolicyOutcome:
        self.rounds.append(resource.meta.name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def work(self) -> None:
        """Run the workers until nothing is due."""
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            worker = group.create_task(self.controller.work())
            for _ in range(20):
                await asyncio.sleep(0)
            worker.cancel()


async def test_a_new_token_gets_a_round_and_its_status_none() -> None:
    rig = Rig()
    rig.controller.heard("tunneltokens", "ADDED", body())
    await rig.work()
    rig.controller.heard("tunneltokens", "MODIFIED", body(status={"revision": 1}))
    await rig.work()

    assert rig.rounds == ["shop"]


async def test_a_write_is_noted_once_it_changed_something() -> None:
    rig = Rig()

    def noted() -> float | None:
        name, labels = "last_write_timestamp_seconds", {"resource": "tunneltokens"}
        return rig.registry.get_sample_value(f"moleport_operator_{name}", labels)

    rig.controller.heard("tunneltokens", "ADDED", body())
    rig.clock.advance(100)
    rig.controller.remember(TOKENS, body())
    unchanged = noted()
    rig.controller.remember(TOKENS, body(resourceVersion="2"))

    assert unchanged is None
    assert noted() == rig.clock.now()


async def test_a_token_that_is_gone_gets_none() -> None:
    rig = Rig()
    rig.controller.heard("tunneltokens", "ADDED", body())
    rig.controller.heard("tunneltokens", "DELETED", body())

    await rig.work()

    assert rig.rounds == []


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Conflict("x"), 0.5),
        (Denied("x"), 0.5),
        (Rejected("x", "y"), REJECTED_SECONDS),
        (ServerUnavailable("x", retry_after=9), 9 * 1.15),
        (RuntimeError("a bug"), 0.5),
    ],
    ids=["conflict", "denied", "rejected", "slow down", "bug"],
)
async def test_the_end_of_a_round_says_when_the_next_is(error: Exception, seconds: float) -> None:
    rig = Rig()
    rig.outcome = error
    rig.controller.heard("tunneltokens", "ADDED", body())
    await rig.work()

    rig.clock.advance(seconds - 0.01)
    await rig.work()
    before = len(rig.rounds)
    rig.clock.advance(0.02)
    await rig.work()

    assert (before, len(rig.rounds)) == (1, 2)


async def test_what_time_makes_due_comes_in_time() -> None:
    rig = Rig()
    rig.outcome = TokenOutcome(recheck_at=int(rig.clock.now()) + 60)
    rig.controller.heard("tunneltokens", "ADDED", body())
    await rig.work()

    rig.clock.advance(60)
    await rig.work()

    assert rig.rounds == ["shop", "shop"]


async def test_the_return_of_the_server_brings_those_back_who_waited() -> None:
    rig = Rig()
    rig.outcome = ServerUnavailable("down", retry_after=500)
    rig.controller.heard("tunneltokens", "ADDED", body())
    await rig.work()
    for _ in range(FAILURES_TO_OPEN):
        rig.breaker.failed("down")

    rig.breaker.succeeded()
    rig.clock.advance(1)
    await rig.work()

    assert rig.rounds == ["shop", "shop"]


async def test_a_policy_gives_its_tokens_a_round() -> None:
    rig = Rig()
    rig.cache.put(TOKENS, body())

    rig.controller.seen(POLICIES, body("strict", spec=ALL))

    keys = {await rig.queue.take() for _ in range(rig.queue.depth)}
    assert keys == {SHOP, Key("tunnelpolicies", "default", "strict")}


async def test_passwords_of_a_policy_that_are_news_give_the_others_a_round() -> None:
    rig = Rig()
    http = {"auth": {"basic": {"secretRef": {"name": "visitors"}}}}
    for name in ("own", "theirs"):
        rig.controller.seen(POLICIES, body(name, spec=ALL | {"http": http}))
    rig.controller.seen(POLICIES, body("no-passwords", spec=ALL))
    rig.outcome = PolicyOutcome(is_accepted=True, users=b"mark")
    await rig.work()
    rig.rounds.clear()

    rig.clock.advance(2)
    await rig.work()
    first = sorted(rig.rounds)
    rig.rounds.clear()
    rig.clock.advance(100)
    await rig.work()
    rig.controller.removed(POLICIES, "default", "own")
    rig.clock.advance(2)
    await rig.work()

    assert first == ["own", "theirs"]
    assert rig.rounds == ["theirs"]


async def test_a_policy_that_is_another_one_at_the_server_gives_its_tokens_a_round() -> None:
    rig = Rig()
    rig.cache.put(TOKENS, body())
    rig.cache.put(TOKENS, body("elsewhere", namespace="another"))
    policy, _ = rig.cache.put(POLICIES, body("strict", spec=ALL))
    rig.outcome = PolicyOutcome(is_accepted=True)
    rig.queue.add(policy)
    await rig.work()
    same = list(rig.rounds)

    rig.outcome = PolicyOutcome(is_accepted=True, is_changed=True)
    await rig.controller._round(policy)
    keys = {await rig.queue.take() for _ in range(rig.queue.depth)}

    assert same == ["strict"]
    assert keys == {SHOP}


async def test_everything_again_is_spread_over_its_time() -> None:
    rig = Rig()
    for number in range(10):
        rig.cache.put(TOKENS, body(f"shop-{number}"))
    rig.controller.everything_again(spread_seconds=100)

    rig.clock.advance(50)
    await rig.work()

    assert len(rig.rounds) == 5
