"""The gateway's metrics for Prometheus. Labels have few values, and no value is chosen by a client."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from itertools import chain
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, PlatformCollector, ProcessCollector

from gateway.calls.call import Call
from gateway.replicas.replica import STATES, Replica
from runtime.metrics.deferred import DeferredRegistry
from runtime.metrics.exemplar import exemplar
from runtime.metrics.histogram import Histogram, Series

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PHASES = ("gateway", "queue", "form", "device", "encode", "transport")
# Calls are counted in groups of this size: single counts would cost several times as much.
_AT_ONCE = 256
_Labels = tuple[str, str, str]
_Figures = tuple[float, ...]


class Metrics:
    """The metrics of one gateway, in a separate registry: several gateways may run in one process, as in tests."""

    def __init__(self) -> None:
        self.registry = DeferredRegistry(self._count_finished)
        self._finished: deque[tuple[_Labels, _Figures]] = deque()
        self._counting = Lock()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        self.build = gauge("market_gateway_build_info", "1, with the version that runs.", ("version",))
        self.requests = counter("market_gateway_requests", "Requests answered.", ("method", "code"))
        self.refusals = counter("market_gateway_refusals", "Requests that failed, by reason.", ("method", "reason"))
        self.seconds = Histogram(
            "market_gateway_request_phase_seconds",
            "Time of a request by phase: gateway (until a replica is asked), the replica's queue, form (of the batch), "
            "device and encode, the rest (transport), and total.",
            ("method", "phase"),
            bounds=_SECONDS,
            registry=self.registry,
        )
        self.bytes = counter("market_gateway_request_bytes", "Bytes of requests.", ("method",))
        self.resends = counter("market_gateway_resends", "Requests sent again after a replica was lost.")
        self.in_flight = gauge("market_gateway_in_flight_requests", "Requests in flight.")
        self.in_flight_limit = gauge(
            "market_gateway_in_flight_limit_requests", "Limit of requests in flight; more are refused."
        )
        self.open_streams = gauge("market_gateway_open_streams", "Stream and Watch calls that are open.", ("method",))
        self.ready_replicas = gauge("market_gateway_ready_replicas", "Replicas that take work.")
        self.known_replicas = gauge("market_gateway_known_replicas", "Replicas that discovery finds.")
        self.replicas = gauge(
            "market_gateway_replicas",
            "Known replicas by state: ready; ejected (serves only when there is no other); draining; away.",
            ("state",),
        )

        # The look-up of a labelled child costs more than the count, so all children are looked up once.
        self._requests = cache(self.requests.labels)
        self._bytes = cache(self.bytes.labels)
        self._series = cache(self._series_of)

    def watch(
        self, in_flight: Callable[[], float], limit: int, open_streams: Mapping[str, Callable[[], float]]
    ) -> None:
        """`open_streams` by method."""
        self.in_flight.set_function(in_flight)
        self.in_flight_limit.set(limit)
        for method, count in open_streams.items():
            self.open_streams.labels(method).set_function(count)

    def watch_replicas(self, replicas: Callable[[], Sequence[Replica]]) -> None:
        self.ready_replicas.set_function(lambda: sum(replica.ready for replica in replicas()))
        self.known_replicas.set_function(lambda: len(replicas()))
        for state in STATES:
            self.replicas.labels(state).set_function(partial(_count, replicas, state))

    def watch_budget(self, away: Callable[[], bool]) -> None:
        """For a gateway with a shared budget."""
        gauge = Gauge(
            "market_gateway_shared_budget_away",
            "1 while Redis does not answer, and this gateway counts for itself.",
            registry=self.registry,
        )
        gauge.set_function(lambda: float(away()))

    def answered(self, call: Call, code: str, reason: str, seconds: float) -> None:
        """Note a finished call; `reason` is empty for a good answer."""
        if call.traceparent and (trace := exemplar(call.traceparent)):
            self.seconds.labels(call.method.name, "total").exemplify(seconds, trace)
        timing = call.timing
        figures = (
            seconds,
            call.size_bytes,
            call.attempts,
            timing.batch_items,
            call.gateway_seconds,
            timing.queue_us * 1e-6,
            timing.form_us * 1e-6,
            timing.run_us * 1e-6,
            timing.encode_us * 1e-6,
        )
        self._finished.append(((call.method.name, code, reason), figures))
        if len(self._finished) >= _AT_ONCE:
            self._count_finished()

    def _count_finished(self) -> None:
        """Count the finished calls. Runs on the event loop, or on the thread of a scrape."""
        with self._counting:
            groups: defaultdict[_Labels, list[_Figures]] = defaultdict(list)
            # The event loop may append meanwhile: the next run counts the new calls.
            for _ in range(len(self._finished)):
                labels, row = self._finished.popleft()
                groups[labels].append(row)
            for (method, code, reason), rows in groups.items():
                figures = np.fromiter(chain.from_iterable(rows), np.float64)
                self._count(method, code, reason, figures.reshape(len(rows), -1))

    def _count(self, method: str, code: str, reason: str, rows: NDArray[np.float64]) -> None:
        """`rows` is [requests, figures]."""
        seconds, sizes, attempts, batch_items = rows[:, :4].T
        self._requests(method, code).inc(len(rows))
        self._bytes(method).inc(float(sizes.sum()))
        self.seconds.labels(method, "total").observe_all(seconds)
        if reason:
            self.refusals.labels(method, reason).inc(len(rows))
        self.resends.inc(float(np.maximum(attempts - 1, 0).sum()))
        computed = batch_items > 0
        if computed.any():
            known = rows[computed, 4:]
            # Phases side by side may add up to more than the whole.
            transport = np.maximum(seconds[computed] - known.sum(axis=1), 0)
            for series, phase in zip(self._series(method), (*known.T, transport), strict=True):
                series.observe_all(phase)

    def _series_of(self, method: str) -> tuple[Series, ...]:
        return tuple(self.seconds.labels(method, phase) for phase in PHASES)


def _count(replicas: Callable[[], Sequence[Replica]], state: str) -> float:
    return sum(replica.state == state for replica in replicas())
