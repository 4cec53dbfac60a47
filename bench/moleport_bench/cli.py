"""The commands: a full run, a quick look, and the page again from the raw data."""

import contextlib
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from moleport_bench.deployment import Bench
from moleport_bench.errors import NotInstalled
from moleport_bench.figures import FIGURES
from moleport_bench.figures.base import Effort, Figure
from moleport_bench.installation import (
    ROOT,
    cache_directory,
    install_moleport,
    install_programs,
    missing_for,
)
from moleport_bench.machine import describe_machine, versions
from moleport_bench.origin import Origin
from moleport_bench.page.writing import write_page
from moleport_bench.peers import PEERS
from moleport_bench.peers.base import Peer
from moleport_bench.ports import Ports
from moleport_bench.processes import Processes
from moleport_bench.quick import compare
from moleport_bench.record import Record, Run, Sample, load_record, save_record
from moleport_bench.rounds import Cell, run_all, schedule

DATA = "benchmarks/data.json"
"""Below the directory of the page."""
TOOLS = ("nginx", "wrk", "curl")
"""Without them nothing can be measured."""
QUICK_FIGURES, QUICK_PEERS = ("requests", "single", "bulk"), ("nginx-1hop", "moleport-http")
QUICK_EFFORT, QUICK_ROUNDS, QUICK_MEBIBYTES = Effort(seconds=5), 2, 512
OPEN_FILES = 65_536
"""For ten thousand visitors and as many connections behind them."""

console = Console(stderr=True, highlight=False)


@click.group()
def main() -> None:
    """Measure moleport beside its peers on this machine."""


