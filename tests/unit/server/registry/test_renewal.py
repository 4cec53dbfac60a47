"""What is live goes by what its token may do now; test_enforcement.py has the changes themselves."""

from helpers.claimants import ANY_NAME, SHOP, issue, principal
from helpers.edge_rig import registry_rig
from helpers.upstream import ScriptedUpstream
from moleport_wire.hoody.frames import Code


async def test_closing_a_token_ends_its_sessions_leases_and_resumes() -> None:
    async with registry_rig() as rig:
        who = await issue(rig, principal())
        upstream = ScriptedUpstream()
        await rig.registry.claim(rig.session(who, upstream=upstream), 1, SHOP)
        parked = rig.session(who)
        await rig.registry.claim(parked, 1, ANY_NAME)
        rig.registry.lose_session(parked, "lost", is_clean=False)
        other = await rig.registry.claim(rig.session(), 1, ANY_NAME)

        await rig.registry.close_token("token-1", "the token was deleted")

        assert upstream.ends == [(Code.PROTOCOL_ERROR, "the token was deleted")]
        assert list(rig.registry.tunnels.values()) == [other]
        assert not rig.registry.find_resumable(parked.id, who)
