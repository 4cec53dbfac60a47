from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from helpers.clock import FakeClock
from helpers.operator_records import body
from moleport_operator.breaker import FAILURES_TO_OPEN, Breaker
from moleport_operator.cache import Cache
from moleport_operator.collectors import ObjectCollector, QueueCollector, StateCollector
from moleport_operator.queue import Key, WorkQueue
from moleport_operator.resources import POLICIES, TOKENS
from moleport_operator.watch_life import WatchLife

NEVER_RENEWED = "2100-01-01T00:00:00Z"


def status(reason: str = "Issued", **fields: Any) -> dict[str, Any]:
    is_ready = "True" if reason == "Issued" else "False"
    return {"conditions": [{"type": "Ready", "status": is_ready, "reason": reason}]} | fields


def token_value(registry: CollectorRegistry, name: str, token: str) -> float | None:
    labels = {"namespace": "default", "name": token}
    return registry.get_sample_value(f"moleport_operator_token_{name}", labels)


def test_tokens_and_policies_are_shown_from_the_cache() -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(ObjectCollector(cache, FakeClock(), 10))
    end = "1970-01-01T00:01:00Z"
    cache.put(TOKENS, body("shop", status=status(expirationTime=end, renewalTime=end)))
    cache.put(TOKENS, body("late", spec={"suspend": True}))
    cache.put(TOKENS, body("going", deletionTimestamp=end, status=status("Revoking")))
    spec = {"targetRefs": [{"kind": "TunnelToken"}]}
    cache.put(POLICIES, body("strict", spec=spec, status={"attachedTokens": 3}))

    assert token_value(registry, "ready", "shop") == 1
    assert token_value(registry, "ready", "late") == 0
    assert token_value(registry, "expiration_timestamp_seconds", "shop") == 60
    assert token_value(registry, "renewal_timestamp_seconds", "shop") == 60
    assert token_value(registry, "expiration_timestamp_seconds", "late") is None
    assert token_value(registry, "deletion_timestamp_seconds", "going") == 60
    assert token_value(registry, "suspended", "late") == 1
    assert token_value(registry, "suspended", "shop") is None
    labels = {"kind": "TunnelPolicy", "namespace": "default", "name": "strict"}
    attached = registry.get_sample_value("moleport_operator_policy_attached_tokens", labels)
    assert attached == 3
    for reason, count in (("Issued", 1), ("Revoking", 1), ("Unknown", 1)):
        value = registry.get_sample_value("moleport_operator_tokens", {"reason": reason})
        assert value == count


@pytest.mark.parametrize(
    ("fields", "is_shown"),
    [
        ({"status": status(renewalTime=NEVER_RENEWED)}, False),
        ({"status": status("Suspended")}, False),
        ({"status": status("ServerUnavailable")}, True),
        ({"status": status(renewalTime="1970-01-01T00:00:01Z")}, True),
        ({"status": status(), "deletionTimestamp": "1970-01-01T00:00:01Z"}, True),
    ],
    ids=["well", "suspended", "not ready", "overdue", "going"],
)
def test_of_too_many_tokens_only_those_that_need_attention_have_series(
    fields: dict[str, Any], is_shown: bool
) -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(ObjectCollector(cache, FakeClock(), 2))
    for number in range(2):
        cache.put(TOKENS, body(f"well-{number}", status=status()))
    cache.put(TOKENS, body("asked-for", **fields))

    assert (token_value(registry, "ready", "asked-for") is not None) == is_shown
    assert token_value(registry, "ready", "well-0") is None
    kind = {"kind": "TunnelToken"}
    assert registry.get_sample_value("moleport_operator_resources", kind) == 3


def test_what_needs_attention_is_bounded_too() -> None:
    registry, cache = CollectorRegistry(), Cache()
    registry.register(ObjectCollector(cache, FakeClock(), 2))
    for number in range(5):
        cache.put(TOKENS, body(f"bad-{number}", status=status("Expired")))

    shown = [token_value(registry, "ready", f"bad-{number}") for number in range(5)]

    assert shown.count(0) == 2


def test_the_state_of_both_servers_is_shown() -> None:
    registry, clock = CollectorRegistry(), FakeClock()
    breaker, life = Breaker(clock), WatchLife(clock)
    life.begin(["tunneltokens"])
    registry.register(StateCollector(breaker, life, lambda: True))
    life.heard("/apis/moleport.dev/v1alpha1/tunneltokens")
    assert registry.get_sample_value("moleport_operator_server_up") == 1

    for _ in range(FAILURES_TO_OPEN):
        breaker.failed("down")

    assert registry.get_sample_value("moleport_operator_server_up") == 0
    assert registry.get_sample_value("moleport_operator_initial_sync_complete") == 1
    name = "moleport_operator_watch_last_event_timestamp_seconds"
    assert registry.get_sample_value(name, {"resource": "tunneltokens"}) == clock.now()


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
