"""What the registry tells others."""

import asyncio

from helpers.claimants import SHOP
from helpers.edge_rig import registry_rig


async def test_what_happens_is_published_for_those_who_watch() -> None:
    async with registry_rig() as rig:
        watcher = rig.registry.events.watch()
        session = rig.session()
        tunnel = await rig.registry.claim(session, 1, SHOP)
        rig.registry.lose_session(session, "lost", is_clean=False)
        again = rig.session(session_id=session.id, is_open=False)
        rig.registry.attach(again, rig.registry.resume_session(again))
        await rig.registry.close_tunnel(tunnel, "deleted")
        rig.registry.lose_session(again, "goodbye", is_clean=True)

        kinds = []
        async with asyncio.timeout(20):
            async for event in watcher:
                kinds.append(event.kind)
                if len(kinds) == 6:
                    break
        assert kinds == [
            "session.opened",
            "tunnel.opened",
            "session.parked",
            "session.resumed",
            "tunnel.closed",
            "session.closed",
        ]
