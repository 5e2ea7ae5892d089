"""The dashboards: what somebody on call looks at, from the callers inwards to the device.

Owns which questions there are and their PromQL. generate.py writes the JSON that Grafana reads.
"""

from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from observability.panel import DATASOURCE, FULL, QUARTER, THIRD, Panel, Query

# Every query is bound to the namespaces chosen; off a cluster there is no such label, which `.*` matches too.
HERE = 'namespace=~"$namespace"'
FAILURES = "INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`name` is the file's and the end of the URL."""

    name: str
    title: str
    description: str
    rows: tuple[Row, ...]

    def build(self) -> models.Dashboard:
        """The dashboard as Grafana's model."""
        board = (
            builders.Dashboard(self.title)
            .uid(f"market-inference-{self.name}")
            .description(self.description)
            .tags(["market-inference"])
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .refresh("10s")
            .time("now-1h", "now")
            .timezone("utc")
            .link(_to_the_others())
            .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
            .with_variable(_namespaces())
        )
        ids = count(1)
        for row in self.rows:
            board = board.with_row(builders.Row(row.title).id(next(ids)))
            for panel in row.panels:
                board = board.with_panel(panel.builder().id(next(ids)))
        return board.build()


def _to_the_others() -> builders.DashboardLink:
    link = builders.DashboardLink("market-inference").type(models.DashboardLinkType.DASHBOARDS)
    return link.tags(["market-inference"]).as_dropdown(True).include_vars(True).keep_time(True)


def _namespaces() -> builders.QueryVariable:
    return (
        builders.QueryVariable("namespace")
        .label("Namespace")
        .datasource(DATASOURCE)
        .query("label_values(market_gateway_ready_replicas, namespace)")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(models.VariableOption(text="All", value="$__all", selected=True))
    )


def _rate(metric: str, by: str, *labels: str) -> str:
    """The sum of a counter's rates, by some labels."""
    return f"sum by ({by}) (rate({metric}{{{', '.join((HERE, *labels))}}}[$__rate_interval]))"


def _share(part: str, of: str, by: str, *labels: str) -> str:
    """The part's rate over the whole's, 0 where there is no part yet."""
    return f"({_rate(part, by, *labels)} or 0 * {_rate(of, by)}) / {_rate(of, by)}"


def _mean(histogram: str, by: str, *labels: str) -> str:
    return f"{_rate(f'{histogram}_sum', by, *labels)} / {_rate(f'{histogram}_count', by, *labels)}"


def _quantile(level: float, histogram: str, by: str, *labels: str) -> str:
    return f"histogram_quantile({level}, {_rate(f'{histogram}_bucket', f'le, {by}', *labels)})"


REQUESTS = "market_gateway_requests_total"
PHASES = "market_gateway_request_phase_seconds"

