"""Whether a promoted model disappoints: a pure function of counts from the replicas' metrics.

Owns the limits, the counts over restarts of replicas, and the reading of the metrics' text. watchdog.py looks and acts.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
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
    "market_inference_model_busy_seconds_total": "seconds",
}


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one version: closes compared with intervals, closes inside; items, failed items, seconds of the device."""

    checks: float = 0.0
    hits: float = 0.0
    items: float = 0.0
    failures: float = 0.0
    seconds: float = 0.0

    def plus(self, later: "Counts", earlier: "Counts") -> "Counts":
        """These counts and the growth from `earlier` to `later`; a counter that fell was started again."""
        grown = {}
        for one in fields(Counts):
            now, before = getattr(later, one.name), getattr(earlier, one.name)
            grown[one.name] = getattr(self, one.name) + (now - before if now >= before else now)
        return Counts(**grown)


def read(text: str, model: str) -> dict[str, Counts]:
    """The counts of each version of a model, from a replica's metrics."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = _NAMES.get(sample.name)
            if name is not None and sample.labels.get("model") == model:
                found[sample.labels.get("version", "")][name] += sample.value
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
    if now.checks >= FEWEST_CHECKS:
        share = now.hits / now.checks
        low, high = binomial_tails(round(now.hits), round(now.checks), NOMINAL)
        if abs(share - NOMINAL) > COVERAGE_SLACK and min(low, high) < CHANCE:
            return f"coverage: the {NOMINAL:.0%} interval held {now.hits:.0f} of {now.checks:.0f} closes ({share:.1%})"
    if now.items >= FEWEST_ITEMS:
        share = now.failures / now.items
        if share > ERROR_SHARE and binomial_tails(round(now.failures), round(now.items), ERROR_SHARE)[1] < CHANCE:
            return f"errors: {now.failures:.0f} of {now.items:.0f} items failed ({share:.1%})"
        pace = now.seconds / now.items
        if before.items >= FEWEST_ITEMS and pace > SLOW_SECONDS:
            usual = before.seconds / before.items
            if pace > SLOWER * usual:
                return f"latency: {pace * 1000:.1f} ms of the device for an item, {usual * 1000:.1f} ms before"
    return ""
