"""One set of metrics from several workers: the sums of counters, histograms and gauges.

Owns the addition. A counter never falls: the last known counts of a dead worker stay in the sum, so that Prometheus
sees no reset. Exemplars are left out: an exemplar belongs to the buckets of one worker, and the text format has none.
"""

import operator
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import Metric
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


class Totals:
    """Remembers the last page of every worker, by the address of the worker's /metrics."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, str] = {}
        self._of_dead: _Sums = defaultdict(lambda: defaultdict(float))

    def add_up(self, addresses: Iterable[str]) -> bytes:
        """The sums as a Prometheus text page; a worker that does not answer counts with its last page."""
        with self._lock:
            pages = [self._page(address) for address in addresses]
            return _written(pages, self._of_dead)

    def _page(self, address: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=SCRAPE_SECONDS) as answer:
                self._last[address] = answer.read().decode()
        except OSError:
            pass  # the worker ends or is busy: its last page counts
        return self._last.get(address, "")

    def keep_counters(self, address: str) -> None:
        """A worker has ended: its counters stay in the sums, its gauges do not."""
        with self._lock:
            for family in text_string_to_metric_families(self._last.pop(address, "")):
                if family.type in {"counter", "histogram"}:
                    sums = self._of_dead[_name(family)]
                    for sample in family.samples:
                        if not sample.name.endswith("_created"):
                            sums[sample.name, tuple(sorted(sample.labels.items()))] += sample.value


def _name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def _written(pages: Iterable[str], of_dead: Mapping[str, Mapping[_Key, float]]) -> bytes:
    heads: dict[str, str] = {}
    found: dict[str, dict[_Key, float]] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            if family.name.startswith(_LEFT_OUT) or family.name.endswith("_created"):
                continue
            name = _name(family)
            heads[name] = f"# HELP {name} {family.documentation}\n# TYPE {name} {family.type}\n"
            # Counts of dead workers are in the page even when no living worker has such a count.
            sums = found.setdefault(name, dict(of_dead.get(name, {})))
            join: _Join = _JOINED.get(name, operator.add)
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                sums[key] = join(sums[key], sample.value) if key in sums else sample.value
    lines = []
    for name, sums in found.items():
        lines.append(heads[name])
        lines.extend(f"{sample}{_labels(labels)} {float(value)}\n" for (sample, labels), value in sums.items())
    return "".join(lines).encode()


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"