OVERVIEW = Dashboard(
    "overview",
    "market-inference: overview",
    "What callers get: rate, errors and duration of every method, and whether the objectives hold.",
    (
        Row(
            "Objectives",
            (
                Panel(
                    "Availability, 3 days",
                    "Requests that did not fail by our doing. Objective: 99.9%.",
                    "percentunit",
                    (Query(f"1 - namespace:market_gateway_error_ratio:rate3d{{{HERE}}}"),),
                    QUARTER,
                    "figure",
                ),
                Panel(
                    "Answered within 1 s, 3 days",
                    "Requests of every outcome that ended within a second. Objective: 99%.",
                    "percentunit",
                    (Query(f"1 - namespace:market_gateway_slow_ratio:rate3d{{{HERE}}}"),),
                    QUARTER,
                    "figure",
                ),
                Panel(
                    "Replicas ready",
                    "Inference replicas that take work, as the gateway that sees the fewest sees them.",
                    "short",
                    (Query(f"min(market_gateway_ready_replicas{{{HERE}}})"),),
                    QUARTER,
                    "figure",
                ),
                Panel(
                    "Requests in flight",
                    "In all gateways together.",
                    "short",
                    (Query(f"sum(market_gateway_in_flight_requests{{{HERE}}})"),),
                    QUARTER,
                    "figure",
                ),
                Panel(
                    "Burn rate of the budgets",
                    "1 spends the 30 days' budget in 30 days; 14.4 for an hour wakes somebody up.",
                    "short",
                    (
                        Query(f"namespace:market_gateway_error_ratio:rate1h{{{HERE}}} / 0.001", "errors, 1 h"),
                        Query(f"namespace:market_gateway_slow_ratio:rate1h{{{HERE}}} / 0.01", "slow answers, 1 h"),
                    ),
                    FULL,
                ),
            ),
        ),
        Row(
            "Rate, errors, duration",
            (
                Panel(
                    "Requests", "Answered requests.", "reqps", (Query(_rate(REQUESTS, "method"), "{{method}}"),), THIRD
                ),
                Panel(
                    "Share that failed by our doing",
                    "By method. Callers' mistakes and refusals by limit are on the limits dashboard.",
                    "percentunit",
                    (Query(_share(REQUESTS, REQUESTS, "method", f'code=~"{FAILURES}"'), "{{method}}"),),
                    THIRD,
                ),
                Panel(
                    "Duration, 99th percentile",
                    "From the request's arrival to its answer.",
                    "s",
                    (Query(_quantile(0.99, PHASES, "method", 'phase="total"'), "{{method}}"),),
                    THIRD,
                ),
                Panel(
                    "Outcomes",
                    "Answers by gRPC status code.",
                    "reqps",
                    (Query(_rate(REQUESTS, "code"), "{{code}}"),),
                    THIRD,
                    "stack",
                ),
                Panel(
                    "Duration, median",
                    "From the request's arrival to its answer.",
                    "s",
                    (Query(_quantile(0.5, PHASES, "method", 'phase="total"'), "{{method}}"),),
                    THIRD,
                ),
                Panel(
                    "Where the time goes, mean",
                    "Waiting in the replica's queue, on its device, and the rest of the way.",
                    "s",
                    (Query(_mean(PHASES, "phase", 'phase!="total"'), "{{phase}}"),),
                    THIRD,
                    "stack",
                ),
            ),
        ),
        Row(
            "Replicas",
            (
                Panel(
                    "Replicas ready",
                    "As each gateway sees them.",
                    "short",
                    (Query(f"market_gateway_ready_replicas{{{HERE}}}", "{{instance}}"),),
                    THIRD,
                ),
                Panel(
                    "Sent again",
                    "Requests that went to a second replica, because the first was lost.",
                    "reqps",
                    (Query(_rate("market_gateway_resends_total", "instance"), "{{instance}}"),),
                    THIRD,
                ),
                Panel(
                    "Default models loaded",
                    "1 for a model that is loaded, 0 for one whose calls are refused.",
                    "short",
                    (Query(f"market_inference_model_ready{{{HERE}}}", "{{instance}} {{engine}} {{model}}"),),
                    THIRD,
                ),
            ),
        ),
    ),
)

BATCHING = Dashboard(
    "batching",
    "market-inference: batching and device",
    "What the inference service makes of the load: queues, batches, padding, time on the device.",
    (
        Row(
            "Queues",
            (
                Panel(
                    "Work waiting",
                    "Expected device time of what waits. At max_queued_seconds an engine refuses.",
                    "s",
                    (Query(f"market_inference_queued_seconds{{{HERE}}}", "{{instance}} {{engine}}"),),
                    THIRD,
                ),
                Panel(
                    "Items waiting",
                    "Series, texts and panels.",
                    "short",
                    (Query(f"market_inference_queued_items{{{HERE}}}", "{{instance}} {{engine}}"),),
                    THIRD,
                ),
                Panel(
                    "Time in the queue, 99th percentile",
                    "Of requests, by method.",
                    "s",
                    (
                        Query(
                            _quantile(0.99, "market_inference_request_phase_seconds", "method", 'phase="queue"'),
                            "{{method}}",
                        ),
                    ),
                    THIRD,
                ),
                Panel(
                    "Dropped before the device",
                    "Items whose caller had gone or whose deadline had passed.",
                    "short",
                    (Query(_rate("market_inference_dropped_items_total", "engine"), "{{engine}} items/s"),),
                    THIRD,
                ),
                Panel(
                    "Requests in flight",
                    "By replica.",
                    "short",
                    (Query(f"market_inference_in_flight_requests{{{HERE}}}", "{{instance}}"),),
                    THIRD,
                ),
                Panel(
                    "Requests",
                    "Answered by replicas, by method.",
                    "reqps",
                    (Query(_rate("market_inference_requests_total", "method"), "{{method}}"),),
                    THIRD,
                ),
            ),
        ),
        Row(
            "Batches",
            (
                Panel(
                    "Items in a batch",
                    "How the sizes are spread, all engines together.",
                    "short",
                    (Query(_rate("market_inference_batch_items_bucket", "le"), "{{le}}"),),
                    THIRD,
                    "heatmap",
                ),
                Panel(
                    "Items in a batch, mean",
                    "More than one means that callers share the device's time.",
                    "short",
                    (Query(_mean("market_inference_batch_items", "engine"), "{{engine}}"),),
                    THIRD,
                ),
                Panel(
                    "Time of a batch, 95th percentile",
                    "On the engine's thread.",
                    "s",
                    (Query(_quantile(0.95, "market_inference_batch_seconds", "engine"), "{{engine}}"),),
                    THIRD,
                ),
                Panel(
                    "Padding",
                    "Share of the computed units (points, tokens, bars times functions) that carried nothing.",
                    "percentunit",
                    (
                        Query(
                            f"{_rate('market_inference_batch_padding_units_total', 'engine')} "
                            f"/ {_rate('market_inference_batch_units_total', 'engine')}",
                            "{{engine}}",
                        ),
                    ),
                    THIRD,
                ),
                Panel(
                    "Units computed",
                    "Points, tokens, bars times functions; padding not counted.",
                    "short",
                    (
                        Query(
                            f"{_rate('market_inference_batch_units_total', 'engine')} "
                            f"- {_rate('market_inference_batch_padding_units_total', 'engine')}",
                            "{{engine}} units/s",
                        ),
                    ),
                    THIRD,
                ),
                Panel(
                    "Time busy",
                    "Share of the time that an engine's thread runs a batch. Near 1 it can take no more.",
                    "percentunit",
                    (
                        Query(
                            _rate("market_inference_batch_seconds_sum", "instance, engine"), "{{instance}} {{engine}}"
                        ),
                    ),
                    THIRD,
                ),
            ),
        ),
        Row(
            "Device",
            (
                Panel(
                    "Out of memory",
                    "Batches that were split to make them fit, a minute.",
                    "short",
                    (
                        Query(
                            f"60 * {_rate('market_inference_out_of_memory_recoveries_total', 'instance, engine')}",
                            "{{instance}} {{engine}}",
                        ),
                    ),
                    FULL,
                ),
            ),
        ),
    ),
)

