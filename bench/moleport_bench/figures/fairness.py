"""Fairness inside of one tunnel: what one visitor's large download does to another's small requests."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench import wrk
from moleport_bench.bulk_transfer import MEBIBYTE
from moleport_bench.deployment import Bench, Deployment
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.full_speed import FullSpeedReader
from moleport_bench.idle_visitors import IdleVisitors
from moleport_bench.peers.base import VARIANTS, Mode, Peer
from moleport_bench.wrk import Load

SMALL_CONNECTIONS = 4
STALLED = 16
SETTLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FairnessFigure:
    """Small requests alone, beside stalled readers and beside a reader at full speed."""

    name: str = "fairness"
    title: str = "Fairness: small requests beside a large download in the same tunnel"
    method: str = (
        "wrk with 4 connections and small requests, before, between and after; stalled: a visitor asked "
        "for 1 GiB and reads nothing; beside a download: another visitor reads as fast as it can. Memory: "
        "growth of the server with one stalled reader, and with 16."
    )
    columns: Sequence[Column] = (
        Column("alone_p99", "p99 alone", "ms", Better.LOWER),
        Column("stalled_p99", "p99, 1 stalled", "ms", Better.LOWER),
        Column("stalled_ratio", "of alone", "×", Better.LOWER),
        Column("bulk_p99", "p99 beside a download", "ms", Better.LOWER, plotted=True),
        Column("alone_rate", "requests/s alone", "1/s", Better.HIGHER),
        Column("stalled_rate", "1 stalled", "1/s", Better.HIGHER),
        Column("bulk_rate", "beside a download", "1/s", Better.HIGHER, plotted=True),
        Column("bulk_speed", "that download", "MB/s", Better.HIGHER),
        Column("stalled_memory", "server memory, 1 stalled", "MiB", Better.LOWER),
        Column("stalled_16_memory", "each of 16 stalled", "MiB", Better.LOWER),
    )
    most_rounds: int = 3

    def takes(self, peer: Peer) -> bool:
        """Tell about tunnels that share a connection, and about those that do not."""
        return peer.mode is not Mode.BASELINE and peer.name not in VARIANTS

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Run the phases in one deployment: each needs what the one before it left."""
        seconds = max(1, round(effort.seconds * 0.25))
        with Deployment(bench, peer) as running:

            def small() -> Load:
                return wrk.load(running.address, connections=SMALL_CONNECTIONS, seconds=seconds)

            small()  # warm-up
            alone = [small()]
            with IdleVisitors(running.address) as visitors:
                idle = running.resident().server
                visitors.stall("/bulk", 1)
                time.sleep(SETTLE_SECONDS)
                one = running.resident().server - idle
                stalled = small()
                visitors.stall("/bulk", STALLED - 1)
                time.sleep(SETTLE_SECONDS)
                all_of_them = running.resident().server - idle
            alone.append(small())
            with FullSpeedReader(running.address, "/bulk") as reader:
                time.sleep(SETTLE_SECONDS)
                reader.begin()
                beside = small()
                speed = reader.speed()
        alone_p99 = statistics.mean(load.p99_ms for load in alone)
        return {
            "alone_p99": alone_p99,
            "stalled_p99": stalled.p99_ms,
            "stalled_ratio": stalled.p99_ms / alone_p99,
            "bulk_p99": beside.p99_ms,
            "alone_rate": statistics.mean(load.per_second for load in alone),
            "stalled_rate": stalled.per_second,
            "bulk_rate": beside.per_second,
            "bulk_speed": speed,
            "stalled_memory": one / MEBIBYTE,
            "stalled_16_memory": all_of_them / MEBIBYTE / STALLED,
        }
