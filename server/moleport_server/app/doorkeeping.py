"""Doorkeeping: who may come in, with which credential, and how often a wrong one may be tried."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from moleport_server.access.admin_token import AdminToken
from moleport_server.access.admission import PreAuthGate
from moleport_server.access.audit import AuditLog
from moleport_server.access.authentication import Authenticator
from moleport_server.access.rate_limits import KeyedLimiter
from moleport_server.access.visitors import VisitorGate
from moleport_server.app.foundation import Foundation
from moleport_server.clock import Clock
from moleport_server.config.settings import ServerSettings

EDGE_HANDSHAKES_PER_ADDRESS: Final = 1024
"""Handshakes under way: many visitors share one address behind carriers and offices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorkeeping:
    """Those who let in."""

    authenticator: Authenticator
    """Agents and API callers."""
    visitors: VisitorGate
    """Visitors of tunnels with passwords."""
    strangers: PreAuthGate
    """Connections to the control and API listeners that have not said who they are."""
    handshakes: PreAuthGate
    """TLS handshakes of visitors."""
    audit: AuditLog


async def open_doors(
    settings: ServerSettings, foundation: Foundation, stack: AsyncExitStack
) -> Doorkeeping:
    """Build all of them, and start writing the audit log."""
    auth, limits = settings.auth, settings.limits
    clock, counting = foundation.clock, foundation.counting
    descriptors = foundation.descriptors
    admin = AdminToken(
        None if auth.admin_token is None else auth.admin_token.reveal(),
        path=auth.admin_token_file,
    )
    authenticator = Authenticator(
        foundation.store,
        clock,
        read_admin_token=admin.read,
        limiter=failure_limiter(auth.failures_per_minute, clock),
    )
    authenticator.observe = counting.count_login
    visitors = VisitorGate(
        clock, failure_limiter(auth.failures_per_minute, clock), key=secrets.token_bytes(32)
    )
    visitors.observe = counting.count_password
    await stack.enter_async_context(visitors)
    strangers = PreAuthGate(
        per_address=limits.connections_per_address_before_auth,
        # Strangers must not take what visitors need.
        in_all=min(limits.connections_before_auth, max(1, descriptors.limit // 4)),
    )
    strangers.observe_refusal = counting.edge.rate_limited.labels("before_auth").inc
    audit = AuditLog(settings.log.audit_file, clock)
    foundation.background.start(audit.run(), "audit log")
    stack.callback(audit.flush)
    return Doorkeeping(
        authenticator=authenticator,
        visitors=visitors,
        strangers=strangers,
        handshakes=PreAuthGate(
            per_address=EDGE_HANDSHAKES_PER_ADDRESS, in_all=descriptors.handshakes
        ),
        audit=audit,
    )


def failure_limiter(per_minute: int, clock: Clock) -> KeyedLimiter:
    """Return how often a wrong credential may be tried from one address."""
    # 0 is unlimited: a rate that nobody reaches.
    count = per_minute or 1_000_000
    return KeyedLimiter(count / 60, count, clock)