LIMITS = Dashboard(
    "limits",
    "market-inference: limits and refusals",
    "What is refused, by whom and why, and how near the limits are.",
    (
        Row(
            "At the gateway",
            (
                Panel(
                    "Requests that failed, by reason",
                    "The ErrorInfo reason that the caller received.",
                    "reqps",
                    (Query(_rate("market_gateway_refusals_total", "reason"), "{{reason}}"),),
                    THIRD,
                    "stack",
                ),
                Panel(
                    "Requests that failed, by method",
                    "All reasons.",
                    "reqps",
                    (Query(_rate("market_gateway_refusals_total", "method"), "{{method}}"),),
                    THIRD,
                    "stack",
                ),
                Panel(
                    "Share refused as overloaded",
                    "Over 1% for five minutes wakes somebody up.",
                    "percentunit",
                    (
                        Query(
                            _share("market_gateway_refusals_total", REQUESTS, "method", 'reason="OVERLOADED"'),
                            "{{method}}",
                        ),
                    ),
                    THIRD,
                ),
                Panel(
                    "In flight",
                    "Each gateway refuses at MARKET_GATEWAY_MAX_IN_FLIGHT.",
                    "short",
                    (Query(f"market_gateway_in_flight_requests{{{HERE}}}", "{{instance}}"),),
                    THIRD,
                ),
                Panel(
                    "Bytes in",
                    "Of requests, by method.",
                    "Bps",
                    (Query(_rate("market_gateway_request_bytes_total", "method"), "{{method}}"),),
                    THIRD,
                ),
                Panel(
                    "Bytes of a request, mean",
                    "Limits are in the contract: max_request_bytes of each method.",
                    "bytes",
                    (
                        Query(
                            f"{_rate('market_gateway_request_bytes_total', 'method')} / {_rate(REQUESTS, 'method')}",
                            "{{method}}",
                        ),
                    ),
                    THIRD,
                ),
            ),
        ),
        Row(
            "At the inference service",
            (
                Panel(
                    "Refused at admission",
                    "Work that could not be done in time, or for which the queue had no room.",
                    "short",
                    (Query(_rate("market_inference_refusals_total", "engine, reason"), "{{engine}} {{reason}}"),),
                    FULL,
                    "stack",
                ),
            ),
        ),
    ),
)

SESSIONS = Dashboard(
    "sessions",
    "market-inference: live sessions",
    "Watch: how many sessions live, where, and what they hold.",
    (
        Row(
            "Live sessions",
            (
                Panel(
                    "Sessions",
                    "By the replica that holds them.",
                    "short",
                    (Query(f"market_inference_sessions{{{HERE}}}", "{{instance}}"),),
                    THIRD,
                    "stack",
                ),
                Panel(
                    "Bytes of bars held",
                    "Each replica refuses new sessions at MARKET_INFERENCE_MAX_SESSION_BYTES.",
                    "bytes",
                    (Query(f"market_inference_session_bytes{{{HERE}}}", "{{instance}}"),),
                    THIRD,
                    "stack",
                ),
                Panel(
                    "Spread over replicas",
                    "Sessions of the fullest replica over the mean: 1 is even.",
                    "short",
                    (
                        Query(
                            f"max(market_inference_sessions{{{HERE}}}) "
                            f"/ clamp_min(avg(market_inference_sessions{{{HERE}}}), 1)",
                            "fullest over mean",
                        ),
                    ),
                    THIRD,
                ),
            ),
        ),
    ),
)

DASHBOARDS = (OVERVIEW, BATCHING, LIMITS, SESSIONS)
