"""One set of metrics from several workers: the sums of counters, histograms and gauges.

Owns the addition. A counter never falls: the last known counts of a dead worker stay in the sum, so that Prometheus
sees no reset. Exemplars are left out: an exemplar belongs to the buckets of one worker, and the text format has none.
"""

import operator
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

SCRAPE_SECONDS = 2.0

_Join = Callable[[float, float], float]
# Metrics of the interpreter: a sum over workers would mean nothing.
_LEFT_OUT = "python_"
# Metrics that are not added: all workers see the same replicas; of ages and limits the nearest one counts.
_JOINED: dict[str, _Join] = {
    "market_gateway_build_info": max,
    "market_gateway_ready_replicas": max,
    "market_gateway_known_replicas": max,
    "market_gateway_replicas": max,
    "market_gateway_shared_budget_away": max,
    "process_start_time_seconds": min,
    "process_max_fds": min,
}

_Key = tuple[str, tuple[tuple[str, str], ...]]
# Sums by family, then by sample and labels.
_Sums = defaultdict[str, defaultdict[_Key, float]]


class Totals(CollectorRegistry):
    """The sums over the workers whose /metrics are at `addresses()`. Remembers the last page of every worker."""

    def __init__(self, addresses: Callable[[], Iterable[str]]) -> None:
        super().__init__()
        self._addresses = addresses
        self._pages_lock = threading.Lock()
        self._last: dict[str, str] = {}
        self._of_dead: _Sums = defaultdict(lambda: defaultdict(float))

    def collect(self) -> Iterable[Metric]:
        """A worker that does not answer counts with its last page."""
        with self._pages_lock:
            return added([self._page(address) for address in self._addresses()], self._of_dead)

    def restricted_registry(self, names: Iterable[str]) -> Self:  # type: ignore[override]
        """All metrics, whatever the names in /metrics?name[]=..."""
        return self

    def _page(self, address: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=SCRAPE_SECONDS) as answer:
                self._last[address] = answer.read().decode()
        except OSError:
            pass  # the worker ends or is busy: its last page counts
        return self._last.get(address, "")

    def keep_counters(self, address: str) -> None:
        """A worker has ended: its counters stay in the sums, its gauges do not."""
        with self._pages_lock:
            for family in text_string_to_metric_families(self._last.pop(address, "")):
                if family.type in {"counter", "histogram"}:
                    sums = self._of_dead[family.name]
                    for sample in family.samples:
                        if not sample.name.endswith("_created"):
                            sums[sample.name, tuple(sorted(sample.labels.items()))] += sample.value


def added(pages: Iterable[str], of_dead: Mapping[str, Mapping[_Key, float]]) -> list[Metric]:
    """The sums over pages in Prometheus' text format, and over the counts of dead workers."""
    families: dict[str, Metric] = {}
    found: dict[str, dict[_Key, float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            if family.name.startswith(_LEFT_OUT) or family.name.endswith("_created"):
                continue
            families[family.name] = Metric(family.name, family.documentation, family.type)
            # Counts of dead workers are in the sums even when no living worker has such a count.
            sums = found.setdefault(family.name, dict(of_dead.get(family.name, {})))
            join: _Join = _JOINED.get(family.name, operator.add)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                sums[key] = join(sums[key], sample.value) if key in sums else sample.value
    for name, sums in found.items():
        for (sample_name, labels), value in sums.items():
            families[name].add_sample(sample_name, dict(labels), value)
    return list(families.values())
