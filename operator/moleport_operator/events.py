"""Events for people, aggregated as client-go does it: what happens again makes a series of one Event.

Told are transitions only, and best effort: the status has said the same before. A token that goes back and
forth fills no list, and what is remembered to know that is bounded.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from moleport_operator.clock import Clock
from moleport_operator.errors import OperatorError
from moleport_operator.kube import Kube, NotFound
from moleport_operator.plan.status import Transition
from moleport_operator.resources import API_VERSION, FINALIZER, Kind, Meta

logger = logging.getLogger(__name__)

MOST_TEXT: Final = 1000
"""Characters; the API server takes 1,024."""
SERIES_SECONDS: Final = 360.0
"""A repetition after a longer pause is an Event of its own; client-go's value."""
MOST_SERIES: Final = 2048
"""Series that are remembered; the oldest is forgotten and starts anew when it comes back."""

_SeriesKey = tuple[str, str, bool]


@dataclass(slots=True)
class _Series:
    path: str
    count: int
    last_at: float


class EventRecorder:
    """Implements `Events`."""

    def __init__(self, kube: Kube, clock: Clock, *, identity: str) -> None:
        self._kube = kube
        self._clock = clock
        self._identity = identity
        self._series: OrderedDict[_SeriesKey, _Series] = OrderedDict()

    async def emit(self, kind: Kind, meta: Meta, event: Transition) -> None:
        """Implement `Events`."""
        key, now = (meta.uid, event.reason, event.is_warning), self._clock.now()
        series = self._series.get(key)
        try:
            if series is not None and now - series.last_at <= SERIES_SECONDS:
                await self._again(series, now)
                self._series.move_to_end(key)
            else:
                self._remember(key, await self._create(kind, meta, event, now))
        except (OperatorError, NotFound) as error:
            self._series.pop(key, None)
            logger.warning(
                "event not written",
                extra={"namespace": meta.namespace, "token": meta.name, "reason": str(error)},
            )

    async def _again(self, series: _Series, now: float) -> None:
        series.count, series.last_at = series.count + 1, now
        told = {"count": series.count, "lastObservedTime": _micro_time(now)}
        await self._kube.merge(series.path, {"series": told})

    async def _create(self, kind: Kind, meta: Meta, event: Transition, now: float) -> _Series:
        namespace = meta.namespace or "default"
        name = f"{meta.name[:200]}.{int(now * 1_000_000):x}"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "eventTime": _micro_time(now),
            "reportingController": f"{FINALIZER.split('/', maxsplit=1)[0]}/operator",
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "type": "Warning" if event.is_warning else "Normal",
            "reason": event.reason,
            "note": event.message[:MOST_TEXT],
            "regarding": {
                "apiVersion": API_VERSION,
                "kind": kind.name,
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
            },
        }
        path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
        await self._kube.create(path, body)
        return _Series(f"{path}/{name}", 1, now)

    def _remember(self, key: _SeriesKey, series: _Series) -> None:
        self._series[key] = series
        self._series.move_to_end(key)
        if len(self._series) > MOST_SERIES:
            self._series.popitem(last=False)


def _micro_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
