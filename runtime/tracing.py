"""Spans of requests, as OpenTelemetry knows them, on their way to a collector (OTLP over gRPC).

Owns the exporter, the sampling, the way of a trace's identity between processes (W3C Trace Context) and the form of a
span. Which parts a request has is each service's. Nothing of OpenTelemetry is imported before a Traces is made.

Names and attributes follow OpenTelemetry's semantic conventions for RPC; what they do not name is `market.*`. Neither
texts nor series nor keys are given to a span.

Sources: https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from market_inference.contract import deadline
from runtime.extra import ExtraMissingError

if TYPE_CHECKING:
    from opentelemetry import trace

Attributes = Mapping[str, str | int | float]
Kind = Literal["server", "internal"]

# The collector gets at least so long when requests have used up the time to drain.
LEAST_FLUSH_SECONDS = 1.0
# Requests in one batch that its span may point at; OpenTelemetry's own limit is 128.
_MOST_LINKS = 1024
# What gRPC's conventions call an error of the server; the rest are the caller's.
_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def check(endpoint: str) -> str:
    """The endpoint itself. Raises ValueError when it is neither empty nor a URL."""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError("must be http://HOST:PORT, or https:// for TLS")
    return endpoint


Endpoint = Annotated[str, AfterValidator(check)]
"""A collector's gRPC endpoint such as http://collector:4317; empty for none."""


class Span:
    """Something that takes time in this process, from `began`, an instant of the monotonic clock.

    `sampled`: whether it is recorded; where it is not, its identity travels on all the same, so that nobody after this
    process records it either.
    """

    __slots__ = ("_offset", "_span", "_tracer", "sampled", "traceparent")

    def __init__(self, tracer: "trace.Tracer", span: "trace.Span", offset: int) -> None:
        self._tracer = tracer
        self._span = span
        self._offset = offset
        context = span.get_span_context()
        self.sampled = span.is_recording()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def link(self) -> "trace.Link":
        """For a span of another trace that has to do with this one."""
        from opentelemetry import trace

        return trace.Link(self._span.get_span_context())

    def part(
        self, name: str, began: float, ended: float, attributes: Attributes, links: Sequence["trace.Link"] = ()
    ) -> None:
        """Add a child that is over already."""
        from opentelemetry import trace

        parent = trace.set_span_in_context(self._span)
        at = self._offset + int(began * 1e9)
        child = self._tracer.start_span(name, parent, attributes=attributes, links=links, start_time=at)
        child.end(self._offset + int(ended * 1e9))

    def end(self, code: str, reason: str, at: float, attributes: Attributes) -> None:
        """It was over at an instant of the monotonic clock, with a status code's name, and the reason of a failure."""
        if not self.sampled:
            return
        from opentelemetry import trace

        self._span.set_attributes({"rpc.response.status_code": code, **attributes})
        if reason:
            self._span.set_attribute("market.reason", reason)
        if code in _SERVER_ERRORS:
            self._span.set_attribute("error.type", code)
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end(self._offset + int(at * 1e9))


class Traces:
    """Makes spans and sends them from a thread of its own; a collector that is away or slow costs spans, not requests.

    `service` and `instance` name this process, `setting` is what asked for traces. Of traces that begin here `ratio`
    (0 to 1) are recorded; one that comes from elsewhere is recorded when it is there. Raises ExtraMissingError.
    """

    def __init__(self, endpoint: str, ratio: float, *, service: str, instance: str, version: str, setting: str) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider, sampling
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError as error:
            raise ExtraMissingError(setting, "traces") from error
        identity = {"service.name": service, "service.instance.id": instance, "service.version": version}
        resource = Resource.create(identity)
        self._exporter = OTLPSpanExporter(endpoint)
        self._processor = BatchSpanProcessor(self._exporter)
        self._propagator = TraceContextTextMapPropagator()
        # A batch is no part of one request's trace, and is recorded when a recorded request is in it.
        samplers = (sampling.ParentBased(sampling.TraceIdRatioBased(ratio)), sampling.ALWAYS_ON)
        limits = SpanLimits(max_links=_MOST_LINKS)
        providers = [TracerProvider(one, resource, shutdown_on_exit=False, span_limits=limits) for one in samplers]
        for provider in providers:
            provider.add_span_processor(self._processor)
        self._requests, self._batches = (provider.get_tracer("market-inference", version) for provider in providers)

    def request(self, name: str, kind: Kind, traceparent: str, began: float, attributes: Attributes) -> Span:
        """The span of a request that came with a `traceparent`; an empty or malformed one begins a trace."""
        from opentelemetry import trace

        kinds = {"server": trace.SpanKind.SERVER, "internal": trace.SpanKind.INTERNAL}
        offset = _offset()
        span = self._requests.start_span(
            name,
            self._propagator.extract({"traceparent": traceparent}),
            kind=kinds[kind],
            attributes=attributes,
            start_time=offset + int(began * 1e9),
        )
        return Span(self._requests, span, offset)

    def batch(
        self, name: str, began: float, ended: float, requests: Sequence[Span], attributes: Attributes
    ) -> "trace.Link":
        """Add the span of work for several requests at once, which points at each; they may point back at it."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        offset = _offset()
        links = [span.link for span in requests]
        at = offset + int(began * 1e9)
        span = self._batches.start_span(name, Context(), attributes=attributes, links=links, start_time=at)
        span.end(offset + int(ended * 1e9))
        return trace.Link(span.get_span_context())

    async def close(self, until: float) -> None:
        """Send what is left, until an instant of the monotonic clock or a little longer; the rest is dropped."""
        await asyncio.to_thread(self._close, max(LEAST_FLUSH_SECONDS, until - deadline.now()))

    def _close(self, seconds: float) -> None:
        # The SDK's own bound is 30 s and not to be chosen.
        flushing = Thread(target=self._processor.shutdown, name="traces-flush", daemon=True)
        flushing.start()
        flushing.join(seconds)
        if flushing.is_alive():
            self._exporter.shutdown()


def _offset() -> int:
    """What makes an instant of the monotonic clock a time since the epoch, in nanoseconds."""
    return time.time_ns() - int(deadline.now() * 1e9)
