"""Every peer, in the order of the tables."""

from moleport_bench.peers import (
    bore,
    chisel,
    direct,
    frp,
    haproxy,
    moleport,
    nginx,
    openssh,
    piko,
    rathole,
    rustunnel,
    wstunnel,
)
from moleport_bench.peers.base import Mode, Peer

_ANY_ORDER: tuple[Peer, ...] = (
    *direct.PEERS,
    *nginx.PEERS,
    *haproxy.PEERS,
    *moleport.PEERS,
    *rustunnel.PEERS,
    *frp.PEERS,
    *piko.PEERS,
    *chisel.PEERS,
    *openssh.PEERS,
    *bore.PEERS,
    *rathole.PEERS,
    *wstunnel.PEERS,
)
PEERS: tuple[Peer, ...] = tuple(peer for mode in Mode for peer in _ANY_ORDER if peer.mode is mode)
