"""Trace spans of a request in the inference service: its queue, its time on the device, its encoding.

Owns names and attributes; spans and their way to a collector are runtime/tracing.py's. A request is a span of the
gateway's trace. A batch serves several requests, so a batch is a trace of its own: the batch links to its requests, and
the requests' `device` spans link to the batch. Bars of live sessions have no spans of their own.
"""

from typing import Any

from inference.batching.batcher import Observer, Ran
from inference.batching.schedule import Plan
from inference.calls.call import Call
from inference.transport.exchange import SERVICE, Exchange
from market_inference.contract import deadline
from market_inference.contract.errors import CallCancelledError, code_name, reason_of
from market_inference.contract.generated import exchange_pb2
from runtime.tracing import Traces

_METHOD = f"{SERVICE.full_name}/Exchange"


class TracedExchange(Exchange):
    """An Exchange whose requests have spans."""

    def __init__(self, traces: Traces, *parts: Any) -> None:
        super().__init__(*parts)
        self._traces = traces

    async def answer(self, envelope: exchange_pb2.Envelope, call: Call) -> tuple[exchange_pb2.Reply, bytes | None]:
        """As Exchange.answer."""
        method = envelope.WhichOneof("body") or "none"
        span = call.span = self._traces.request(
            f"{_METHOD} {method}",
            "server",
            envelope.traceparent,
            deadline.now(),
            {"rpc.system.name": "grpc", "rpc.method": _METHOD, "market.request_id": envelope.request_id},
        )
        code, reason = "CANCELLED", CallCancelledError.reason
        try:
            reply, response = await super().answer(envelope, call)
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
    """One engine's batches, as batcher.Observer. Tells another observer everything, too."""

    def __init__(self, traces: Traces, engine: str, observer: Observer) -> None:
        self._traces = traces
        self._engine = engine
        self._observer = observer

    def batch(self, plan: Plan, ran: Ran, units: int) -> None:
        self._observer.batch(plan, ran, units)
        jobs = dict.fromkeys(entry.job for entry in plan.batch)
        traced = [job for job in jobs if job.span is not None and job.span.sampled]
        if not traced:
            return
        told = {
            "market.engine": self._engine,
            "market.model": traced[0].model.name,
            "market.requests": len(jobs),
            "market.items": len(plan.batch),
            "market.units": units,
            "market.padding_units": units - sum(entry.size for entry in plan.batch),
            "market.out_of_memory_recoveries": ran.oom_recoveries,
        }
        spans = [job.span for job in traced]
        batch = self._traces.batch(f"batch {self._engine}", ran.started, ran.ended, spans, told)
        where = {"market.engine": self._engine}
        for job in traced:
            job.span.part("queue", job.enqueued, ran.started, where)
            job.span.part("device", ran.started, ran.ended, where, [batch])

    def refused(self, reason: str) -> None:
        self._observer.refused(reason)

    def dropped(self, count: int) -> None:
        self._observer.dropped(count)
