"""Trace spans of a request in the inference service: queue, device and encoding.

Owns names and attributes of spans; runtime/tracing.py owns spans and their export. A request is a span of the gateway's
trace. A batch serves several requests and is a trace of its own: the batch links to its requests, and the `device` span
of a request links to the batch. Bars of live sessions have no spans.
"""

from typing import Any

from inference.batching.batcher import Observer
from inference.batching.job import BatchResult
from inference.batching.schedule import BatchPlan
from inference.calls.call import ReplicaCall
from inference.transport.exchange import SERVICE, Exchange
from market_inference.contract import deadline
from market_inference.contract.errors import CallCancelledError, code_name, reason_of
from market_inference.contract.generated import exchange_pb2
from runtime.tracing import Traces

_METHOD = f"{SERVICE.full_name}/Exchange"


class TracedExchange(Exchange):
    """An Exchange that records a span per request."""

    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    async def answer(
        self, envelope: exchange_pb2.Envelope, call: ReplicaCall, method: str, body: memoryview | None
    ) -> tuple[exchange_pb2.Reply, bytes | None]:
        """As Exchange.answer."""
        span = call.span = self._traces.request(
            f"{_METHOD} {method}",
            "server",
            envelope.traceparent,
            deadline.now(),
            {"rpc.system.name": "grpc", "rpc.method": _METHOD, "market.request_id": envelope.request_id},
        )
        code, reason = "CANCELLED", CallCancelledError.reason
        try:
            reply, response = await super().answer(envelope, call, method, body)
            code, reason = _outcome(reply)
            if span.sampled and reply.timing.encode_us:
                ended = deadline.now()
                span.part("encode", ended - reply.timing.encode_us * 1e-6, ended, {})
        finally:
            span.end(code, reason, deadline.now(), {"market.client": envelope.client} if envelope.client else {})
        return reply, response


def _outcome(reply: exchange_pb2.Reply) -> tuple[str, str]:
    if reply.HasField("error"):
        return code_name(reply.error.code), reason_of(reply.error)
    return "OK", ""


class BatchTraces:
    """Records a span per batch of one engine, as a batcher.Observer; passes every event on to another observer."""

    def __init__(self, traces: Traces, engine: str, observer: Observer) -> None:
        self._traces = traces
        self._engine = engine
        self._observer = observer

    def batch(self, plan: BatchPlan, result: BatchResult, units: int) -> None:
        self._observer.batch(plan, result, units)
        jobs = dict.fromkeys(entry.job for entry in plan.batch)
        traced = [job for job in jobs if job.span is not None and job.span.sampled]
        if not traced:
            return
        attributes = {
            "market.engine": self._engine,
            "market.model": traced[0].model.name,
            "market.requests": len(jobs),
            "market.items": plan.items,
            "market.units": units,
            "market.padding_units": units - sum(entry.units * entry.count for entry in plan.batch),
            "market.out_of_memory_recoveries": result.oom_recoveries,
        }
        spans = [job.span for job in traced]
        batch = self._traces.batch(f"batch {self._engine}", result.started, result.ended, spans, attributes)
        engine = {"market.engine": self._engine}
        for job in traced:
            job.span.part("queue", job.enqueued, result.started, engine)
            job.span.part("device", result.started, result.ended, engine, [batch])

    def refused(self, reason: str) -> None:
        self._observer.refused(reason)

    def dropped(self, count: int) -> None:
        self._observer.dropped(count)
