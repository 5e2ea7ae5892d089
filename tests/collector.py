"""A trace collector on a real socket, for tests of what the services export."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every received span with the name of the sending service."""

    def __init__(self) -> None:
        self.received: list[tuple[str, trace_pb2.Span]] = []
        self._came = threading.Condition()
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the contract's name
        with self._came:
            for resource in request.resource_spans:
                named = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.received.extend((named["service.name"], span) for span in scope.spans)
            self._came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait(self, enough: Callable[[], Any]) -> Any:
        """Wait until `enough` returns a true value, checked at every export, and return the value."""
        with self._came:
            assert self._came.wait_for(enough, timeout=60), [(at, span.name) for at, span in self.received]
            return enough()

    def spans(self, service: str, trace_id: bytes) -> dict[str, list[trace_pb2.Span]]:
        """The spans of one service and one trace, by name."""
        found: dict[str, list[trace_pb2.Span]] = {}
        for sender, span in self.received:
            if sender == service and span.trace_id == trace_id:
                found.setdefault(span.name, []).append(span)
        return found

    def close(self) -> None:
        self._server.stop(0).wait(60)
