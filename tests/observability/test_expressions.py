"""Every PromQL expression in the repository parses and refers to existing metrics only."""

import asyncio
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

import edge.metrics
import gateway.metrics
import inference.metrics
import training.plane.metrics
from edge.admission import Admission
from edge.config import Config
from edge.upstream import Upstream
from inference.device.cuda import DeviceFigures
from inference.device.device_metrics import DeviceMetrics
from runtime.watcher import WatcherCollector

ROOT = Path(__file__).parents[2]
# Labels that Prometheus and the service discovery add to every series.
ADDED_LABELS = {"job", "instance", "namespace", "pod"}
OURS = re.compile(r"market_(edge|gateway|inference|training)_")
SERIES_OF = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


@functools.cache
def exposed() -> dict[str, set[str]]:
    """The series of the services and of the recording rules, with labels."""
    series: dict[str, set[str]] = {"up": {"job", "instance"}}
    for collector in collectors():
        # Process metrics are created at the scrape, and have no labels.
        families = collector.describe() if hasattr(collector, "describe") else collector.collect()
        for family in families:
            for suffix in SERIES_OF[family.type]:
                labels = set(getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", None) or ())
                series[f"{family.name}{suffix}"] = labels | ({"le"} if suffix == "_bucket" else set())
    return series | {rule["record"]: {"namespace"} for rule in rules() if "record" in rule}


async def admission() -> Admission:
    config = Config()
    upstream = Upstream(config)
    await upstream.close()
    return Admission(config, upstream)


def collectors() -> list[Any]:
    """The collectors of the services, including the collectors of Redis, models and a GPU."""
    figures = DeviceFigures("cuda", "GPU", 1, 0, 0, 0)
    inside = inference.metrics.Metrics()
    inside.registry.register(inference.metrics.LoadedModels([]))
    inside.registry.register(DeviceMetrics(lambda: figures, None))
    outside = gateway.metrics.Metrics()
    outside.watch_budget(lambda: False)
    over_http = edge.metrics.Metrics()
    over_http.watch(asyncio.run(admission()))
    registries = (outside.registry, inside.registry, over_http.registry)
    found = [collector for registry in registries for collector in registry._collector_to_names]
    watchers = [WatcherCollector(service, []) for service in ("gateway", "inference", "edge")]
    return [*found, *watchers, training.plane.metrics.Figures(None, 0.0)]


def rules() -> list[dict]:
    files = sorted((ROOT / "observability" / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def shipped() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted((ROOT / "observability" / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']} {target['refId']}", target["expr"]
    for scaled in yaml.safe_load_all((ROOT / "k8s/components/autoscaling/inference.yaml").read_text()):
        for trigger in scaled["spec"]["triggers"]:
            yield f"scaling: {trigger['name']}", trigger["metadata"]["query"]


def parse(expr: str) -> promql_parser.Expr:
    """The expression with values for Grafana's variables."""
    return promql_parser.parse(expr.replace("$__rate_interval", "1m").replace("$namespace", ".*"))


def selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    inner = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "vector_selector", "param")]
    for child in (*inner, *getattr(node, "args", ())):
        if child is not None:
            yield from selectors(child)


def grouping(text: str) -> set[str]:
    """The labels in by (...) and on (...)."""
    return {label.strip() for found in re.findall(r"\b(?:by|on) ?\(([^)]*)\)", text) for label in found.split(",")}


EXPRESSIONS = dict(shipped())


def test_expressions_are_found():
    assert len(EXPRESSIONS) > 50


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_refers_to_existing_series_and_labels_only(name):
    known = exposed()
    used = list(selectors(parse(EXPRESSIONS[name])))
    assert used
    for selector in used:
        assert selector.name in known, f"{selector.name} is exposed by no service"
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= known[selector.name] | ADDED_LABELS, f"{selector.name} has no such label"
    labels = set().union(*(known[selector.name] for selector in used))
    assert grouping(EXPRESSIONS[name]) <= labels | ADDED_LABELS


def test_an_unknown_series_would_be_found():
    assert [selector.name for selector in selectors(parse("sum(rate(a_total[1m])) / max by (x) (b) or c"))] == [
        "a_total",
        "b",
        "c",
    ]


def test_every_metric_of_the_services_is_on_a_dashboard_or_in_an_alert():
    """An unused metric need not be exposed. A use of `_sum` or `_count` counts as a use of the histogram."""
    used = {selector.name for expr in EXPRESSIONS.values() for selector in selectors(parse(expr))}
    families = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used}
    own = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in exposed() if OURS.match(name)}
    assert len(own) > 40
    assert own <= families, f"on no dashboard and in no alert: {own - families}"
