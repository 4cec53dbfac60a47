import asyncio
import time

from helpers.metrics import Everything, everything
from moleport_server.metrics.loop_lag import PEAK_SECONDS, LoopLagProbe


def values(all_of_it: Everything) -> tuple[float | None, float | None]:
    value = all_of_it.registry.get_sample_value
    return (
        value("moleport_server_event_loop_lag_seconds"),
        value("moleport_server_event_loop_lag_max_seconds"),
    )


def test_the_worst_lag_is_remembered_for_a_while_and_then_forgotten() -> None:
    all_of_it = everything()
    probe = LoopLagProbe(all_of_it.process)

    probe.record(0.5, now=0.0)
    probe.record(0.1, now=1.0)
    assert values(all_of_it) == (0.1, 0.5)
    probe.record(0.2, now=PEAK_SECONDS + 1)
    assert values(all_of_it) == (0.2, 0.5)
    probe.record(0.0, now=3 * PEAK_SECONDS)
    assert values(all_of_it) == (0.0, 0.2)


async def test_a_blocked_loop_is_seen() -> None:
    all_of_it = everything()
    probe = LoopLagProbe(all_of_it.process, interval_seconds=0.001)
    count = "moleport_server_event_loop_lag_distribution_seconds_count"
    probe.start()
    probe.start()

    started = time.perf_counter()
    time.sleep(0.05)  # the lag itself
    async with asyncio.timeout(20):
        while not all_of_it.registry.get_sample_value(count):
            await asyncio.sleep(0)
    longest = time.perf_counter() - started
    probe.close()
    probe.close()

    peak = values(all_of_it)[1]
    assert peak is not None
    # The kernel may well sleep longer than it was asked to.
    assert 0.04 < peak <= longest


async def test_a_closed_probe_leaves_no_timer() -> None:
    probe = LoopLagProbe(everything().process)
    probe.start()
    timer = probe._timer

    probe.close()

    assert timer is not None
    assert timer.cancelled()
