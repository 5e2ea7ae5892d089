"""The Prometheus metrics of the inference service. Label values are few, and no client chooses them."""

from collections.abc import Callable, Iterable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from inference.batching.job import BatchResult
from inference.batching.schedule import BatchPlan
from inference.batching.tracks import Tracks
from inference.calls.call import ReplicaCall
from inference.loading.catalog import Slot
from market_inference.contract import deadline
from runtime.metrics import histogram
from runtime.metrics.exemplar import exemplar

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics in a separate registry, so that several services in one process do not share metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.build = Gauge(
            "market_inference_build_info", "1, labelled with the running version.", ("version",), registry=self.registry
        )
        self.requests = Counter(
            "market_inference_requests", "Requests answered.", ("method", "code"), registry=self.registry
        )
        self.seconds = histogram.Histogram(
            "market_inference_request_phase_seconds",
            "Time of a request by phase: queue (until a batch takes the request), form (until the device begins), "
            "device, encode (from the outcomes to the response's bytes), and total.",
            ("method", "phase"),
            bounds=_SECONDS,
            registry=self.registry,
        )
        self.batch_items = histogram.Histogram(
            "market_inference_batch_items", "Items in a batch.", ("engine",), bounds=_ITEMS, registry=self.registry
        )
        self.batch_seconds = histogram.Histogram(
            "market_inference_batch_seconds", "Time of a batch.", ("engine",), bounds=_SECONDS, registry=self.registry
        )
        self.padding = Counter(
            "market_inference_batch_padding_units",
            "Padding in batches, in units (points, tokens, bars).",
            ("engine",),
            registry=self.registry,
        )
        self.units = Counter(
            "market_inference_batch_units",
            "Units (points, tokens, bars) in batches, padding included.",
            ("engine",),
            registry=self.registry,
        )
        self.refusals = Counter(
            "market_inference_refusals", "Jobs refused at admission.", ("engine", "reason"), registry=self.registry
        )
        self.dropped = Counter(
            "market_inference_dropped_items",
            "Items dropped from a queue: the call was cancelled, or the deadline had passed.",
            ("engine",),
            registry=self.registry,
        )
        self.recoveries = Counter(
            "market_inference_out_of_memory_recoveries",
            "Batches split because the device ran out of memory.",
            ("engine",),
            registry=self.registry,
        )
        self.invalid = Counter(
            "market_inference_invalid_outcomes",
            "Outcomes of models that were not finite or had the wrong shape, and became errors.",
            ("engine",),
            registry=self.registry,
        )
        self.warnings = Counter(
            "market_inference_answer_warnings",
            "Warnings in answers, by code: doubts about a series, a text or the answer.",
            ("method", "code"),
            registry=self.registry,
        )
        self.stuck = Gauge(
            "market_inference_engine_stuck",
            "1 while an engine's batch runs for longer than the configured time.",
            ("engine",),
            registry=self.registry,
        )
        self.queued_items = Gauge(
            "market_inference_queued_items", "Items waiting.", ("engine",), registry=self.registry
        )
        self.queued_seconds = Gauge(
            "market_inference_queued_seconds", "Expected time of the waiting work.", ("engine",), registry=self.registry
        )
        self.queue_limit = Gauge(
            "market_inference_queue_limit_seconds",
            "Expected time of waiting work above which the queue refuses more.",
            ("engine",),
            registry=self.registry,
        )
        self.in_flight = Gauge("market_inference_in_flight_requests", "Requests in flight.", registry=self.registry)
        self.sessions = Gauge("market_inference_sessions", "Live sessions.", registry=self.registry)
        self.session_bytes = Gauge(
            "market_inference_session_bytes", "Bytes of the bars of live sessions.", registry=self.registry
        )
        self.sessions_opened = Counter(
            "market_inference_sessions_opened", "Sessions requested, refused ones included.", registry=self.registry
        )
        self.sessions_ended = Counter(
            "market_inference_sessions_ended",
            "Sessions that ended: CLOSED by the caller, or the reason of the error sent to the caller.",
            ("reason",),
            registry=self.registry,
        )
        self.session_bars = Counter(
            "market_inference_session_bars", "Bars of sessions: taken or refused.", ("outcome",), registry=self.registry
        )
        self.interval_checks = Counter(
            "market_inference_watch_interval_checks",
            "Closes compared with the 80% interval that a session's forecast gave one bar ahead.",
            ("model", "version"),
            registry=self.registry,
        )
        self.interval_hits = Counter(
            "market_inference_watch_interval_hits",
            "Closes inside that interval.",
            ("model", "version"),
            registry=self.registry,
        )
        self.model_items = self._of_version("items", "Items that a model has run.")
        self.model_failures = self._of_version("failures", "Items that a model has failed.")
        self.model_seconds = self._of_version("busy_seconds", "Cost of a model's batches, in seconds of the engine.")
        self.shadowed = Counter(
            "market_inference_shadow_items",
            "Answers of a model in the shadow, compared with the answers that callers got: agree, differ or failed.",
            ("engine", "model", "version", "outcome"),
            registry=self.registry,
        )
        self.models = Gauge(
            "market_inference_model_ready",
            "1 if an engine's default model is loaded.",
            ("engine", "model"),
            registry=self.registry,
        )

        # The lookup of a labelled child costs more than counting, so each child is looked up once.
        self._requests = cache(self.requests.labels)

    def _of_version(self, name: str, text: str) -> Counter:
        labels = ("engine", "model", "version")
        return Counter(f"market_inference_model_{name}", text, labels, registry=self.registry)

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

    def watch_models(self, slots: Iterable[Slot]) -> None:
        self.registry.register(LoadedModels(slots))

    def watch_device(self, device: Collector) -> None:
        """Add a GPU's metrics; not called on a CPU."""
        self.registry.register(device)

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

    def checked(self, model: str, version: str, hit: bool) -> None:
        """Count a close that was compared with a forecast's interval."""
        self._checks(model, version).inc()
        # Add 0, too: a model without hits needs the series for its ratio.
        self._hits(model, version).inc(hit)


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
        self._of_version = cache(self._counters)

    def _counters(self, model: str, version: str) -> tuple[Counter, Counter, Counter]:
        metrics = self._metrics
        found = metrics.model_items, metrics.model_failures, metrics.model_seconds
        items, failures, seconds = (one.labels(self._engine, model, version) for one in found)
        return items, failures, seconds

    def batch(self, plan: BatchPlan, result: BatchResult, units: int) -> None:
        self._items.observe(plan.items)
        self._seconds.observe(result.ended - result.started)
        self._units.inc(units)
        self._padding.inc(units - sum(entry.units * entry.count for entry in plan.batch))
        model = plan.batch[0].job.model
        if (version := getattr(model, "version", None)) is not None:  # the preparation of texts has none
            items, failures, busy = self._of_version(model.name, version)
            items.inc(len(result.outcomes))
            failures.inc(sum(isinstance(outcome, Exception) for outcome in result.outcomes))
            busy.inc(result.busy)
        if result.oom_recoveries:
            self._recoveries.inc(result.oom_recoveries)
        if result.invalid:
            self._invalid.inc(result.invalid)

    def refused(self, reason: str) -> None:
        self._metrics.refusals.labels(self._engine, reason).inc()

    def dropped(self, count: int) -> None:
        self._dropped.inc(count)
