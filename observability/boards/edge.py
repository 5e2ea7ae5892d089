"""The dashboard of the HTTP edge: what callers over HTTP get, and what the edges hold."""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, gauge, quantile, rate, share
from observability.panel import HALF, THIRD, Panel, Query

_REQUESTS = "market_edge_requests_total"
_SECONDS = "market_edge_request_seconds"

EDGE = Dashboard(
    "edge",
    "market-inference: HTTP edge",
    "What callers over HTTP get: rate, errors and duration by route, live sessions, and the edges' own limits.",
    Row(
        "Rate, errors, duration",
        Panel(
            "HTTP requests",
            "Answered requests by route. Paths that no route has are counted as other.",
            "reqps",
            rate(_REQUESTS, "route"),
            THIRD,
        ),
        Panel(
            "Share answered 5xx",
            "By route: bugs, a gateway that does not answer, and deadlines that have passed.",
            "percentunit",
            share(_REQUESTS, _REQUESTS, "route", 'status=~"5.."'),
            THIRD,
        ),
        Panel(
            "HTTP duration, 99th percentile",
            "From the headers to the end of the answer. A live session counts with its whole life.",
            "s",
            quantile(0.99, _SECONDS, "route"),
            THIRD,
        ),
        Panel(
            "HTTP answers by status",
            "499: the client closed the connection before the answer.",
            "reqps",
            rate(_REQUESTS, "status"),
            THIRD,
            "stack",
        ),
        Panel(
            "HTTP failures by reason",
            "The reason of the problem document, the same as over gRPC.",
            "reqps",
            rate("market_edge_refusals_total", "route, reason"),
            THIRD,
            "stack",
        ),
        Panel(
            "HTTP duration, median",
            "From the headers to the end of the answer.",
            "s",
            quantile(0.5, _SECONDS, "route"),
            THIRD,
        ),
    ),
    Row(
        "What the edges hold",
        Panel(
            "HTTP requests in flight",
            "An edge refuses more than MARKET_EDGE_MAX_IN_FLIGHT.",
            "short",
            gauge("market_edge_in_flight_requests", "instance"),
            THIRD,
        ),
        Panel(
            "Live sessions over HTTP",
            "An edge refuses more than MARKET_EDGE_MAX_WATCHES.",
            "short",
            gauge("market_edge_open_watches", "instance"),
            THIRD,
            "stack",
        ),
        Panel(
            "Updates sent",
            "To live sessions, by edge.",
            "short",
            rate("market_edge_watch_updates_total", "instance").named("{{instance}}/s"),
            THIRD,
        ),
        Panel(
            "Bytes of bodies and answers in flight",
            "An edge refuses more than MARKET_EDGE_MAX_BYTES_IN_FLIGHT of bodies, and of answers.",
            "bytes",
            (
                Query(f"market_edge_in_flight_bytes{{{HERE}}}", "bodies {{instance}}"),
                Query(f"market_edge_in_flight_answer_bytes{{{HERE}}}", "answers {{instance}}"),
            ),
            HALF,
        ),
        Panel("Bytes of bodies", "Arrived, by route.", "Bps", rate("market_edge_request_bytes_total", "route"), HALF),
    ),
)
