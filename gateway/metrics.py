"""What the gateway tells Prometheus. Labels are few and never chosen by a client."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.request import Request

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The gateway's own registry, so that several gateways in one process, as in tests, do not share figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "market_gateway_requests", "Requests answered.", ("method", "code"), registry=self.registry
        )
        self.refusals = Counter(
            "market_gateway_refusals", "Requests that failed, by reason.", ("method", "reason"), registry=self.registry
        )
        self.seconds = Histogram(
            "market_gateway_request_phase_seconds",
            "Time of a request by phase: total, the replica's queue, its device, and the rest (transport).",
            ("method", "phase"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.bytes = Counter("market_gateway_request_bytes", "Bytes of requests.", ("method",), registry=self.registry)
        self.resends = Counter(
            "market_gateway_resends", "Requests sent again after a replica was lost.", registry=self.registry
        )
        self.in_flight = Gauge("market_gateway_in_flight_requests", "Requests in flight.", registry=self.registry)
        self.replicas = Gauge("market_gateway_ready_replicas", "Replicas that take work.", registry=self.registry)

    def watch(self, in_flight: Callable[[], float], ready_replicas: Callable[[], float]) -> None:
        self.in_flight.set_function(in_flight)
        self.replicas.set_function(ready_replicas)

    def watch_budget(self, away: Callable[[], bool]) -> None:
        """Only where rates and quotas are shared."""
        gauge = Gauge(
            "market_gateway_shared_budget_away",
            "1 while Redis does not answer, and this gateway counts for itself.",
            registry=self.registry,
        )
        gauge.set_function(lambda: float(away()))

    def answered(self, request: Request, code: str, reason: str, seconds: float) -> None:
        """One request is done; `reason` is empty for a good answer."""
        method = request.method.name
        self.requests.labels(method, code).inc()
        self.bytes.labels(method).inc(request.cost)
        self.seconds.labels(method, "total").observe(seconds)
        if reason:
            self.refusals.labels(method, reason).inc()
        if request.batch_items:
            self.seconds.labels(method, "queue").observe(request.queue_seconds)
            self.seconds.labels(method, "device").observe(request.device_seconds)
            rest = seconds - request.queue_seconds - request.device_seconds
            self.seconds.labels(method, "transport").observe(max(0.0, rest))
        if request.attempts > 1:
            self.resends.inc(request.attempts - 1)
