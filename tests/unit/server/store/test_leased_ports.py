import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from helpers.files import digests
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.store.base import Lease
from moleport_server.store.leased_ports import MOST_PORTS, leased_ports
from moleport_server.store.sqlite import SqliteStateStore


@asynccontextmanager
async def store_with(path: Path, *leases: tuple[TunnelProtocol, str]) -> AsyncIterator[None]:
    store = await SqliteStateStore.open(path)
    try:
        for protocol, address in leases:
            await store.save_lease(
                Lease(
                    tunnel_id=str(uuid4()),
                    protocol=protocol,
                    address=address,
                    token_id=None,
                    session_id="s",
                    bind_id=1,
                    settings="{}",
                    opened_at=0.0,
                    until=None,
                )
            )
        yield
    finally:
        await store.aclose()


LEASES = (
    (TunnelProtocol.HTTP, "shop.localhost"),
    (TunnelProtocol.HTTP, "8080"),
    (TunnelProtocol.TCP, "20007"),
    (TunnelProtocol.TCP, "20001"),
    (TunnelProtocol.TCP, ":20002"),
    (TunnelProtocol.TCP, "0"),
    (TunnelProtocol.TCP, "70000"),
)


async def test_ports_of_tcp_tunnels_are_told_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.db"

    async with store_with(path, *LEASES):
        assert sorted(leased_ports(path)) == [20001, 20007]
    assert sorted(leased_ports(path)) == [20001, 20007]


async def test_a_crash_leaves_them_in_the_log_and_looking_changes_nothing(tmp_path: Path) -> None:
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    async with store_with(tmp_path / "state.db", *LEASES):
        for suffix in ("", "-wal"):  # what a kill leaves behind
            shutil.copy(tmp_path / f"state.db{suffix}", crashed / f"state.db{suffix}")
    before = digests(crashed)

    assert sorted(leased_ports(crashed / "state.db")) == [20001, 20007]

    after = digests(crashed)
    assert {name: after[name] for name in before} == before


async def test_they_are_as_many_as_a_new_process_can_open(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    many = [(TunnelProtocol.TCP, str(20_000 + number)) for number in range(MOST_PORTS + 3)]

    async with store_with(path, *many):
        assert len(leased_ports(path)) == MOST_PORTS


@pytest.mark.parametrize("content", [None, b"", b"SQLite format 3\0" + b"garbage " * 4096])
def test_a_state_that_cannot_tell_names_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "state.db"
    if content is not None:
        path.write_bytes(content)

    assert leased_ports(path) == []
    assert list(tmp_path.iterdir()) == ([] if content is None else [path])
