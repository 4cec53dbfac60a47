import pytest

from moleport_bench.address import Address
from moleport_bench.errors import LoadError
from moleport_bench.wrk import parse

REPORT = """Running 2s test @ http://127.0.0.1:12003/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  612.31us  15.80ms   96.13%
    Req/Sec    64.19k     3.25k   70.12k    71.43%
  Latency Distribution
     50%    0.93ms
     75%    1.09ms
     90%    1.31ms
     99%    4.57ms
  134187 requests in 2.10s, 33.53MB read
Requests/sec:  63898.44
Transfer/sec:     15.97MB
"""


def test_a_report_is_read() -> None:
    load = parse(REPORT)

    assert load.per_second == 63898.44
    assert load.requests == 134187
    assert (load.p50_ms, load.p99_ms, load.max_ms) == (0.93, 4.57, 15.8)
    assert load.errors == 0


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        pytest.param("51.00us", 0.051, id="microseconds"),
        pytest.param("1.20s", 1200.0, id="seconds"),
        pytest.param("1.50m", 90_000.0, id="minutes"),
    ],
)
def test_every_unit_of_a_duration_is_understood(written: str, milliseconds: float) -> None:
    load = parse(REPORT.replace("50%    0.93ms", f"50%    {written}"))

    assert load.p50_ms == pytest.approx(milliseconds)


def test_refusals_and_broken_connections_are_errors() -> None:
    extra = (
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 10\n"
    )

    assert parse(REPORT.replace("Requests/sec", extra + "Requests/sec")).errors == 20


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("unable to connect", id="no report"),
        pytest.param(REPORT.replace("134187 requests", "0 requests"), id="nothing answered"),
    ],
)
def test_what_is_no_measurement_is_refused(text: str) -> None:
    with pytest.raises(LoadError):
        parse(text)


def test_an_address_goes_to_loopback_and_asks_for_its_host() -> None:
    address = Address(12003, "bench0.localhost", tls=True)

    assert address.url("/bulk") == "https://127.0.0.1:12003/bulk"
    assert address.head("/x", "Connection: close") == (
        b"GET /x HTTP/1.1\r\nHost: bench0.localhost\r\nConnection: close\r\n\r\n"
    )
