from collections import defaultdict
from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.captures import make_capture, make_tunnel
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.ring import CAPTURE_OVERHEAD_BYTES, CaptureLimits, CaptureLog


def make_log(**limits: int) -> CaptureLog:
    return CaptureLog(CaptureIds.random(), CaptureLimits(**limits))


def test_the_newest_come_first_and_the_limit_holds() -> None:
    log, tunnel = make_log(), make_tunnel(token_id="t")
    captures = [make_capture(log.ids) for _ in range(5)]
    for capture in captures:
        log.add(tunnel, capture)

    listed = log.list(tunnel.id, 2)

    assert [record.capture for record in listed] == [captures[4], captures[3]]
    assert {(record.tunnel_id, record.token_id) for record in listed} == {(tunnel.id, "t")}
    assert log.list(tunnel.id, 0) == []
    assert log.list(uuid4(), 10) == []


def test_a_capture_is_found_by_its_id() -> None:
    log, tunnel = make_log(), make_tunnel()
    capture = make_capture(log.ids)
    log.add(tunnel, capture)

    found = log.get(log.ids.requests.format(capture.sequence))

    assert found is not None
    assert (found.tunnel_id, found.capture) == (tunnel.id, capture)
    assert log.get(log.ids.requests.format(999)) is None
    assert log.get(log.ids.connections.format(capture.sequence)) is None
    assert log.get("nonsense") is None


def test_a_full_ring_loses_its_oldest() -> None:
    log, tunnel = make_log(requests_per_tunnel=3), make_tunnel()
    captures = [make_capture(log.ids, request_body=b"b") for _ in range(5)]
    for capture in captures:
        log.add(tunnel, capture)

    assert [record.capture for record in log.list(tunnel.id, 9)] == captures[:1:-1]
    assert log.get(log.ids.requests.format(captures[0].sequence)) is None


def test_the_oldest_bodies_go_before_any_capture() -> None:
    log, tunnel = make_log(tunnel_bytes=20_000), make_tunnel()
    captures = [make_capture(log.ids, response_body=b"b" * 8000) for _ in range(4)]
    for capture in captures:
        log.add(tunnel, capture)

    assert [capture.response_body is None for capture in captures] == [True, True, False, False]
    assert len(log) == 4


def test_captures_go_when_no_body_is_left() -> None:
    log, tunnel = make_log(tunnel_bytes=3 * CAPTURE_OVERHEAD_BYTES), make_tunnel()
    for _ in range(5):
        log.add(tunnel, make_capture(log.ids))

    assert len(log) == 2


def test_the_budget_takes_from_the_oldest_of_all_tunnels() -> None:
    log = make_log(budget_bytes=20_000)
    quiet, noisy = make_tunnel(), make_tunnel()
    log.add(quiet, make_capture(log.ids, request_body=b"q" * 8000))
    for _ in range(2):
        log.add(noisy, make_capture(log.ids, request_body=b"n" * 8000))

    assert [r.capture.request_body for r in log.list(quiet.id, 9)] == [None]
    assert all(r.capture.request_body for r in log.list(noisy.id, 9))


def test_a_capture_larger_than_the_limit_is_not_kept() -> None:
    log, tunnel = make_log(tunnel_bytes=4000), make_tunnel()

    log.add(tunnel, make_capture(log.ids, head_bytes=5000))

    assert (len(log), log.size_bytes, log.list(tunnel.id, 1)) == (0, 0, [])


def test_the_last_closed_tunnels_are_still_answered() -> None:
    log = make_log(closed_tunnels=2)
    tunnels = [make_tunnel() for _ in range(3)]
    for tunnel in tunnels:
        log.add(tunnel, make_capture(log.ids))
    for tunnel in (*tunnels[:2], *tunnels):
        log.forget(tunnel.id)
    log.forget(uuid4())

    assert [len(log.list(tunnel.id, 9)) for tunnel in tunnels] == [0, 1, 1]


def test_everything_is_given_to_the_sink() -> None:
    seen = []
    log = CaptureLog(CaptureIds.random(), sink=lambda *pair: seen.append(pair))
    tunnel, capture = make_tunnel(), make_capture(log.ids)

    log.add(tunnel, capture)

    assert seen == [(tunnel, capture)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["add", "forget"]),
            st.integers(0, 3000),
            st.integers(0, 3000),
        ),
        max_size=60,
    )
)
def test_the_account_is_right_and_no_limit_is_exceeded(
    steps: list[tuple[int, str, int, int]],
) -> None:
    limits = CaptureLimits(
        requests_per_tunnel=6, budget_bytes=16_000, tunnel_bytes=9_000, closed_tunnels=1
    )
    log = CaptureLog(CaptureIds.random(), limits)
    tunnels = [make_tunnel(tunnel_id=UUID(int=index)) for index in range(4)]
    for index, step, head_bytes, body_bytes in steps:
        if step == "forget":
            log.forget(tunnels[index].id)
            continue
        body = b"b" * body_bytes or None
        log.add(tunnels[index], make_capture(log.ids, request_body=body, head_bytes=head_bytes))

        sizes: dict[UUID, int] = defaultdict(int)
        for tunnel in tunnels:
            records = log.list(tunnel.id, 99)
            sequences = [record.capture.sequence for record in records]
            assert sequences == sorted(sequences, reverse=True)
            assert len(records) <= limits.requests_per_tunnel
            for record in records:
                capture = record.capture
                sizes[tunnel.id] += CAPTURE_OVERHEAD_BYTES + len(capture.request_head)
                sizes[tunnel.id] += len(capture.response_head) + len(capture.request_body or b"")
                assert log.get(log.ids.requests.format(capture.sequence)) == record
        assert all(size <= limits.tunnel_bytes for size in sizes.values())
        assert log.size_bytes == sum(sizes.values()) <= limits.budget_bytes
