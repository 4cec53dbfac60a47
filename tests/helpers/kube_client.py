"""The operator's own client, for a Kubernetes API in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import kopf

from helpers.kube_api import KubeApi
from moleport_operator.clock import SystemClock
from moleport_operator.kube import Kube, ObserveCall, make_session


@asynccontextmanager
async def open_client(api: KubeApi, observe: ObserveCall = lambda *_: None) -> AsyncIterator[Kube]:
    """Open a client; the API has to run."""
    info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{api.port}", token="anybody")
    async with make_session(info, observe) as session:
        yield Kube(session, info, SystemClock())
