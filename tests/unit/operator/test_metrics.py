from pathlib import Path

from prometheus_client import CollectorRegistry

from helpers.clock import FakeClock
from moleport_operator.breaker import Breaker
from moleport_operator.cache import Cache
from moleport_operator.collectors import ObjectCollector, QueueCollector, StateCollector
from moleport_operator.metrics import Instruments, watch_queue
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.watch_life import WatchLife

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "operator.md"


def test_every_metric_is_in_the_reference() -> None:
    registry, clock = CollectorRegistry(), FakeClock()
    Instruments.make(registry)
    registry.register(QueueCollector(WorkQueue(clock, lambda: 0.5), 16))
    registry.register(StateCollector(Breaker(clock), WatchLife(clock), lambda: True))
    registry.register(ObjectCollector(Cache(), clock, 10))
    page = PAGE.read_text(encoding="utf-8")

    for family in registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in page


def test_calls_of_both_servers_are_counted() -> None:
    registry = CollectorRegistry()
    instruments = Instruments.make(registry)

    instruments.api_call("201", "POST", "kube:443", 0.5)
    instruments.server_call("put_token", "412", 0.25)

    labels = {"code": "201", "method": "POST", "host": "kube:443"}
    assert registry.get_sample_value("rest_client_requests_total", labels) == 1
    name = "rest_client_request_duration_seconds_sum"
    assert registry.get_sample_value(name, {"verb": "POST", "host": "kube:443"}) == 0.5
    labels = {"operation": "put_token", "code": "412"}
    assert registry.get_sample_value("moleport_operator_server_requests_total", labels) == 1
    name = "moleport_operator_server_request_duration_seconds_sum"
    assert registry.get_sample_value(name, {"operation": "put_token"}) == 0.25


def test_what_becomes_of_credentials_is_counted() -> None:
    registry = CollectorRegistry()
    instruments = Instruments.make(registry)

    instruments.issued("Renewed")
    instruments.rotated(is_done=True)
    instruments.rotated(is_done=False)
    instruments.revoked(is_done=True)

    for name, labels in (
        ("issuances", {"reason": "Renewed"}),
        ("rotations", {"result": "success"}),
        ("rotations", {"result": "failure"}),
        ("revocations", {"result": "success"}),
    ):
        assert registry.get_sample_value(f"moleport_operator_{name}_total", labels) == 1


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
