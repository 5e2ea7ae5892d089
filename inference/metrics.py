"""The Prometheus metrics of the inference service. Label values are few, and no client chooses them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import islice
from typing import Any
from zlib import crc32

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inference.batching.job import BatchResult, Entry
from inference.batching.schedule import BatchPlan
from inference.batching.tracks import Tracks
from inference.calls.call import ReplicaCall
from inference.loading.catalog import Slot
from market_inference.contract import deadline
from market_inference.contract.errors import InvalidRequestError
from runtime.metrics.exemplar import exemplar
from runtime.metrics.histogram import Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CLIENTS = 16
"""Groups of clients in a label, by a hash of the name: one client's figures can be left out, and no name is shown."""
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics in a separate registry, so that several services in one process do not share metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.build = gauge("market_inference_build_info", "1, labelled with the running version.", ("version",))
        self.requests = counter("market_inference_requests", "Requests answered.", ("method", "code"))
        self.seconds = histogram(
            "market_inference_request_phase_seconds",
            "Time of a request by phase: queue (until a batch takes the request), form (until the device begins), "
            "device, encode (from the outcomes to the response's bytes), and total.",
            ("method", "phase"),
            bounds=_SECONDS,
        )
        self.batch_items = histogram("market_inference_batch_items", "Items in a batch.", ("engine",), bounds=_ITEMS)
        self.batch_seconds = histogram(
            "market_inference_batch_seconds", "Time of a batch.", ("engine",), bounds=_SECONDS
        )
        self.padding = counter(
            "market_inference_batch_padding_units", "Padding in batches, in units (points, tokens, bars).", ("engine",)
        )
        self.units = counter(
            "market_inference_batch_units", "Units (points, tokens, bars) in batches, padding included.", ("engine",)
        )
        self.refusals = counter("market_inference_refusals", "Jobs refused at admission.", ("engine", "reason"))
        self.dropped = counter(
            "market_inference_dropped_items",
            "Items dropped from a queue: the call was cancelled, or the deadline had passed.",
            ("engine",),
        )
        self.recoveries = counter(
            "market_inference_out_of_memory_recoveries",
            "Batches split because the device ran out of memory.",
            ("engine",),
        )
        self.invalid = counter(
            "market_inference_invalid_outcomes",
            "Outcomes of models with the wrong type, layout or values, which became errors.",
            ("engine",),
        )
        self.warnings = counter(
            "market_inference_answer_warnings",
            "Warnings in answers, by code: doubts about a series, a text or the answer.",
            ("method", "code"),
        )
        self.stuck = gauge(
            "market_inference_engine_stuck",
            "1 while an engine's batch runs for longer than the configured time.",
            ("engine",),
        )
        self.queued_items = gauge("market_inference_queued_items", "Items waiting.", ("engine",))
        self.queued_seconds = gauge(
            "market_inference_queued_seconds", "Expected time of the waiting work.", ("engine",)
        )
        self.queue_limit = gauge(
            "market_inference_queue_limit_seconds",
            "Expected time of waiting work above which the queue refuses more.",
            ("engine",),
        )
        self.in_flight = gauge("market_inference_in_flight_requests", "Requests in flight.")
        self.sessions = gauge("market_inference_sessions", "Live sessions.")
        self.session_bytes = gauge("market_inference_session_bytes", "Bytes of the bars of live sessions.")
        self.sessions_opened = counter("market_inference_sessions_opened", "Sessions requested, refused ones included.")
        self.sessions_ended = counter(
            "market_inference_sessions_ended",
            "Sessions that ended: CLOSED by the caller, or the reason of the error sent to the caller.",
            ("reason",),
        )
        self.session_bars = counter(
            "market_inference_session_bars", "Bars of sessions: taken or refused.", ("outcome",)
        )
        self.interval_checks = counter(
            "market_inference_watch_interval_checks",
            "Closes compared with the 80% interval that a session's forecast gave one bar ahead.",
            ("model", "version", "clients"),
        )
        self.interval_hits = counter(
            "market_inference_watch_interval_hits", "Closes inside that interval.", ("model", "version", "clients")
        )
        version = ("engine", "model", "version")
        by_clients = (*version, "clients")
        self.model_items = counter("market_inference_model_items", "Items that a model has run.", by_clients)
        self.model_failures = counter(
            "market_inference_model_failures", "Items that a model has failed, callers' mistakes aside.", by_clients
        )
        self.model_units = counter("market_inference_model_units", "Units in a model's batches.", by_clients)
        self.model_seconds = counter(
            "market_inference_model_busy_seconds", "Cost of a model's batches, in seconds of the engine.", by_clients
        )
        self.shadowed = counter(
            "market_inference_shadow_items",
            "Answers of a model in the shadow, compared with the answers that callers got: agree, differ or failed.",
            (*version, "outcome"),
        )
        self.models = gauge(
            "market_inference_model_ready", "1 if an engine's default model is loaded.", ("engine", "model")
        )

        # The lookup of a labelled child costs more than counting, so each child is looked up once.
        self._requests = cache(self.requests.labels)

    def answered(self, method: str, code: str, call: ReplicaCall, seconds: float) -> None:
        """Count a replied request; a merged request counts as several calls."""
        calls = call.calls
        self._requests(method, code).inc(calls)
        self.seconds.labels(method, "total").observe(seconds, exemplar(call.traceparent), calls)
        if call.batch_items:
            self.seconds.labels(method, "queue").observe(call.queue_seconds, times=calls)
            self.seconds.labels(method, "form").observe(call.form_seconds, times=calls)
            self.seconds.labels(method, "device").observe(call.run_seconds, times=calls)
        if call.encode_seconds:
            self.seconds.labels(method, "encode").observe(call.encode_seconds, times=calls)
        if call.warnings:
            for warning, count in call.warnings.items():
                self.warnings.labels(method, warning).inc(count)

    def shadow(self, engine: str, model: str, version: str, outcome: str, items: int) -> None:
        """Count answers of a model in the shadow: `agree`, `differ` or `failed`."""
        self.shadowed.labels(engine, model, version, outcome).inc(items)

    def watch_sessions(
        self, count: Callable[[], int], size_bytes: Callable[[], int], stuck: Callable[[], bool]
    ) -> None:
        self.sessions.set_function(count)
        self.session_bytes.set_function(size_bytes)
        self.stuck.labels("sessions").set_function(stuck)

    def watch_model(self, slot: Slot) -> None:
        self.models.labels(slot.engine, slot.name).set_function(lambda: slot.model is not None)

    def watch_queue(self, engine: str, tracks: Tracks, limit: float) -> None:
        self.queue_limit.labels(engine).set(limit)
        self.stuck.labels(engine).set_function(lambda: tracks.stuck)
        self.queued_items.labels(engine).set_function(lambda: tracks.queued_items)
        self.queued_seconds.labels(engine).set_function(lambda: tracks.queued_seconds(deadline.now()))


