"""The text that `/metrics` answers, and the registry that it comes from."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import GCCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


def new_registry() -> CollectorRegistry:
    """Return a registry that already knows the process (`process_*`) and Python's collector."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """Return all series as text in version 0.0.4 of the format; send it as `CONTENT_TYPE`."""
    return generate_latest(_WithoutCreationTimes(registry))


class _WithoutCreationTimes(Collector):
    """Leaves `_created` out: in the text format each would be a gauge of its own.

    The library can be told so only for the whole process, which is not ours to decide.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """Yield the families of the registry; they are made anew for each scrape."""
        for metric in self._registry.collect():
            name = f"{metric.name}_created"
            metric.samples = [sample for sample in metric.samples if sample.name != name]
            yield metric
