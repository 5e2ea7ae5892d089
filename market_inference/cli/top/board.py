"""The figures of one view, computed from the scrapes of all services. A pure function.

Owns the names of the metrics and the arithmetic over them. A metric that a service does not have, such as an older
version, leaves its figure out of the view. view.py draws the figures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from market_inference.cli.top import interval
from market_inference.cli.top.interval import Histogram, Interval, Quantile
from market_inference.cli.top.look import Look
from market_inference.cli.top.services import Seen

LEVELS = (0.5, 0.95, 0.99)
_STATES = "market_gateway_replicas"


@dataclass(frozen=True, slots=True)
class Service:
    """One process: the address of its /metrics, and the reason why the address is not reachable ("" when reachable)."""

    kind: str
    address: str
    problem: str


@dataclass(frozen=True, slots=True)
class Traffic:
    """A method of the gateway, or a route of the edge: answers per second, and failed ones by status code."""

    method: str
    rate: float
    errors: dict[str, float]


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of one phase of a method in the interval, at LEVELS."""

    kind: str
    method: str
    phase: str
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine, summed over the replicas. None where the interval holds no observation.

    `items`: mean items of a batch, and the quantiles at LEVELS. `units`: points, tokens or bars times functions per
    second, without padding. `padding`: share of padding in all units. `busy`: share of the time with a batch running.
    """

    name: str
    batches: float | None
    items: float | None
    item_quantiles: tuple[Quantile, ...]
    units: float | None
    padding: float | None
    busy: float | None
    queued_items: float
    queued_seconds: float
    dropped: float
    recoveries: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Refusals per second; `where` is a method of the gateway or an engine that refused at admission."""

    kind: str
    where: str
    reason: str
    rate: float


@dataclass(frozen=True, slots=True)
class Model:
    """An engine's default model, and the number of replicas with the model loaded."""

    engine: str
    model: str
    ready: float
    of: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share of closes inside the 80% interval that live sessions forecast; `checks` closes per second."""

    model: str
    checks: float
    share: float


@dataclass(frozen=True, slots=True)
class Device:
    """A replica's GPU: memory in bytes, and the recent share of time with a kernel running. None where not reported.

    `reserved` is the memory of the replica itself, `used` the memory of all processes on the device.
    """

    address: str
    reserved: float | None
    used: float | None
    total: float | None
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class Board:
    """All figures of one view. `seconds` is the interval's length, None before the second scrape."""

    seconds: float | None
    services: list[Service] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    http: list[Traffic] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    coverage: list[Coverage] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    # Gauges by name; a gauge that no service has is left out.
    now: dict[str, float] = field(default_factory=dict)


def board(seen: Sequence[Seen]) -> Board:
    """The figures of the newest scrapes."""
    gateways, replicas, edges = _Kind(seen, "gateway"), _Kind(seen, "inference"), _Kind(seen, "edge")
    intervals = [*gateways.intervals, *replicas.intervals, *edges.intervals]
    return Board(
        seconds=max((one.seconds for one in intervals), default=None),
        services=[Service(one.kind, one.address, one.problem) for one in seen],
        traffic=_traffic(gateways.rates("market_gateway_requests_total", "method", "code"), lambda code: code == "OK"),
        http=_traffic(edges.rates("market_edge_requests_total", "route", "status"), lambda status: status < "400"),
        latencies=[
            *_latencies(gateways, "market_gateway_request_phase_seconds"),
            *_latencies(replicas, "market_inference_request_phase_seconds"),
            *_http_latencies(edges),
        ],
        engines=_engines(replicas),
        refusals=[
            *_refusals(gateways, "market_gateway_refusals_total", "method"),
            *_refusals(replicas, "market_inference_refusals_total", "engine"),
        ],
        models=_models(replicas),
        coverage=_coverage(replicas),
        devices=[device for one in seen if one.look is not None and (device := _device(one.address, one.look))],
        now=_now(gateways, replicas, edges),
    )


class _Kind:
    """All processes of one kind: the newest scrapes, and the intervals of processes with two scrapes."""

    def __init__(self, seen: Sequence[Seen], kind: str) -> None:
        self.kind = kind
        self.looks: list[Look] = [one.look for one in seen if one.kind == kind and one.look is not None]
        self.intervals: list[Interval] = [
            one.interval for one in seen if one.kind == kind and one.interval is not None and one.interval.seconds > 0
        ]

    def rates(self, name: str, *by: str) -> dict[interval.Group, float]:
        return interval.rates(self.intervals, name, *by)

    def histograms(self, name: str, *by: str) -> dict[interval.Group, Histogram]:
        return interval.histograms(self.intervals, name, *by)

    def gauges(self, name: str, *by: str) -> dict[interval.Group, float]:
        return interval.gauges(self.looks, name, *by)


