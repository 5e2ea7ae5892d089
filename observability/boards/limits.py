"""The dashboard of refusals and of the distance to limits."""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, rate, share
from observability.panel import FULL, THIRD, Panel, Query

REQUESTS = "market_gateway_requests_total"

LIMITS = Dashboard(
    "limits",
    "market-inference: limits and refusals",
    "What is refused, by whom and why, and how near the limits are.",
    Row(
        "At the gateway",
        Panel(
            "Requests that failed, by reason",
            "The ErrorInfo reason that the caller received.",
            "reqps",
            rate("market_gateway_refusals_total", "reason"),
            THIRD,
            "stack",
        ),
        Panel(
            "Requests that failed, by method",
            "All reasons.",
            "reqps",
            rate("market_gateway_refusals_total", "method"),
            THIRD,
            "stack",
        ),
        Panel(
            "Share refused as overloaded",
            "Over 1% for five minutes wakes somebody up.",
            "percentunit",
            share("market_gateway_refusals_total", REQUESTS, "method", 'reason="OVERLOADED"'),
            THIRD,
        ),
        Panel(
            "In flight, share of the limit",
            "At 1, which is MARKET_GATEWAY_MAX_IN_FLIGHT, a gateway refuses.",
            "percentunit",
            Query(
                f"market_gateway_in_flight_requests{{{HERE}}} / market_gateway_in_flight_limit_requests{{{HERE}}}",
                "{{instance}}",
            ),
            THIRD,
        ),
        Panel(
            "Bytes in", "Of requests, by method.", "Bps", rate("market_gateway_request_bytes_total", "method"), THIRD
        ),
        Panel(
            "Bytes of a request, mean",
            "Limits are in the contract: max_request_bytes of each method.",
            "bytes",
            Query(
                f"{rate('market_gateway_request_bytes_total', 'method')} / {rate(REQUESTS, 'method')}",
                "{{method}}",
            ),
            THIRD,
        ),
    ),
    Row(
        "At the inference service",
        Panel(
            "Refused at admission",
            "Work that could not be done in time, or for which the queue had no room.",
            "short",
            rate("market_inference_refusals_total", "engine, reason"),
            FULL,
            "stack",
        ),
    ),
)
