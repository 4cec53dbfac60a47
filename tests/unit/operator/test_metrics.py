from prometheus_client import CollectorRegistry

from helpers.clock import FakeClock
from helpers.operator_records import body
from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.metrics import (
    Instruments,
    ObjectCollector,
    QueueCollector,
    watch_queue,
)
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import TOKENS

READY = {
    "conditions": [{"type": "Ready", "status": "True"}],
    "expirationTime": "1970-01-01T00:01:00Z",
}


def test_tokens_are_shown_from_the_cache() -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(ObjectCollector(cache, Breaker(FakeClock()), lambda: True))
    cache.put(TOKENS, body("shop", status=READY))
    cache.put(TOKENS, body("late"))

    def value(name: str, token: str) -> float | None:
        labels = {"namespace": "default", "name": token}
        return registry.get_sample_value(f"moleport_operator_token_{name}", labels)

    assert (value("ready", "shop"), value("ready", "late")) == (1, 0)
    assert value("expiration_timestamp_seconds", "shop") == 60
    assert value("expiration_timestamp_seconds", "late") is None
    assert registry.get_sample_value("moleport_operator_server_up") == 1
    kind = {"kind": "TunnelToken"}
    assert registry.get_sample_value("moleport_operator_resources", kind) == 2


def test_suspended_tokens_and_those_that_wait_to_be_revoked_are_shown() -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(ObjectCollector(cache, Breaker(FakeClock()), lambda: True))
    leaving = body("leaving")
    leaving["metadata"]["deletionTimestamp"] = "1970-01-01T00:02:00Z"
    cache.put(TOKENS, leaving)
    cache.put(TOKENS, body("paused", spec={"suspend": True}))

    def value(name: str, token: str) -> float | None:
        labels = {"namespace": "default", "name": token}
        return registry.get_sample_value(f"moleport_operator_token_{name}", labels)

    assert value("deletion_timestamp_seconds", "leaving") == 120
    assert value("deletion_timestamp_seconds", "paused") is None
    assert (value("suspended", "paused"), value("suspended", "leaving")) == (1, None)


def test_the_queue_is_shown_under_the_names_of_client_go() -> None:
    registry, queue = CollectorRegistry(), WorkQueue(FakeClock(), lambda: 0.5)
    registry.register(QueueCollector(queue, 16))
    queue.add(Key("tunneltokens", "a", "x"))
    queue.retry(Key("tunneltokens", "a", "y"))

    values = {
        name: registry.get_sample_value(name, {"name": "moleport"})
        for name in ("workqueue_depth", "workqueue_adds_total", "workqueue_retries_total")
    }

    assert values == {
        "workqueue_depth": 1,
        "workqueue_adds_total": 1,
        "workqueue_retries_total": 1,
    }


async def test_it_is_told_how_long_keys_wait_and_are_worked_on() -> None:
    registry, clock = CollectorRegistry(), FakeClock()
    queue = WorkQueue(clock, lambda: 0.5)
    watch_queue(queue, Instruments.make(registry))
    key = Key("tunneltokens", "a", "x")

    queue.add(key)
    clock.advance(3)
    assert await queue.take() == key
    clock.advance(5)
    queue.done(key)

    for name, seconds in (("queue", 3), ("work", 5)):
        metric = f"workqueue_{name}_duration_seconds"
        assert registry.get_sample_value(f"{metric}_sum", {"name": "moleport"}) == seconds
        assert registry.get_sample_value(f"{metric}_count", {"name": "moleport"}) == 1


def test_rounds_are_counted_under_the_names_of_controller_runtime() -> None:
    registry = CollectorRegistry()
    instruments = Instruments.make(registry)

    instruments.reconciles.labels("tunneltoken", "success").inc()

    labels = {"controller": "tunneltoken", "result": "success"}
    assert registry.get_sample_value("controller_runtime_reconcile_total", labels) == 1
