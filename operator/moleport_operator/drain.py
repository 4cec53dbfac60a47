"""Uninstall help: delete every resource while the operator still runs, or keep them without one.

`drain` leaves nothing at the server. The operator must be running: it revokes and removes the finalizers.
What it does not get done in time can be let go by force, which leaves tokens at the server. `let_go` is for
an uninstall that keeps the resources: it takes our finalizers off, so that whoever deletes one later does
not wait for an operator that is gone. An operator that comes back adopts them as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from moleport_operator.clock import SystemClock
from moleport_operator.errors import Conflict
from moleport_operator.kube import Kube, NotFound, collection, item, open_kube
from moleport_operator.resources import (
    CLUSTER_POLICIES,
    FINALIZER,
    POLICIES,
    TOKENS,
    Kind,
    read_meta,
)

POLL_SECONDS: Final = 1.0
LET_GO_PASSES: Final = 5


async def drain(
    namespaces: tuple[str, ...], *, seconds: float, is_forced: bool, say: Callable[[str], None]
) -> int:
    """Delete everything and wait; returns how many resources are left.

    Args:
        namespaces: where; empty: everywhere, with the policies of the cluster.
        seconds: how long to wait for the operator.
        is_forced: remove our finalizers from what is left then.
        say: told about progress.

    Raises:
        OperatorError: the API server refuses.
    """
    async with open_kube(SystemClock()) as kube:
        found = await _everything(kube, namespaces)
        say(f"deleting {len(found)} resources")
        for kind, body in found:
            meta = read_meta(body)
            try:
                await kube.request("DELETE", item(kind, meta.namespace, meta.name), params={})
            except NotFound:
                continue
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        left = found
        while left and loop.time() < until:
            await asyncio.sleep(POLL_SECONDS)
            left = await _everything(kube, namespaces)
        if left and is_forced:
            for kind, body in left:
                await _let_go(kube, kind, body)
                say(f"let go without revoking: {kind.name} {body['metadata']['name']}")
            left = await _everything(kube, namespaces)
        return len(left)


async def let_go(namespaces: tuple[str, ...], *, say: Callable[[str], None]) -> int:
    """Remove our finalizers and keep the resources; returns how many still have one.

    The operator must have ended, or it puts them back.

    Args:
        namespaces: where; empty: everywhere, with the policies of the cluster.
        say: told about progress.

    Raises:
        OperatorError: the API server refuses.
    """
    async with open_kube(SystemClock()) as kube:
        left = await _held(kube, namespaces)
        say(f"letting go of {len(left)} resources")
        # A second pass for what changed between being listed and being let go.
        for _ in range(LET_GO_PASSES):
            for kind, body in left:
                await _let_go(kube, kind, body)
            left = await _held(kube, namespaces)
            if not left:
                break
        return len(left)


async def _held(kube: Kube, namespaces: tuple[str, ...]) -> list[tuple[Kind, dict[str, Any]]]:
    return [
        (kind, body)
        for kind, body in await _everything(kube, namespaces)
        if FINALIZER in read_meta(body).finalizers
    ]


async def _everything(kube: Kube, namespaces: tuple[str, ...]) -> list[tuple[Kind, dict[str, Any]]]:
    kinds = (TOKENS, POLICIES) if namespaces else (TOKENS, POLICIES, CLUSTER_POLICIES)
    found = []
    for kind in kinds:
        for namespace in namespaces or ("",):
            try:
                bodies, _ = await kube.list(collection(kind, namespace))
            except NotFound:
                continue
            found += [(kind, body) for body in bodies]
    return found


async def _let_go(kube: Kube, kind: Kind, body: dict[str, Any]) -> None:
    meta = read_meta(body)
    patch = {
        "metadata": {
            "resourceVersion": meta.resource_version,
            "finalizers": [name for name in meta.finalizers if name != FINALIZER],
        }
    }
    try:
        await kube.merge(item(kind, meta.namespace, meta.name), patch)
    except (NotFound, Conflict):
        # Gone, or the operator was faster.
        return
