"""The dashboard of the inference service: queues, batches, engines, device."""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, gauge, mean, quantile, rate
from observability.panel import QUARTER, THIRD, Panel, Query

PHASES = "market_inference_request_phase_seconds"

BATCHING = Dashboard(
    "batching",
    "market-inference: batching and device",
    "What the inference service makes of the load: queues, batches, padding, time on the device.",
    Row(
        "Queues",
        Panel(
            "Work waiting",
            "Expected device time of what waits.",
            "s",
            gauge("market_inference_queued_seconds", "instance, engine"),
            QUARTER,
        ),
        Panel(
            "Work waiting, share of the limit",
            "At 1, which is MARKET_INFERENCE_MAX_QUEUED_SECONDS, an engine refuses.",
            "percentunit",
            Query(
                f"market_inference_queued_seconds{{{HERE}}} / market_inference_queue_limit_seconds{{{HERE}}}",
                "{{instance}} {{engine}}",
            ),
            QUARTER,
        ),
        Panel(
            "Items waiting",
            "Series, texts and panels.",
            "short",
            gauge("market_inference_queued_items", "instance, engine"),
            QUARTER,
        ),
        Panel(
            "Time in the queue, 99th percentile",
            "Of requests, by method.",
            "s",
            quantile(0.99, PHASES, "method", 'phase="queue"'),
            QUARTER,
        ),
        Panel(
            "Where a replica's time goes, mean",
            "Queue: until a batch takes the request. Form: until the device begins. Encode: answers to bytes.",
            "s",
            mean(PHASES, "phase", 'phase!="total"'),
            QUARTER,
            "stack",
        ),
        Panel(
            "Dropped before the device",
            "Items whose caller had gone or whose deadline had passed.",
            "short",
            rate("market_inference_dropped_items_total", "engine").named("{{engine}} items/s"),
            QUARTER,
        ),
        Panel(
            "Requests in flight",
            "By replica.",
            "short",
            gauge("market_inference_in_flight_requests", "instance"),
            QUARTER,
        ),
        Panel(
            "Requests",
            "Answered by replicas, by method.",
            "reqps",
            rate("market_inference_requests_total", "method"),
            QUARTER,
        ),
    ),
    Row(
        "Batches",
        Panel(
            "Items in a batch",
            "How the sizes are spread, all engines together.",
            "short",
            rate("market_inference_batch_items_bucket", "le"),
            THIRD,
            "heatmap",
        ),
        Panel(
            "Items in a batch, mean",
            "More than one means that callers share the device's time.",
            "short",
            mean("market_inference_batch_items", "engine"),
            THIRD,
        ),
        Panel(
            "Time of a batch, 95th percentile",
            "On the engine's thread.",
            "s",
            quantile(0.95, "market_inference_batch_seconds", "engine"),
            THIRD,
        ),
        Panel(
            "Items computed",
            "Series, pieces of text and panels.",
            "short",
            rate("market_inference_batch_items_sum", "engine").named("{{engine}} items/s"),
            QUARTER,
        ),
        Panel(
            "Padding",
            "Share of the computed units (points, tokens, bars times functions) that carried nothing.",
            "percentunit",
            Query(
                f"{rate('market_inference_batch_padding_units_total', 'engine')} "
                f"/ {rate('market_inference_batch_units_total', 'engine')}",
                "{{engine}}",
            ),
            QUARTER,
        ),
        Panel(
            "Units computed",
            "Points, tokens, bars times functions; padding not counted.",
            "short",
            Query(
                f"{rate('market_inference_batch_units_total', 'engine')} "
                f"- {rate('market_inference_batch_padding_units_total', 'engine')}",
                "{{engine}} units/s",
            ),
            QUARTER,
        ),
        Panel(
            "Time busy",
            "Share of the time that an engine's thread runs a batch. Near 1 it can take no more.",
            "percentunit",
            rate("market_inference_batch_seconds_sum", "instance, engine"),
            QUARTER,
        ),
    ),
    Row(
        "Device",
        Panel(
            "Out of memory",
            "Batches that were split to make them fit, a minute.",
            "short",
            Query(
                f"60 * {rate('market_inference_out_of_memory_recoveries_total', 'instance, engine')}",
                "{{instance}} {{engine}}",
            ),
            THIRD,
        ),
        Panel(
            "Device memory",
            "The replica's tensors (allocated), what it holds (reserved), what all processes use, and the "
            "total. None on a CPU.",
            "bytes",
            tuple(
                Query(f"market_inference_device_memory_{kind}_bytes{{{HERE}}}", f"{{{{instance}}}} {kind}")
                for kind in ("allocated", "reserved", "used", "total")
            ),
            THIRD,
        ),
        Panel(
            "Device in use",
            "Share of the time in which any kernel ran, as the driver says. On a CPU there is none.",
            "percentunit",
            gauge("market_inference_device_utilisation_ratio", "instance"),
            THIRD,
        ),
    ),
)