class LoadedModels(Collector):
    """The loaded models, read at every scrape because versions change."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self._slots = slots

    def collect(self) -> Iterator[GaugeMetricFamily]:
        [family] = self.describe()
        for slot in tuple(self._slots):
            if (model := slot.model) is not None:
                family.add_metric((slot.engine, slot.name, model.version), 1)
        yield family

    def describe(self) -> list[GaugeMetricFamily]:
        labels = ("engine", "model", "version")
        return [GaugeMetricFamily("market_inference_model_info", "1, labelled with a loaded model.", labels=labels)]


class SessionMetrics:
    """Counts the events of live sessions. Every session that is opened ends once."""

    def __init__(self, metrics: Metrics) -> None:
        self._opened = metrics.sessions_opened
        self._ended = metrics.sessions_ended
        self._bar = cache(metrics.session_bars.labels)
        self._checks = cache(metrics.interval_checks.labels)
        self._hits = cache(metrics.interval_hits.labels)
        self._warnings = cache(metrics.warnings.labels)

    def opened(self) -> None:
        self._opened.inc()

    def ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()

    def bar(self, outcome: str) -> None:
        """Count a bar: `taken` or `refused`."""
        self._bar(outcome).inc()

    def warned(self, code: str) -> None:
        """Count a warning in a forecast of a session."""
        self._warnings("watch", code).inc()

    def checked(self, model: str, version: str, client: str, hit: bool) -> None:
        """Count a close that was compared with a forecast's interval."""
        labels = model, version, _group(client)
        self._checks(*labels).inc()
        # Add 0, too: a model without hits needs the series for its ratio.
        self._hits(*labels).inc(hit)


class BatcherMetrics:
    """Counts the events of one engine's queue, as a batcher.Observer."""

    def __init__(self, metrics: Metrics, engine: str) -> None:
        self._metrics = metrics
        self._engine = engine
        self._items = metrics.batch_items.labels(engine)
        self._seconds = metrics.batch_seconds.labels(engine)
        self._units = metrics.units.labels(engine)
        self._padding = metrics.padding.labels(engine)
        self._dropped = metrics.dropped.labels(engine)
        self._invalid = metrics.invalid.labels(engine)
        self._recoveries = metrics.recoveries.labels(engine)
        self._of_client = lru_cache(1024)(self._counters)

    def _counters(self, model: str, version: str, client: str) -> tuple[Counter, ...]:
        metrics = self._metrics
        found = metrics.model_items, metrics.model_failures, metrics.model_units, metrics.model_seconds
        return tuple(one.labels(self._engine, model, version, _group(client)) for one in found)

    def batch(self, plan: BatchPlan, result: BatchResult, units: int) -> None:
        self._items.observe(plan.items)
        self._seconds.observe(result.ended - result.started)
        self._units.inc(units)
        self._padding.inc(units - sum(entry.units * entry.count for entry in plan.batch))
        model = plan.batch[0].job.model
        if getattr(model, "version", None) is not None:  # the preparation of texts has none
            self._count(model, plan.batch, result, units)
        if result.oom_recoveries:
            self._recoveries.inc(result.oom_recoveries)
        if result.invalid:
            self._invalid.inc(result.invalid)

    def _count(self, model: Any, batch: Sequence[Entry], result: BatchResult, units: int) -> None:
        """Count the items of each client, with the client's share of the batch's units and seconds."""
        outcomes, ran = iter(result.outcomes), len(result.outcomes)
        found: dict[str, tuple[int, int]] = {}
        for entry in batch:
            items, failures = found.get(entry.job.client, (0, 0))
            failed = sum(map(_failed, islice(outcomes, entry.count)))
            found[entry.job.client] = items + entry.count, failures + failed
        for client, (items, failures) in found.items():
            counters = self._of_client(model.name, model.version, client)
            counts = items, failures, units * items / ran, result.busy * items / ran
            for counter, count in zip(counters, counts, strict=True):
                counter.inc(count)

    def refused(self, reason: str) -> None:
        self._metrics.refusals.labels(self._engine, reason).inc()

    def dropped(self, count: int) -> None:
        self._dropped.inc(count)


def _group(client: str) -> str:
    return str(crc32(client.encode()) % CLIENTS)


def _failed(outcome: Any) -> bool:
    return isinstance(outcome, Exception) and not isinstance(outcome, InvalidRequestError)
