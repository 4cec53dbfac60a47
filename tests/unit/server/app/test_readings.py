from functools import partial

from prometheus_client import CollectorRegistry

from helpers.captures import make_tunnel
from helpers.edge_rig import edge_rig, get
from helpers.waiting import until
from moleport_server.access.admission import PreAuthGate
from moleport_server.access.descriptors import DescriptorBudget
from moleport_server.agents.flow import FlowWatch
from moleport_server.app.readings import make_readings
from moleport_server.capture.record import CaptureIds
from moleport_server.capture.writer import CaptureWriter, WriterSettings
from moleport_server.config.values import Endpoint
from moleport_server.domain.tunnel import TunnelProtocol
from moleport_server.edge.tcp import TcpEdge
from moleport_server.listening import bind_listener
from moleport_server.metrics.instruments import EdgeMetrics
from moleport_server.registry.claim import Claim
from moleport_wire.hoody.window import ReceiveBudget


async def test_every_gauge_reads_the_piece_that_knows_it() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        budget = ReceiveBudget(1000, 100)
        budget.held_bytes = 17
        gate = PreAuthGate()
        gate.enter("192.0.2.1")
        tcp = TcpEdge(
            partial(Endpoint, "127.0.0.1"),
            metrics=EdgeMetrics.create(CollectorRegistry()),
            clock=rig.clock,
            max_connections=1,
            connections_per_tunnel=1,
            preamble=None,
            descriptors=DescriptorBudget(1 << 20),
            bind=bind_listener,
        )
        readings = make_readings(
            registry=rig.registry,
            edge=rig.edge,
            tcp=tcp,
            flow=FlowWatch(budget, monotonic=rig.clock.monotonic, patience_seconds=60.0),
            captures=rig.captures,
            writer=CaptureWriter(CaptureIds.random(), WriterSettings()),
            gate=gate,
            certificates={},
            is_draining=lambda: True,
        )
        parked = rig.base.session(session_id="parked")
        await rig.registry.claim(parked, 1, Claim(protocol=TunnelProtocol.TCP))
        rig.registry.lose_session(parked, "lost", is_clean=False)
        rig.registry.holds.join(make_tunnel(), _Nobody())
        visitor.send(get())
        await visitor.answer()
        await until(lambda: rig.edge.connections)

        assert readings.agents_connected() == 1
        assert readings.tunnels_active() == {"http": 1.0, "tcp": 0.0}
        assert readings.leases() == {"http": 0.0, "tcp": 1.0}
        assert readings.held_requests() == 1
        assert readings.connections_active() == {"http": 1, "tcp": 0}
        assert readings.unauthenticated_connections() == 1
        assert readings.descriptors_available() == rig.edge.descriptors.available > 0
        assert readings.streams_open() == 1
        assert readings.streams_stalled() == 0
        assert readings.receive_buffer_bytes() == 17
        assert readings.send_buffer_bytes() == 0
        assert readings.capture_bytes() == rig.captures.size_bytes > 0
        assert readings.capture_queue_bytes() == 0
        assert readings.certificate_expirations() == {}
        assert readings.draining()


class _Nobody:
    def hold_ended(self, *, returned: bool) -> None:
        """Wait for nothing."""
