"""A Prometheus registry whose figures are brought up to date when somebody looks at them.

For what is cheaper to count many at once than one by one: until then it may wait, and nobody ever sees it late.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import RestrictedRegistry


class DeferredRegistry(CollectorRegistry):
    """Calls `settle` before anything is collected, on the thread that collects."""

    def __init__(self, settle: Callable[[], None]) -> None:
        super().__init__()
        self._settle = settle

    def collect(self) -> Iterable[Metric]:
        self._settle()
        return super().collect()

    def restricted_registry(self, names: Iterable[str]) -> RestrictedRegistry:
        """For /metrics?name[]=...: made anew for each look."""
        self._settle()
        return super().restricted_registry(names)
