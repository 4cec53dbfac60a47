"""What moleport wants to reach, and what the numbers say to it; nothing here is a fixed sentence.

Most goals are ratios to a peer of the same run, because absolute numbers move with the machine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from moleport_bench.figures.base import Better
from moleport_bench.page.numbers import median, middle, ratio, write_number
from moleport_bench.record import Record

OURS_HTTP, OURS_TCP, OURS_RUSTUNNEL, NGINX, NGINX_TLS = (
    "moleport-http",
    "moleport-tcp",
    "moleport-rustunnel",
    "nginx-1hop",
    "nginx-1hop-https",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One number to reach."""

    figure: str
    subject: str
    """What is measured, for the page."""
    wanted: str
    measured: Callable[[Record], float | None]
    """None: not measured."""
    limit: float
    better: Better
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.limit if self.better is Better.HIGHER else value <= self.limit


def _ratio(figure: str, ours: str, other: str, key: str) -> Callable[[Record], float | None]:
    return lambda record: ratio(record, figure, (ours, other), key)


def _median(figure: str, ours: str, key: str) -> Callable[[Record], float | None]:
    return lambda record: median(record, figure, ours, key)


def _highest(figure: str, ours: str, key: str) -> Callable[[Record], float | None]:
    def worst(record: Record) -> float | None:
        found = middle(record.of(figure, ours), key)
        return None if found is None else found.highest

    return worst


def _compared(  # the columns of a goal, in the order in which the page shows them
    figure: str, subject: str, ours: str, other: str, key: str, limit: float, better: Better
) -> Goal:
    sign = "≥" if better is Better.HIGHER else "≤"
    return Goal(
        figure=figure,
        subject=subject,
        wanted=f"{sign} {limit:g} × {other}",
        measured=_ratio(figure, ours, other, key),
        limit=limit,
        better=better,
        unit="×",
    )


def _absolute(
    figure: str,
    subject: str,
    ours: str,
    key: str,
    limit: float,
    unit: str,
    *,
    better: Better = Better.LOWER,
    worst: bool = False,
) -> Goal:
    measured = _highest if worst else _median
    sign = "≥" if better is Better.HIGHER else "≤"
    return Goal(
        figure=figure,
        subject=subject,
        wanted=f"{sign} {limit:g} {unit}".rstrip(),
        measured=measured(figure, ours, key),
        limit=limit,
        better=better,
        unit=unit,
    )


def _fewest_failures(record: Record) -> float | None:
    """Return how many more requests failed than with the best peer; negative: moleport is that one."""
    ours = median(record, "recovery", OURS_HTTP, "server_failed")
    peers = {sample.peer for sample in record.samples if sample.figure == "recovery"}
    others = [
        value
        for peer in sorted(peers)
        if not peer.startswith("moleport")
        and median(record, "recovery", peer, "server_recovery") is not None
        and (value := median(record, "recovery", peer, "server_failed")) is not None
    ]
    return None if ours is None or not others else ours - min(others)


