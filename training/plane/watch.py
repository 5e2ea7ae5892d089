"""Whether a promoted model disappoints: a pure function of counts from the replicas' metrics.

Owns the limits, the counts over restarts of replicas, and the reading of the metrics' text. watchdog.py looks and acts.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
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


@dataclass(frozen=True, slots=True)
class Counts:
    """Closes that had an interval, and those inside; items, failed items, units, seconds of the device."""

    checks: float = 0.0
    hits: float = 0.0
    items: float = 0.0
    failures: float = 0.0
    units: float = 0.0
    seconds: float = 0.0

    def plus(self, later: "Counts", earlier: "Counts") -> "Counts":
        """These counts and the growth from `earlier` to `later`."""
        each = zip(astuple(self), astuple(later), astuple(earlier), strict=True)
        return Counts(*(count + _grown(now, before) for count, now, before in each))


ByClients = Mapping[str, Counts]
"""The counts of one version by the label `clients`, a group that is mostly one client."""


def _grown(now: float, before: float) -> float:
    """A counter that fell was started again."""
    return now - before if now >= before else now


def read(text: str, model: str) -> dict[str, ByClients]:
    """The counts of each version of a model, from a replica's metrics."""
    found: defaultdict[str, defaultdict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = _NAMES.get(sample.name)
            if name is not None and sample.labels.get("model") == model:
                found[sample.labels.get("version", "")][sample.labels.get("clients", "")][name] = sample.value
    return {version: {name: Counts(**counts) for name, counts in each.items()} for version, each in found.items()}


def advance(
    watched: Mapping[str, Any] | None, champion: str, looks: Mapping[str, Mapping[str, ByClients]]
) -> dict[str, Any]:
    """The state of a watch after another look; `looks` has the counts of each version by replica.

    The state is JSON: `total` since the promotion by clients, `before` the other versions' counts at the first look,
    and `seen` the newest counts by replica and clients.
    """
    seen = {replica: _plain(found.get(champion, {})) for replica, found in looks.items()}
    if watched is None:
        others = [of for found in looks.values() for version, of in found.items() if version != champion]
        before = _together(counts for of in others for counts in of.values())
        return {"total": {}, "before": asdict(before), "seen": seen}
    total = {clients: Counts(**counts) for clients, counts in watched["total"].items()}
    for replica, found in looks.items():
        earlier = watched["seen"].get(replica, {})
        for clients, now in found.get(champion, {}).items():
            total[clients] = total.get(clients, Counts()).plus(now, Counts(**earlier.get(clients, {})))
    return {**watched, "total": _plain(total), "seen": {**watched["seen"], **seen}}


def _plain(of: ByClients) -> dict[str, dict[str, float]]:
    return {clients: asdict(counts) for clients, counts in of.items()}


def _together(each: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(*map(astuple, each), strict=True)))


def disappoints(watched: Mapping[str, Any]) -> str:
    """The reason to take the champion back; empty for none.

    Clients choose their series, closes and items: where several use the model, there must be a reason without each one
    of them as well.
    """
    total, before = {name: Counts(**counts) for name, counts in watched["total"].items()}, Counts(**watched["before"])
    users = [name for name, counts in total.items() if counts.items]
    if len(users) > 1:
        for left_out in users:
            if not _reason(_together(counts for name, counts in total.items() if name != left_out), before):
                return ""
    return _reason(_together(total.values()), before)


def _reason(now: Counts, before: Counts) -> str:
    return _coverage(now) or _errors(now) or _latency(now, before)


def _coverage(now: Counts) -> str:
    """The intervals hold too few closes. Too many are no reason: the closes of a halted instrument stay inside."""
    if now.checks < FEWEST_CHECKS:
        return ""
    share = now.hits / now.checks
    low, _ = binomial_tails(round(now.hits), round(now.checks), NOMINAL)
    if share > NOMINAL - COVERAGE_SLACK or low > CHANCE:
        return ""
    return f"coverage: the {NOMINAL:.0%} interval held {now.hits:.0f} of {now.checks:.0f} closes ({share:.1%})"


def _errors(now: Counts) -> str:
    if now.items < FEWEST_ITEMS:
        return ""
    share = now.failures / now.items
    if share <= ERROR_SHARE or binomial_tails(round(now.failures), round(now.items), ERROR_SHARE)[1] >= CHANCE:
        return ""
    return f"errors: {now.failures:.0f} of {now.items:.0f} items failed ({share:.1%})"


def _latency(now: Counts, before: Counts) -> str:
    """An item and a unit take longer: items differ in size."""
    if min(now.items, before.items) < FEWEST_ITEMS:
        return ""
    pace, usual = now.seconds / now.items, before.seconds / before.items
    if pace <= max(SLOW_SECONDS, SLOWER * usual) or now.seconds * before.units <= SLOWER * before.seconds * now.units:
        return ""
    return f"latency: {pace * 1000:.1f} ms of the device for an item, {usual * 1000:.1f} ms before"