def _traffic(rates: dict[interval.Group, float], is_good: Callable[[str], bool]) -> list[Traffic]:
    made = []
    for method in sorted({method for method, _ in rates}):
        by_code = {code: rate for (of, code), rate in sorted(rates.items()) if of == method and rate}
        if by_code:
            errors = {code: rate for code, rate in by_code.items() if not is_good(code)}
            made.append(Traffic(method, sum(by_code.values()), errors))
    return made


def _latencies(services: _Kind, name: str) -> list[Latency]:
    found = services.histograms(name, "method", "phase")
    return [Latency(services.kind, method, phase, _quantiles(found[method, phase])) for method, phase in sorted(found)]


def _http_latencies(edges: _Kind) -> list[Latency]:
    found = edges.histograms("market_edge_request_seconds", "route")
    return [Latency("edge", route, "total", _quantiles(found[route,])) for (route,) in sorted(found)]


def _quantiles(histogram: Histogram) -> tuple[Quantile, ...]:
    return tuple(found for level in LEVELS if (found := histogram.quantile(level)) is not None)


def _engines(replicas: _Kind) -> list[Engine]:
    queued = replicas.gauges("market_inference_queued_items", "engine")
    waiting = replicas.gauges("market_inference_queued_seconds", "engine")
    items = replicas.histograms("market_inference_batch_items", "engine")
    busy = replicas.rates("market_inference_batch_seconds_sum", "engine")
    batches = replicas.rates("market_inference_batch_seconds_count", "engine")
    padded = replicas.rates("market_inference_batch_padding_units_total", "engine")
    units = replicas.rates("market_inference_batch_units_total", "engine")
    dropped = replicas.rates("market_inference_dropped_items_total", "engine")
    recoveries = replicas.rates("market_inference_out_of_memory_recoveries_total", "engine")
    count = len(replicas.intervals)
    made = []
    for key in sorted(queued.keys() | items.keys()):
        sizes = items.get(key, Histogram())
        engine = Engine(
            name=key[0],
            batches=batches.get(key),
            items=sizes.mean,
            item_quantiles=_quantiles(sizes),
            units=units[key] - padded.get(key, 0.0) if key in units else None,
            padding=interval.share(padded, units, key),
            busy=busy[key] / count if key in busy else None,
            queued_items=queued.get(key, 0.0),
            queued_seconds=waiting.get(key, 0.0),
            dropped=dropped.get(key, 0.0),
            recoveries=recoveries.get(key, 0.0),
        )
        made.append(engine)
    return made


def _refusals(services: _Kind, name: str, where: str) -> list[Refusal]:
    rates = services.rates(name, where, "reason")
    return [Refusal(services.kind, what, reason, rate) for (what, reason), rate in sorted(rates.items()) if rate]


def _models(replicas: _Kind) -> list[Model]:
    ready = replicas.gauges("market_inference_model_ready", "engine", "model")
    return [Model(engine, model, count, len(replicas.looks)) for (engine, model), count in sorted(ready.items())]


def _coverage(replicas: _Kind) -> list[Coverage]:
    checks = replicas.rates("market_inference_watch_interval_checks_total", "model")
    hits = replicas.rates("market_inference_watch_interval_hits_total", "model")
    return [Coverage(model, rate, hits.get((model,), 0.0) / rate) for (model,), rate in sorted(checks.items()) if rate]


def _device(address: str, look: Look) -> Device | None:
    names = ("memory_reserved_bytes", "memory_used_bytes", "memory_total_bytes", "utilisation_ratio")
    told = [interval.gauges([look], f"market_inference_device_{name}").get(()) for name in names]
    return Device(address, *told) if any(value is not None for value in told) else None


def _now(gateways: _Kind, replicas: _Kind, edges: _Kind) -> dict[str, float]:
    """Gauges summed over the processes; of replica counts the worst that any gateway sees: all share the replicas."""
    looked_for = {
        "requests in flight (gateway)": (gateways, "market_gateway_in_flight_requests"),
        "requests in flight (inference)": (replicas, "market_inference_in_flight_requests"),
        "requests in flight (edge)": (edges, "market_edge_in_flight_requests"),
        "sessions (edge)": (edges, "market_edge_open_watches"),
        "sessions": (replicas, "market_inference_sessions"),
        "session bytes": (replicas, "market_inference_session_bytes"),
    }
    found = {name: services.gauges(metric).get(()) for name, (services, metric) in looked_for.items()}
    found |= {
        f"open {method} calls": count
        for (method,), count in gateways.gauges("market_gateway_open_streams", "method").items()
    }
    ready = [value for look in gateways.looks for _, value in look.all("market_gateway_ready_replicas")]
    found["replicas ready"] = min(ready, default=None)
    states = [(labels["state"], value) for look in gateways.looks for labels, value in look.all(_STATES)]
    for state, value in states:
        if state != "ready" and value:
            found[f"replicas {state}"] = max(value, found.get(f"replicas {state}") or 0.0)
    return {name: value for name, value in found.items() if value is not None}
