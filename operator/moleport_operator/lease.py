"""Leadership by a Lease: of several operators only its holder works, the others stand by.

The protocol of client-go with its usual times: 15 s of validity, renewed every 2 s, given up after 10 s
without a renewal, so that there is a pause and never an overlap. A holder that ends lets go at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Final

from moleport_operator.clock import Clock
from moleport_operator.errors import Conflict, OperatorError
from moleport_operator.kube import Kube, NotFound

logger = logging.getLogger(__name__)

DURATION_SECONDS: Final = 15
DEADLINE_SECONDS: Final = 10.0
RETRY_SECONDS: Final = 2.0


class LeaseLost(OperatorError):
    """Somebody else may be working: end at once."""


@asynccontextmanager
async def hold_lease(
    name: str | None, kube: Kube, clock: Clock, identity: str, stop: asyncio.Event
) -> AsyncIterator[asyncio.Future[None] | None]:
    """Wait until the Lease is ours, and keep it while the context lasts.

    Args:
        name: `NAMESPACE/NAME`; None: work without one.
        kube: the API server.
        clock: wall and monotonic time.
        identity: who we are; two operators never share one.
        stop: ends the wait; the Lease is then not held.

    Yields:
        A future that fails with `LeaseLost`, or None without a Lease.
    """
    if name is None:
        yield None
        return
    namespace, _, short = name.partition("/")
    lease = _Lease(kube, clock, identity, namespace, short)
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    while not stop.is_set() and not await lease.try_hold():
        with suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await stop.wait()
    if stop.is_set():
        yield lost
        return
    logger.info("lease held", extra={"lease": name, "identity": identity})
    async with asyncio.TaskGroup() as group:
        renewal = group.create_task(lease.keep(lost), name="lease renewal")
        try:
            yield lost
        finally:
            renewal.cancel()
            if not lost.done():
                lost.cancel()
                await lease.let_go()


class _Lease:
    def __init__(self, kube: Kube, clock: Clock, identity: str, namespace: str, name: str) -> None:
        self._kube = kube
        self._clock = clock
        self._identity = identity
        self._name = name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._seen: tuple[str, float] | None = None
        """The renewal that was last seen and when, by our own clock: others' clocks may differ."""

    async def try_hold(self) -> bool:
        """Take or renew the Lease; returns whether it is ours."""
        try:
            body = await self._kube.get(f"{self._path}/{self._name}")
        except NotFound:
            return await self._write(None)
        except OperatorError as error:
            logger.info("lease not read", extra={"error": str(error)})
            return False
        spec = body.get("spec") or {}
        holder, renewed = spec.get("holderIdentity"), str(spec.get("renewTime"))
        now = self._clock.monotonic()
        if self._seen is None or self._seen[0] != renewed:
            self._seen = (renewed, now)
        is_over = now - self._seen[1] > spec.get("leaseDurationSeconds", DURATION_SECONDS)
        if holder and holder != self._identity and not is_over:
            return False
        return await self._write(body)

    async def keep(self, lost: asyncio.Future[None]) -> None:
        """Renew until that fails for too long."""
        renewed_at = self._clock.monotonic()
        while self._clock.monotonic() - renewed_at < DEADLINE_SECONDS:
            await asyncio.sleep(RETRY_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS * 2):
                    if await self.try_hold():
                        renewed_at = self._clock.monotonic()
        if not lost.done():
            lost.set_exception(LeaseLost("the lease could not be renewed in time"))

    async def let_go(self) -> None:
        """Say that the Lease is free; best effort, it ends by itself anyway."""
        with suppress(OperatorError, NotFound, TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                body = await self._kube.get(f"{self._path}/{self._name}")
                if (body.get("spec") or {}).get("holderIdentity") == self._identity:
                    spec = {**body["spec"], "holderIdentity": ""}
                    await self._kube.replace(f"{self._path}/{self._name}", {**body, "spec": spec})

    async def _write(self, body: Mapping[str, Any] | None) -> bool:
        now = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = (body or {}).get("spec") or {}
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": now,
            "acquireTime": old.get("acquireTime") or now,
            "leaseTransitions": old.get("leaseTransitions", 0),
        }
        if old and old.get("holderIdentity") != self._identity:
            spec |= {"acquireTime": now, "leaseTransitions": spec["leaseTransitions"] + 1}
        try:
            if body is None:
                metadata = {"name": self._name}
                await self._kube.create(
                    self._path,
                    {
                        "apiVersion": "coordination.k8s.io/v1",
                        "kind": "Lease",
                        "metadata": metadata,
                        "spec": spec,
                    },
                )
            else:
                await self._kube.replace(f"{self._path}/{self._name}", {**body, "spec": spec})
        except Conflict:
            return False
        except (OperatorError, NotFound) as error:
            logger.warning("lease not written", extra={"error": str(error)})
            return False
        return True
