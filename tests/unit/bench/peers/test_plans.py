from pathlib import Path

import pytest

from moleport_bench.peers import PEERS
from moleport_bench.peers.base import Lab, Mode, Peer
from moleport_bench.ports import Ports

RELAY = 31_999
WITHOUT_PROGRAMS = [
    peer
    for peer in PEERS
    if peer.name not in {"ssh", "rathole-noise"}  # their keys need them
]
names = pytest.mark.parametrize("peer", WITHOUT_PROGRAMS, ids=lambda peer: peer.name)


def lab(directory: Path, **members: object) -> Lab:
    return Lab(
        directory=directory,
        cache=directory,
        moleport_bin=directory / "bin",
        ports=Ports(20_000, 26_000),
        origin_port=4242,
        **members,  # type: ignore[arg-type]  # the rest of its fields
    )


def written(directory: Path) -> str:
    files = (path for path in directory.iterdir() if path.is_file())
    return "\n".join(path.read_text() for path in files)


def words(*commands: object) -> str:
    return " ".join(str(word) for command in commands if command for word in command)  # type: ignore[attr-defined]


@names
def test_a_plan_leads_from_the_visitor_to_the_origin(peer: Peer, tmp_path: Path) -> None:
    plan = peer.plan(lab(tmp_path))

    said = words(plan.server, plan.agent) + written(tmp_path)
    assert plan.address.port == 4242 or "4242" in said
    assert (plan.agent is not None) or peer.mode is Mode.BASELINE


@names
def test_tunnels_say_where_their_link_is(peer: Peer, tmp_path: Path) -> None:
    plan = peer.plan(lab(tmp_path))

    assert (plan.link_port is None) is (peer.mode is Mode.BASELINE)


@pytest.mark.parametrize(
    "peer",
    [p for p in WITHOUT_PROGRAMS if p.mode is not Mode.BASELINE and p.name != "bore"],
    ids=lambda peer: peer.name,
)
def test_agents_dial_the_relay_when_the_link_is_to_be_cut(peer: Peer, tmp_path: Path) -> None:
    plan = peer.plan(lab(tmp_path, relay_port=RELAY))

    assert str(RELAY) in words(plan.agent) + written(tmp_path)


@names
def test_configurations_are_private(peer: Peer, tmp_path: Path) -> None:
    peer.plan(lab(tmp_path))

    secret = [path for path in tmp_path.iterdir() if "key" in path.name or "token" in path.name]
    assert all(path.stat().st_mode & 0o077 == 0 for path in secret)


def test_names_are_unique_and_modes_stand_together() -> None:
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    modes = [peer.mode for peer in PEERS]
    assert modes == sorted(modes, key=list(Mode).index)


def test_every_peer_says_how_it_is_run() -> None:
    assert all(peer.how and peer.leg for peer in PEERS)
