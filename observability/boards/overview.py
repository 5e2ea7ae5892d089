"""The overview dashboard: availability and latency for callers, and the state of the services."""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, gauge, mean, quantile, rate, share
from observability.panel import FULL, HALF, QUARTER, THIRD, Panel, Query

FAILURES = "INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"
REQUESTS = "market_gateway_requests_total"
# Metrics of every process in the cluster.
OURS = 'job=~"gateway|inference|edge"'
PHASES = "market_gateway_request_phase_seconds"

OVERVIEW = Dashboard(
    "overview",
    "market-inference: overview",
    "What callers get: rate, errors and duration of every method, and whether the objectives hold.",
    Row(
        "Objectives",
        Panel(
            "Availability, 3 days",
            "Requests that did not fail by our doing. Objective: 99.9%.",
            "percentunit",
            Query(f"1 - namespace:market_gateway_error_ratio:rate3d{{{HERE}}}"),
            QUARTER,
            "figure",
        ),
        Panel(
            "Answered within 1 s, 3 days",
            "Requests of every outcome that ended within a second. Objective: 99%.",
            "percentunit",
            Query(f"1 - namespace:market_gateway_slow_ratio:rate3d{{{HERE}}}"),
            QUARTER,
            "figure",
        ),
        Panel(
            "Replicas ready",
            "Inference replicas that take work, as the gateway that sees the fewest sees them.",
            "short",
            Query(f"min(market_gateway_ready_replicas{{{HERE}}})"),
            QUARTER,
            "figure",
        ),
        Panel(
            "Requests in flight",
            "In all gateways together.",
            "short",
            Query(f"sum(market_gateway_in_flight_requests{{{HERE}}})"),
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
    Row(
        "Rate, errors, duration",
        Panel("Requests", "Answered requests.", "reqps", rate(REQUESTS, "method"), THIRD),
        Panel(
            "Share that failed by our doing",
            "By method. Callers' mistakes and refusals by limit are on the limits dashboard.",
            "percentunit",
            share(REQUESTS, REQUESTS, "method", f'code=~"{FAILURES}"'),
            THIRD,
        ),
        Panel(
            "Duration, 99th percentile",
            "From the request's arrival to its answer.",
            "s",
            quantile(0.99, PHASES, "method", 'phase="total"'),
            THIRD,
        ),
        Panel("Outcomes", "Answers by gRPC status code.", "reqps", rate(REQUESTS, "code"), THIRD, "stack"),
        Panel(
            "Duration, median",
            "From the request's arrival to its answer.",
            "s",
            quantile(0.5, PHASES, "method", 'phase="total"'),
            THIRD,
        ),
        Panel(
            "Where the time goes, mean",
            "Gateway: until a replica is asked. Queue, form (of a batch), device, encode: there. The rest is "
            "transport.",
            "s",
            mean(PHASES, "phase", 'phase!="total"'),
            THIRD,
            "stack",
        ),
    ),
    Row(
        "Answers",
        Panel(
            "Warnings in answers",
            "By code: suspected splits, stale tails, outliers, thin evidence, unusual texts.",
            "short",
            rate("market_inference_answer_warnings_total", "method, code"),
            HALF,
            "stack",
        ),
    ),
    Row(
        "Replicas",
        Panel(
            "Replicas known and ready",
            "As each gateway sees them.",
            "short",
            (
                Query(f"market_gateway_ready_replicas{{{HERE}}}", "{{instance}} ready"),
                Query(f"market_gateway_known_replicas{{{HERE}}}", "{{instance}} known"),
            ),
            THIRD,
        ),
        Panel(
            "Replicas by state",
            "The mean over gateways. Ejected ones failed several times in a row and rest for a while.",
            "short",
            Query(f"avg by (state) (market_gateway_replicas{{{HERE}}})", "{{state}}"),
            THIRD,
            "stack",
        ),
        Panel(
            "Sent a second time",
            "To another replica, because the first was lost.",
            "reqps",
            rate("market_gateway_resends_total", "instance").named("{{instance}} again"),
            THIRD,
        ),
        Panel(
            "Default models loaded",
            "1 for a model that is loaded, 0 for one whose calls are refused.",
            "short",
            gauge("market_inference_model_ready", "instance, engine, model"),
            HALF,
        ),
        Panel(
            "Versions of models",
            "Replicas that have a model loaded, by its version: two versions of one model are a rollout.",
            "short",
            Query(
                f"count by (engine, model, version) (market_inference_model_info{{{HERE}}})",
                "{{engine}} {{model}} {{version}}",
            ),
            HALF,
            "stack",
        ),
        Panel(
            "Items by version",
            "Items of each version, and failed items: compare a promoted version with the previous one.",
            "ops",
            (
                rate("market_inference_model_items_total", "engine, model, version"),
                rate("market_inference_model_failures_total", "engine, model, version").named(
                    "failed {{engine}} {{model}} {{version}}"
                ),
            ),
            THIRD,
        ),
        Panel(
            "Cost by version",
            "Seconds of the engine for an item and for 1,000 units: a version at three times both is rolled back.",
            "s",
            (
                Query(
                    f"{rate('market_inference_model_busy_seconds_total', 'engine, model, version')} "
                    f"/ {rate('market_inference_model_items_total', 'engine, model, version')}",
                    "{{engine}} {{model}} {{version}}",
                ),
                Query(
                    f"1000 * {rate('market_inference_model_busy_seconds_total', 'engine, model, version')} "
                    f"/ {rate('market_inference_model_units_total', 'engine, model, version')}",
                    "1,000 units {{engine}} {{model}} {{version}}",
                ),
            ),
            THIRD,
        ),
        Panel(
            "Answers in the shadow",
            "Answers of models in the shadow beside those that callers got: agree, differ or failed.",
            "ops",
            rate("market_inference_shadow_items_total", "model, version, outcome"),
            THIRD,
            "stack",
        ),
    ),
    Row(
        "Processes",
        Panel(
            "Versions",
            "Processes by the version that they run.",
            "short",
            (
                Query(f"count by (version) (market_gateway_build_info{{{HERE}}})", "gateway {{version}}"),
                Query(f"count by (version) (market_inference_build_info{{{HERE}}})", "inference {{version}}"),
                Query(f"count by (version) (market_edge_build_info{{{HERE}}})", "edge {{version}}"),
            ),
            QUARTER,
            "stack",
        ),
        Panel(
            "CPU",
            "Cores in use. A gateway's worker can use one.",
            "short",
            rate("process_cpu_seconds_total", "job, instance", OURS),
            QUARTER,
        ),
        Panel(
            "Memory",
            "Resident.",
            "bytes",
            Query(f"process_resident_memory_bytes{{{HERE}, {OURS}}}", "{{job}} {{instance}}"),
            QUARTER,
        ),
        Panel(
            "Age",
            "Since the process, the oldest worker of a gateway, was started.",
            "s",
            Query(f"time() - process_start_time_seconds{{{HERE}, {OURS}}}", "{{job}} {{instance}}"),
            QUARTER,
        ),
        Panel(
            "Watchers that fail",
            "Failed looks at keys, key set, certificates and models. The last good content stays in use.",
            "short",
            (
                rate("market_gateway_watcher_failures_total", "instance, watcher"),
                rate("market_inference_watcher_failures_total", "instance, watcher"),
                rate("market_edge_watcher_failures_total", "instance, watcher"),
            ),
            HALF,
        ),
    ),
)
