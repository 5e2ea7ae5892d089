"""The edge's metrics for Prometheus. Labels have few values, and no value is chosen by a client."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector

from edge.admission import Admission
from runtime.metrics import histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The metrics of one edge, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.build = Gauge(
            "market_edge_build_info", "1, with the version that runs.", ("version",), registry=self.registry
        )
        self.requests = Counter(
            "market_edge_requests", "HTTP requests answered.", ("route", "status"), registry=self.registry
        )
        self.refusals = Counter(
            "market_edge_refusals", "HTTP requests that failed, by reason.", ("route", "reason"), registry=self.registry
        )
        self.seconds = histogram.Histogram(
            "market_edge_request_seconds",
            "Time of an HTTP request from its headers to the end of the answer; of a watch, its life.",
            ("route",),
            bounds=_SECONDS,
            registry=self.registry,
        )
        self.bytes = Counter("market_edge_request_bytes", "Bytes of bodies.", ("route",), registry=self.registry)
        self.updates = Counter("market_edge_watch_updates", "Updates sent to watches.", registry=self.registry)

    def watch(self, admission: Admission) -> None:
        """Gauges read at a scrape."""
        for name, text, count in (
            ("market_edge_in_flight_requests", "HTTP requests in work.", admission.requests),
            ("market_edge_open_watches", "Live sessions over HTTP.", admission.watches),
            ("market_edge_in_flight_bytes", "Bytes of the bodies in work.", admission.bytes),
            (
                "market_edge_in_flight_answer_bytes",
                "Memory of the answers that clients have not taken.",
                admission.answers,
            ),
        ):
            Gauge(name, text, registry=self.registry).set_function(partial(getattr, count, "now"))

    def answered(self, route: str, status: int, reason: str, seconds: float, size: int) -> None:
        """Count a request; `reason` is empty for a good answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if size:
            self.bytes.labels(route).inc(size)
        if reason:
            self.refusals.labels(route, reason).inc()
