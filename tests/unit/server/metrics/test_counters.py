import timeit

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Counter, Histogram

from moleport_server.metrics.catalogue import REQUEST_SECONDS
from moleport_server.metrics.counters import ABORTED, RequestCounters


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1000)), max_size=30))
def test_every_request_is_in_one_class_and_one_bucket(requests: list[tuple[int, float]]) -> None:
    counters = RequestCounters()

    for code_class, seconds in requests:
        counters.count(code_class, seconds)

    assert sum(counters.codes) == sum(counters.durations.buckets) == len(requests)
    for index, bound in enumerate(REQUEST_SECONDS):
        assert sum(counters.durations.buckets[: index + 1]) == sum(
            seconds <= bound for _, seconds in requests
        )


def test_an_aborted_request_has_a_class_of_its_own() -> None:
    counters = RequestCounters()

    counters.count(ABORTED, 0.5)

    assert counters.codes == [1, 0, 0, 0, 0, 0]
    assert counters.durations.sum_seconds == 0.5


def test_upstream_durations_are_apart() -> None:
    counters = RequestCounters()

    counters.upstream.observe(700.0)

    assert counters.upstream.buckets[-1] == 1
    assert sum(counters.durations.buckets) == 0


def test_counting_costs_the_hot_path_next_to_nothing() -> None:
    count = RequestCounters().count
    total = Counter("requests", "", ["code"], registry=None)
    seconds = Histogram("seconds", "", ["protocol"], buckets=REQUEST_SECONDS, registry=None)

    def count_with_labels() -> None:
        total.labels("2xx").inc()
        seconds.labels("http").observe(0.0123)

    # The best round of each: the others may have been interrupted.
    ours = min(timeit.repeat(lambda: count(2, 0.0123), number=500, repeat=20))
    theirs = min(timeit.repeat(count_with_labels, number=500, repeat=20))

    # Measured 0.3 and 3 microseconds.
    assert ours < theirs / 3
