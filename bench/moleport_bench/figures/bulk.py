"""Bulk transfers: one stream down, eight at the same time, one up."""

from collections.abc import Sequence
from dataclasses import dataclass

from moleport_bench.bulk_transfer import download, upload
from moleport_bench.deployment import Bench, Deployment
from moleport_bench.figures.base import Better, Column, Effort, Values
from moleport_bench.peers.base import Peer

GIBIBYTE = 1 << 30
STREAMS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkFigure:
    """curl, which drops what it gets."""

    name: str = "bulk"
    title: str = "Bulk transfers"
    method: str = (
        "curl: 1 GiB down over one connection, 8 × 128 MiB down at the same time, 512 MiB up. "
        "MB is 10⁶ bytes. The files are sparse and in memory; nothing is compressed."
    )
    columns: Sequence[Column] = (
        Column("down", "down, 1 stream", "MB/s", Better.HIGHER, plotted=True),
        Column("down_8", "down, 8 streams", "MB/s", Better.HIGHER, plotted=True),
        Column("up", "up, 1 stream", "MB/s", Better.HIGHER, plotted=True),
        Column("cpu_down", "CPU per GiB down", "s", Better.LOWER),
        Column("cpu_up", "CPU per GiB up", "s", Better.LOWER),
    )
    most_rounds: int = 100

    def takes(self, peer: Peer) -> bool:
        """Everybody carries bytes."""
        return True

    def measure(self, bench: Bench, peer: Peer, effort: Effort) -> Values:
        """Transfer the files one after the other."""
        origin = bench.origin
        with Deployment(bench, peer) as running:
            address = running.address
            download(address, "/part", expected=origin.part_bytes)
            before = running.cpu()
            down = download(address, "/bulk", expected=origin.bulk_bytes)
            spent_down = running.cpu().since(before)
            down_8 = download(address, "/part", expected=origin.part_bytes, streams=STREAMS)
            before = running.cpu()
            up = upload(address, "/upload", origin.upload_file)
            spent_up = running.cpu().since(before)
        values = {"down": down, "down_8": down_8, "up": up}
        if running.plan.server is not None:
            sent = origin.upload_file.stat().st_size
            values["cpu_down"] = spent_down.both * GIBIBYTE / origin.bulk_bytes
            values["cpu_up"] = spent_up.both * GIBIBYTE / sent
        return values
