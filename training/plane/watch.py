"""Whether a promoted model disappoints: a pure function of counts from the replicas' metrics.

Owns the limits, the counts over restarts of replicas, and the reading of the metrics' text. watchdog.py looks and acts.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

from training.plane.gate.statistics import binomial_tails

NOMINAL: Final = 0.8
"""The share of closes that the interval of a session's forecast promises to hold."""
FEWEST_CHECKS: Final = 30
COVERAGE_SLACK: Final = 0.05
CHANCE: Final = 1e-4
"""A worse count than this chance is no accident. Small, because the counts are looked at again and again."""
FEWEST_ITEMS: Final = 100
ERROR_SHARE: Final = 0.01
SLOWER: Final = 3.0
SLOW_SECONDS: Final = 0.005
"""An item that costs less is fast enough, whatever the champion before cost."""
_NAMES: Final = {
    "market_inference_watch_interval_checks_total": "checks",
    "market_inference_watch_interval_hits_total": "hits",
    "market_inference_model_items_total": "items",
    "market_inference_model_failures_total": "failures",
    "market_inference_model_units_total": "units",
    "market_inference_model_busy_seconds_total": "seconds",
}
_BY_CLIENTS: Final = frozenset({"checks", "hits", "items"})
ByClients = dict[str, float]
"""A count by the label `clients`, a group of clients that is mostly one client."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one version: closes that had an interval, those inside; items, failed items, units, seconds of the device."""

    checks: ByClients = field(default_factory=dict)
    hits: ByClients = field(default_factory=dict)
    items: ByClients = field(default_factory=dict)
    failures: float = 0.0
    units: float = 0.0
    seconds: float = 0.0

    def plus(self, later: "Counts", earlier: "Counts") -> "Counts":
        """These counts and the growth from `earlier` to `later`."""
        total, now, before = asdict(self), asdict(later), asdict(earlier)
        for name, value in now.items():
            if name in _BY_CLIENTS:
                for clients, count in value.items():
                    total[name][clients] = total[name].get(clients, 0.0) + _grown(count, before[name].get(clients, 0.0))
            else:
                total[name] += _grown(value, before[name])
        return Counts(**total)


def _grown(now: float, before: float) -> float:
    """A counter that fell was started again."""
    return now - before if now >= before else now


def read(text: str, model: str) -> dict[str, Counts]:
    """The counts of each version of a model, from a replica's metrics."""
    found: defaultdict[str, dict[str, Any]] = defaultdict(lambda: asdict(Counts()))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = _NAMES.get(sample.name)
            if name is None or sample.labels.get("model") != model:
                continue
            counts = found[sample.labels.get("version", "")]
            if name in _BY_CLIENTS:
                counts[name][sample.labels.get("clients", "")] = sample.value
            else:
                counts[name] += sample.value
    return {version: Counts(**counts) for version, counts in found.items()}


def advance(
    watched: Mapping[str, Any] | None, champion: str, looks: Mapping[str, Mapping[str, Counts]]
) -> dict[str, Any]:
    """The state of a watch after another look; `looks` has the counts of each version by replica.

    The state is JSON: `total` since the promotion, `before` the other versions' counts at the first look, for the pace
    that the champion is compared with, and `seen` the newest counts by replica.
    """
    if watched is None:
        others = [counts for found in looks.values() for version, counts in found.items() if version != champion]
        before = Counts()
        for counts in others:
            before = before.plus(counts, Counts())
        seen = {replica: asdict(found.get(champion, Counts())) for replica, found in looks.items()}
        return {"total": asdict(Counts()), "before": asdict(before), "seen": seen}
    total, seen = Counts(**watched["total"]), dict(watched["seen"])
    for replica, found in looks.items():
        now = found.get(champion, Counts())
        total = total.plus(now, Counts(**seen.get(replica, {})))
        seen[replica] = asdict(now)
    return {**watched, "total": asdict(total), "seen": seen}


def disappoints(watched: Mapping[str, Any]) -> str:
    """The reason to take the champion back; empty for none."""
    now, before = Counts(**watched["total"]), Counts(**watched["before"])
    return _coverage(now) or _errors(now) or _latency(now, before)


def _coverage(now: Counts) -> str:
    """The intervals hold too few closes of all clients, and also without any one client.

    Clients choose their closes: the closes of one client alone take the model from no other client. Intervals that hold
    too many closes are no reason: a halted instrument stays inside.
    """
    several = sum(map(bool, now.items.values())) > 1
    for left_out in ("", *(now.checks if several else ())):
        checks = sum(now.checks.values()) - now.checks.get(left_out, 0.0)
        hits = sum(now.hits.values()) - now.hits.get(left_out, 0.0)
        low, _ = binomial_tails(round(hits), round(checks), NOMINAL)
        if checks < FEWEST_CHECKS or hits / checks > NOMINAL - COVERAGE_SLACK or low > CHANCE:
            return ""
    checks, hits = sum(now.checks.values()), sum(now.hits.values())
    return f"coverage: the {NOMINAL:.0%} interval held {hits:.0f} of {checks:.0f} closes ({hits / checks:.1%})"


def _errors(now: Counts) -> str:
    items = sum(now.items.values())
    if items < FEWEST_ITEMS:
        return ""
    share = now.failures / items
    if share <= ERROR_SHARE or binomial_tails(round(now.failures), round(items), ERROR_SHARE)[1] >= CHANCE:
        return ""
    return f"errors: {now.failures:.0f} of {items:.0f} items failed ({share:.1%})"


def _latency(now: Counts, before: Counts) -> str:
    """An item and a unit take longer: clients choose the size of their items."""
    items, items_before = sum(now.items.values()), sum(before.items.values())
    if min(items, items_before) < FEWEST_ITEMS:
        return ""
    pace, usual = now.seconds / items, before.seconds / items_before
    if pace <= max(SLOW_SECONDS, SLOWER * usual) or now.seconds * before.units <= SLOWER * before.seconds * now.units:
        return ""
    return f"latency: {pace * 1000:.1f} ms of the device for an item, {usual * 1000:.1f} ms before"
