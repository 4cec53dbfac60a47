import asyncio

from helpers.clock import FakeClock
from moleport_server.registry.events import KEPT_EVENTS, WATCHER_BACKLOG, EventLog, Watcher


async def taken(watcher: Watcher, count: int) -> list[int]:
    """Return the ids of the next events."""
    ids = []
    async with asyncio.timeout(20):
        async for event in watcher:
            ids.append(event.id)
            if len(ids) == count:
                break
    return ids


async def test_a_watcher_sees_what_happens_from_now_on() -> None:
    log = EventLog(FakeClock(now=5.0).now)
    log.publish("session.opened", None, {})
    watcher = log.watch()

    log.publish("tunnel.opened", "t1", {"label": "shop"})

    async with asyncio.timeout(20):
        event = await anext(aiter(watcher))
    assert (event.id, event.kind, event.at, event.token_id) == (2, "tunnel.opened", 5.0, "t1")
    assert event.fields == {"label": "shop"}


async def test_a_watcher_that_comes_back_goes_on_behind_its_last_event() -> None:
    log = EventLog(FakeClock().now)
    for _ in range(5):
        log.publish("request.finished", None, {})

    assert await taken(log.watch(after=3), 2) == [4, 5]


async def test_only_the_last_events_are_kept() -> None:
    log = EventLog(FakeClock().now)
    for _ in range(KEPT_EVENTS + 10):
        log.publish("request.finished", None, {})

    assert await taken(log.watch(after=0), 1) == [11]


async def test_a_watcher_that_does_not_keep_up_loses_the_oldest_and_knows_how_many() -> None:
    log = EventLog(FakeClock().now)
    watcher = log.watch()
    for _ in range(WATCHER_BACKLOG + 3):
        log.publish("request.finished", None, {})

    assert watcher.lost == 3
    assert await taken(watcher, 1) == [4]


async def test_publishers_can_ask_whether_anybody_watches() -> None:
    log = EventLog(FakeClock().now)
    assert not log.is_watched
    watcher = log.watch()
    assert log.is_watched

    log.unwatch(watcher)
    log.unwatch(watcher)

    assert not log.is_watched


def test_the_newest_id_is_known() -> None:
    log = EventLog(FakeClock().now)
    assert log.last_id == 0

    log.publish("session.opened", None, {})

    assert log.last_id == 1
