"""A Prometheus registry with deferred updates, applied before each read.

For figures that are cheaper to count many at once: a scrape first counts the accumulated events.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import RestrictedRegistry


class DeferredRegistry(CollectorRegistry):
    """Calls `update` before each collection, on the collecting thread."""

    def __init__(self, update: Callable[[], None]) -> None:
        super().__init__()
        self._update = update

    def collect(self) -> Iterable[Metric]:
        self._update()
        return super().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        """The registry behind /metrics?name[]=..., made anew for each scrape."""
        self._update()
        return super().restricted_registry(names)
