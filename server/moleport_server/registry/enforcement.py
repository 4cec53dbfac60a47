"""Enforcement: what changed about a token or a policy holds for its live sessions at once.

The API calls in after each change that it wrote. What ends by itself (a token, a revision, a lifetime
that a policy allows) is noticed within a second, from memory; beside that the store is asked every few
seconds, for what no call announced. The authenticator says whether a credential still proves anything
and what holds under the policies; the registry carries it out and tells the agents why.
"""

import logging
from typing import Final, Protocol

from moleport_server.access.authentication import Authenticator
from moleport_server.clock import Clock
from moleport_server.domain.token import Principal
from moleport_server.errors import StoreError, Unauthenticated
from moleport_server.registry.live import Session
from moleport_server.registry.observer import SessionEnd
from moleport_server.registry.registry import Registry

logger = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 10.0
"""How often the store is asked about the tokens of live sessions."""
TICK_SECONDS: Final = 1.0
"""How often live sessions are looked at for an end that was known before."""


class Announced(Protocol):
    """What the API announces; each call returns when live sessions went by it."""

    async def token_changed(self, token_id: str) -> None:
        """A token, one of its slots or its policies changed."""
        ...

    async def slot_replaced(self, token_id: str, revision: int) -> None:
        """A revision slot holds another secret now."""
        ...

    async def policy_changed(self, policy_id: str) -> None:
        """A policy changed."""
        ...


class Enforcement:
    """Lets changes hold for what is live (the `Announced` of the API)."""

    def __init__(self, registry: Registry, authenticator: Authenticator, clock: Clock) -> None:
        self._registry = registry
        self._authenticator = authenticator
        self._clock = clock

    async def sweep(self) -> None:
        """Ask the store about the token of every live session.

        Raises:
            StoreError: nothing is known of those that are left; call again.
        """
        for token_id in {s.principal.token_id for s in self._registry.sessions.values()}:
            if token_id is not None and await self._look_at_sessions(token_id):
                await self._look_at_tunnels(token_id)

    async def tick(self) -> None:
        """End the sessions whose credential has ended by itself; asks the store about those only.

        Raises:
            StoreError: it could not be asked; call again.
        """
        now = self._clock.now()
        due = {
            session.principal.token_id
            for session in self._registry.sessions.values()
            if session.principal.ends_at is not None and session.principal.ends_at <= now
        }
        for token_id in due:
            if token_id is not None:
                await self._look_at_sessions(token_id)

    async def token_changed(self, token_id: str) -> None:
        """See `Announced`."""
        self._authenticator.forget(token_id)
        try:
            await self._look_at_sessions(token_id)
            await self._look_at_tunnels(token_id)
        except StoreError as error:
            # The change is written; the sweep comes back to it.
            logger.warning("a change waits for the store", extra={"error": str(error)})

    async def slot_replaced(self, token_id: str, revision: int) -> None:
        """See `Announced`."""
        self._authenticator.forget(token_id)
        for session in self._sessions_of(token_id):
            if session.principal.revision == revision:
                await self._end(session, f"revision {revision} of the token was replaced")

    async def policy_changed(self, policy_id: str) -> None:
        """See `Announced`."""
        self._authenticator.forget_policy(policy_id)
        owners = {session.principal.token_id for session in self._registry.sessions.values()}
        owners |= {tunnel.token_id for tunnel in self._registry.tunnels.values()}
        for token_id in owners:
            if token_id is not None:
                await self.token_changed(token_id)

    async def _look_at_sessions(self, token_id: str) -> bool:
        """Let today's token hold for its sessions; whether it means something else than before."""
        verdicts: dict[int, Principal | str] = {}
        has_changed = False
        for session in self._sessions_of(token_id):
            principal = session.principal
            verdict = verdicts.get(principal.revision)
            if verdict is None:
                verdict = verdicts[principal.revision] = await self._examine(principal)
            if session.principal is not principal:
                continue  # it proved another revision meanwhile
            if isinstance(verdict, str):
                await self._end(session, verdict)
            else:
                has_changed |= verdict.effective != principal.effective
                await self._registry.renew_session(session, verdict)
        return has_changed

    async def _look_at_tunnels(self, token_id: str) -> None:
        tunnels = self._registry.tunnels.values()
        if not self._sessions_of(token_id) and all(t.token_id != token_id for t in tunnels):
            return
        try:
            owner = await self._authenticator.owner(token_id)
        except Unauthenticated as error:
            await self._registry.close_token(token_id, str(error))
        else:
            self._registry.renew_token(owner)

    async def _examine(self, principal: Principal) -> Principal | str:
        try:
            return await self._authenticator.revalidate(principal)
        except Unauthenticated as error:
            return str(error)

    async def _end(self, session: Session, reason: str) -> None:
        await self._registry.close_session(session, reason, cause=SessionEnd.REVOKED)

    def _sessions_of(self, token_id: str) -> list[Session]:
        sessions = self._registry.sessions.values()
        return [session for session in sessions if session.principal.token_id == token_id]