_HIGH, _LOW = Better.HIGHER, Better.LOWER
_RATE = "per_second"
GOALS: Sequence[Goal] = (
    _compared("requests", "HTTP, 64 connections, requests/s", OURS_HTTP, NGINX, _RATE, 0.5, _HIGH),
    _compared("requests", "the same, aim", OURS_HTTP, NGINX, _RATE, 0.8, _HIGH),
    _compared("requests", "the same beside frp", OURS_HTTP, "frp-http", _RATE, 5, _HIGH),
    _compared("requests", "its CPU seconds per 100k", OURS_HTTP, NGINX, "cpu", 2.5, _LOW),
    _absolute("single", "HTTP, one connection, p50", OURS_HTTP, "p50_ms", 0.15, "ms"),
    _compared(
        "requests", "TCP, 64 connections, requests/s", OURS_TCP, "rathole-noise", _RATE, 1, _HIGH
    ),
    _compared("requests", "the same, aim", OURS_TCP, NGINX, _RATE, 0.825, _HIGH),
    _compared(
        "requests", "a stock rustunnel client, requests/s", OURS_RUSTUNNEL, NGINX, _RATE, 0.4, _HIGH
    ),
    _absolute("requests", "the same", OURS_RUSTUNNEL, _RATE, 5000, "1/s", better=_HIGH),
    _absolute(
        "requests", "its p99: no delayed acknowledgements", OURS_RUSTUNNEL, "p99_ms", 20, "ms"
    ),
    _absolute("single", "the same, one connection", OURS_RUSTUNNEL, "p99_ms", 20, "ms"),
    _compared("new-connections", "new connections/s, HTTP", OURS_HTTP, NGINX, _RATE, 0.325, _HIGH),
    _compared("new-connections", "new connections/s, TCP", OURS_TCP, NGINX, _RATE, 0.325, _HIGH),
    *(
        _compared("bulk", f"bulk {text}, HTTP", OURS_HTTP, other, key, 1, _HIGH)
        for key, text in (("down", "down"), ("down_8", "8 streams down"), ("up", "up"))
        for other in ("frp-http", "rathole-noise", NGINX_TLS)
    ),
    *(
        _compared("bulk", f"bulk {text}, TCP", OURS_TCP, "rathole-noise", key, 1, _HIGH)
        for key, text in (("down", "down"), ("down_8", "8 streams down"), ("up", "up"))
    ),
    _absolute("memory", "idle server", OURS_HTTP, "idle_server", 80, "MiB"),
    _absolute(
        "memory", "server, each of 1,000 connections", OURS_HTTP, "connection_1000", 15, "KiB"
    ),
    _absolute(
        "memory", "server, each of 10,000 connections", OURS_HTTP, "connection_10000", 15, "KiB"
    ),
    _absolute("memory", "server, each of 100 agents", OURS_HTTP, "agent_100", 40, "KiB"),
    _absolute("memory", "server, each of 1,000 agents", OURS_HTTP, "agent_1000", 40, "KiB"),
    _absolute(
        "fairness", "p99 beside a stalled reader, of alone", OURS_HTTP, "stalled_ratio", 1.2, "×"
    ),
    _absolute(
        "fairness", "server memory, each of 16 stalled", OURS_HTTP, "stalled_16_memory", 0.25, "MiB"
    ),
    _absolute("fairness", "p99 beside a download", OURS_HTTP, "bulk_p99", 6, "ms"),
    *(
        _absolute("recovery", f"{text}: failed, worst round", OURS_HTTP, key, 0, "", worst=True)
        for key, text in (("cut_failed", "link cut"), ("agent_failed", "agent killed"))
    ),
    _absolute("recovery", "link cut: longest wait", OURS_HTTP, "cut_wait", 0.3, "s"),
    _absolute(
        "recovery", "agent killed: wait after back", OURS_HTTP, "agent_wait_after_back", 0.3, "s"
    ),
    _absolute(
        "recovery", "server killed: after it listens", OURS_HTTP, "server_recovery", 0.31, "s"
    ),
    Goal(
        figure="recovery",
        subject="server killed: failed, beside the best peer that comes back",
        wanted="not more than it",
        measured=_fewest_failures,
        limit=0,
        better=_LOW,
        unit="more",
    ),
    *(
        Goal(
            figure=name,
            subject=f"lowest / highest rate with more {name}",
            wanted="≥ 0.8",
            measured=_median(name, OURS_HTTP, "spread"),
            limit=0.8,
            better=_HIGH,
        )
        for name in ("tunnels", "connections")
    ),
)


def goal_lines(record: Record, goals: Sequence[Goal] = GOALS) -> Iterator[str]:
    """Return the table of goals, and what is not reached in one sentence."""
    yield "| figure | wanted | measured | |"
    yield "| --- | --- | ---: | --- |"
    for goal in goals:
        value = goal.measured(record)
        shown = "–" if value is None else f"{write_number(value)} {goal.unit}".rstrip()
        yield f"| {goal.subject} | {goal.wanted} | {shown} | {_verdict(goal, value)} |"


def _verdict(goal: Goal, value: float | None) -> str:
    if value is None:
        return "not measured"
    return "met" if goal.is_met(value) else "**not met**"
