"""OpenTelemetry traces: spans of requests, exported to a collector (OTLP over gRPC).

Owns the exporter, the sampling, the transport of a trace's identity between processes (W3C Trace Context) and the form
of a span. Each service owns the names of its spans. Making a Traces imports OpenTelemetry; importing this module does
not.

Names and attributes follow OpenTelemetry's semantic conventions for RPC; other attributes are named `market.*`. A span
holds no texts, series or keys.

Sources: https://www.w3.org/TR/trace-context/, https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

import asyncio
import os
import socket
import time
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from market_inference.contract import deadline
from runtime.extra import ExtraMissingError

if TYPE_CHECKING:
    from opentelemetry import trace

Attributes = Mapping[str, str | int | float]
Kind = Literal["server", "internal"]

# The least time for the last export, if the requests in flight have used up the drain time.
LEAST_FLUSH_SECONDS = 1.0
# Bound of the links of a batch's span to requests; OpenTelemetry's default is 128.
_MOST_LINKS = 1024
# Status codes that gRPC's conventions call errors of the server. Other codes are errors of the caller.
_SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def check(endpoint: str) -> str:
    """The endpoint unchanged. Raises ValueError unless the endpoint is empty or a URL."""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise ValueError("must be http://HOST:PORT, or https:// for TLS")
    return endpoint


Endpoint = Annotated[
    str,
    AfterValidator(check),
    Field(description="OpenTelemetry collector for traces (OTLP over gRPC), such as http://collector:4317"),
]
"""The setting of a collector's gRPC endpoint; empty for none."""
Ratio = Annotated[
    float,
    Field(ge=0, le=1, description="share of the traces that begin here to record; a caller's own trace keeps its flag"),
]


class Span:
    """A unit of work in this process. Instants are of the monotonic clock, in seconds.

    `sampled`: whether the span is recorded. The identity of a span that is not recorded still travels on, so that later
    processes do not record the trace either.
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
        """A link to this span, for a span of another trace."""
        from opentelemetry import trace

        return trace.Link(self._span.get_span_context())

    def part(
        self, name: str, began: float, ended: float, attributes: Attributes, links: Sequence["trace.Link"] = ()
    ) -> None:
        """Add a child span that has ended."""
        from opentelemetry import trace

        parent = trace.set_span_in_context(self._span)
        at = self._offset + int(began * 1e9)
        child = self._tracer.start_span(name, parent, attributes=attributes, links=links, start_time=at)
        child.end(self._offset + int(ended * 1e9))

    def end(self, code: str, reason: str, at: float, attributes: Attributes) -> None:
        """End the span at an instant, with the name of a status code, and the reason of a failure."""
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
    """Makes spans and exports them from a separate thread. A missing or slow collector loses spans and delays nothing.

    `service` and `instance` name this process; `setting` is the setting that turned traces on. `ratio` (0 to 1) is the
    share of the traces begun here that is recorded; a trace from another process keeps that process's choice. Raises
    ExtraMissingError.
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
        # A batch belongs to no single request's trace. A batch with a recorded request is recorded.
        samplers = (sampling.ParentBased(sampling.TraceIdRatioBased(ratio)), sampling.ALWAYS_ON)
        limits = SpanLimits(max_links=_MOST_LINKS)
        providers = [TracerProvider(one, resource, shutdown_on_exit=False, span_limits=limits) for one in samplers]
        for provider in providers:
            provider.add_span_processor(self._processor)
        self._requests, self._batches = (provider.get_tracer("market-inference", version) for provider in providers)

    @classmethod
    def of(cls, endpoint: str, ratio: float, service: str, version: str, instance: str = "") -> "Traces | None":
        """The traces of a service, as "gateway"; None without endpoint. `instance`: by default host and process."""
        if not endpoint:
            return None
        return cls(
            endpoint,
            ratio,
            service=f"market-{service}",
            instance=instance or f"{socket.gethostname()}:{os.getpid()}",
            version=version,
            setting=f"MARKET_{service.upper()}_OTLP_ENDPOINT",
        )

    def request(self, name: str, kind: Kind, traceparent: str, began: float, attributes: Attributes) -> Span:
        """The span of a request with a `traceparent`. An empty or malformed traceparent begins a new trace."""
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
        """Add the span of work for several requests, with links to them; returns a link to the new span."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        offset = _offset()
        links = [span.link for span in requests]
        at = offset + int(began * 1e9)
        span = self._batches.start_span(name, Context(), attributes=attributes, links=links, start_time=at)
        span.end(offset + int(ended * 1e9))
        return trace.Link(span.get_span_context())

    async def close(self, until: float) -> None:
        """Export the remaining spans until an instant, or LEAST_FLUSH_SECONDS if that is later; drop the rest."""
        await asyncio.to_thread(self._close, max(LEAST_FLUSH_SECONDS, until - deadline.now()))

    def _close(self, seconds: float) -> None:
        # The SDK has a fixed bound of 30 s.
        flushing = Thread(target=self._processor.shutdown, name="traces-flush", daemon=True)
        flushing.start()
        flushing.join(seconds)
        if flushing.is_alive():
            self._exporter.shutdown()


def _offset() -> int:
    """Nanoseconds from an instant of the monotonic clock to the time since the epoch."""
    return time.time_ns() - int(deadline.now() * 1e9)