def _names(known: Sequence[str]) -> Callable[[click.Context, click.Parameter, Any], list[str]]:
    def check(_context: click.Context, _parameter: click.Parameter, value: str) -> list[str]:
        names = [name for name in value.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise click.BadParameter(f"{', '.join(unknown)} unknown; known: {', '.join(known)}")
        return names

    return check


@main.command()
@click.option(
    "--rounds", default=3, type=click.IntRange(1), show_default=True, help="Rounds over all peers."
)
@click.option(
    "--seconds", default=8, type=click.IntRange(1), show_default=True, help="Of the main load."
)
@click.option(
    "--figures",
    default="",
    callback=_names([f.name for f in FIGURES]),
    help="Only these, by comma.",
)
@click.option(
    "--peers", default="", callback=_names([p.name for p in PEERS]), help="Only these, by comma."
)
@click.option(
    "--out",
    default=ROOT / "docs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where benchmarks.md and its directory go; raw data there is merged with.",
)
@click.option(
    "--moleport",
    "moleport_bin",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Directory with moleport's commands; default: build a wheel and install it.",
)
def run(
    rounds: int,
    seconds: int,
    figures: list[str],
    peers: list[str],
    out: Path,
    moleport_bin: Path | None,
) -> None:
    """Measure, and write the page after every figure; Ctrl-C keeps what there is."""
    chosen_peers = [peer for peer in PEERS if not peers or peer.name in peers]
    chosen = [figure for figure in FIGURES if not figures or figure.name in figures]
    record = load_record(out / DATA)
    with _bench(chosen_peers, moleport_bin, mebibytes=1024) as (bench, runnable, about):
        cells = list(schedule(chosen, runnable, rounds))
        began = time.monotonic()

        def keep(cell: Cell, sample: Sample) -> None:
            record.add(sample)
            record.describe(
                msgspec.structs.replace(about, seconds=round(time.monotonic() - began, 1))
            )
            save_record(record, out / DATA)
            _tell(cell, sample, done=cells.index(cell) + 1, of=len(cells))

        try:
            run_all(cells, bench, Effort(seconds=seconds), run=about.id, keep=keep)
        except KeyboardInterrupt:
            console.print("interrupted; the page has what was measured until now")
        finally:
            write_page(record, out)
    console.print(f"wrote {out / 'benchmarks.md'}")


@main.command()
@click.option(
    "--moleport",
    "moleport_bin",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=Path(sys.executable).parent,
    help="Directory with moleport's commands; default: those of this environment.",
)
@click.option("--rounds", default=QUICK_ROUNDS, type=click.IntRange(1), show_default=True)
def quick(moleport_bin: Path, rounds: int) -> None:
    """Measure beside nginx for a minute, and compare with the last recorded run."""
    peers = [peer for peer in PEERS if peer.name in QUICK_PEERS]
    figures = [figure for figure in FIGURES if figure.name in QUICK_FIGURES]
    record = Record()
    with _bench(peers, moleport_bin, mebibytes=QUICK_MEBIBYTES) as (bench, runnable, about):
        cells = list(schedule(figures, runnable, rounds))

        def keep(cell: Cell, sample: Sample) -> None:
            record.add(sample)
            _tell(cell, sample, done=cells.index(cell) + 1, of=len(cells))

        run_all(cells, bench, QUICK_EFFORT, run=about.id, keep=keep)
    Console(highlight=False).print(compare(record, load_record(ROOT / "docs" / DATA), figures))


@main.command()
@click.option(
    "--peers", default="", callback=_names([p.name for p in PEERS]), help="Only these, by comma."
)
def programs(peers: list[str]) -> None:
    """Install the programs of the peers and measure nothing; some are built, for minutes."""
    chosen = [peer for peer in PEERS if not peers or peer.name in peers]
    cache = cache_directory()
    install_programs((name for peer in chosen for name in peer.needs), cache, console.print)
    missing = {peer.name: reason for peer in chosen if (reason := missing_for(peer, cache))}
    for name, reason in missing.items():
        console.print(f"without {name}: {reason}")
    sys.exit(bool(missing))


@main.command()
@click.option("--out", default=ROOT / "docs", type=click.Path(file_okay=False, path_type=Path))
def page(out: Path) -> None:
    """Write the page and its plots again from the raw data."""
    write_page(load_record(out / DATA), out)


@contextlib.contextmanager
def _bench(
    peers: list[Peer], moleport_bin: Path | None, *, mebibytes: int
) -> Iterator[tuple[Bench, list[Peer], Run]]:
    """Install, start the origin, and tell who can take part."""
    signal.signal(signal.SIGTERM, _interrupt)
    _raise_open_files()
    cache = cache_directory()
    install_programs(
        [*TOOLS, *(name for peer in peers for name in peer.needs)], cache, console.print
    )
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        raise click.ClickException(
            f"{', '.join(absent)} missing; apt-get install nginx-light wrk curl"
        )
    try:
        version = (
            install_moleport(cache, console.print) if moleport_bin is None else "this checkout"
        )
    except NotInstalled as error:
        raise click.ClickException(str(error)) from None
    missing = {peer.name: reason for peer in peers if (reason := missing_for(peer, cache))}
    for name, reason in missing.items():
        console.print(f"without {name}: {reason}")
    about = Run(
        id=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=shlex.join(("python", "-m", "moleport_bench", *sys.argv[1:])),
        machine=describe_machine(),
        versions={"moleport": version, **versions(cache)},
        missing=missing,
    )
    ports = Ports()
    with (
        tempfile.TemporaryDirectory(prefix="moleport-bench-origin-") as name,
        Processes(Path(name)) as processes,
    ):
        origin = Origin(Path(name), processes, ports, bulk_mebibytes=mebibytes)
        bench = Bench(
            cache=cache,
            moleport_bin=moleport_bin or cache / "moleport" / "bin",
            origin=origin,
            ports=ports,
        )
        yield bench, [peer for peer in peers if peer.name not in missing], about


def _raise_open_files() -> None:
    """Raise the limit for this process and all that it starts; only root may raise the upper one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, max(OPEN_FILES, most)))
    except (OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _interrupt(_number: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not end the cleaning up
    raise KeyboardInterrupt


def _tell(cell: Cell, sample: Sample, *, done: int, of: int) -> None:
    """Print one line per cell."""
    what = sample.failed or "  ".join(_shown(cell.figure, sample))
    where = f"[{done}/{of}] {cell.figure.name} {cell.peer.name} round {cell.round}"
    console.print(f"{where}, {sample.seconds:.0f} s: {what}", markup=False, soft_wrap=True)


def _shown(figure: Figure, sample: Sample) -> Iterator[str]:
    for column in figure.columns:
        value = sample.values.get(column.key)
        if value is not None:
            yield f"{column.key} {value:.4g}"
