"""The worker's actions: the servicer of the inference service, called in process.

Owns the servicer call behind each action, and the steps of a request. The shape of results belongs to
replies.py; jobs, errors and the SDK belong to handler.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from google.protobuf.message import Message

from inference.build import build
from inference.calls.call import ReplicaCall
from inference.config import Config as ServiceConfig
from inference.device.cuda import device_figures, pick_device, release_memory
from market_inference.contract import methods
from market_inference.contract.encoding import twins
from market_inference.contract.errors import (
    InvalidRequestError,
    RemoteError,
    RequestTooLargeError,
    ServiceError,
    Violation,
)
from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import decode, encode, forms, mistakes
from market_inference.contract.methods import Method
from market_inference.contract.validation import explain
from market_inference.contract.validation.check import check_message
from runtime import malloc
from runtime.metrics.scrape import MetricsServer
from runtime.watcher import WatcherCollector
from serverless import health, watch
from serverless.config import Config
from serverless.memory import Memory, process_share
from serverless.request import Request

_METHODS = {method.action: method for method in methods.METHODS.values()}
_FORMS: dict[str, Callable[[forms.Body], tuple[dict[str, Any], forms.Names]]] = {
    "predict": forms.predict,
    "sentiment": forms.sentiment,
    "indicators": forms.indicators,
    "analyze": forms.analyze,
}


class Worker:
    """Answers requests with the parts of the inference service. Construct on the running event loop."""

    def __init__(self, config: Config, service: ServiceConfig) -> None:
        self.parts = build(service)
        self._watching = None
        if self.parts.registry is not None:
            watcher = self.parts.registry.watcher(service.registry_interval)
            self.parts.metrics.registry.register(WatcherCollector("inference", [watcher]))
            self._watching = asyncio.create_task(watcher.run())
        self._device = pick_device(service.device)
        self.memory = Memory(config.memory_policy, config.memory_pressure, self._memory_share, self._release_memory)
        self._streamed = {"predict_stream": self._predict_stream, "watch": self._watch}
        self.metrics_address = ""
        if config.metrics_listen:
            self.metrics_address = MetricsServer(config.metrics_listen, self.parts.metrics.registry).address

    def close(self) -> None:
        """End the engines' threads. No request may be in flight."""
        if self._watching is not None:
            self._watching.cancel()
        self.parts.close()

    def _memory_share(self) -> float:
        figures = device_figures(self._device)
        return max(process_share(), figures.reserved / figures.total if figures.total else 0.0)

    async def _release_memory(self) -> None:
        engine, *_ = self.parts.engines.values()
        await engine.call(release_memory)
        await asyncio.to_thread(malloc.trim)

    async def answer(self, request: Request, call: ReplicaCall) -> dict[str, Any]:
        """The output of an action with one output: decode, validate, serve, encode. Raises ServiceError."""
        if request.action == "health":
            return await self._health(request, call)
        method = _METHODS[request.action]
        if (form := _FORMS.get(request.action)) is not None:
            request.body, request.names = form(request.body)
        _, raw = read(method, request, call)
        response = await getattr(self.parts.servicer, method.field)(raw, call)
        return encode.to_json(method.response.FromString(response), request.names)

    def stream(self, request: Request, call: ReplicaCall) -> AsyncGenerator[dict[str, Any], None]:
        """The outputs of an action with several outputs. Raises ServiceError."""
        return self._streamed[request.action](request, call)

    async def _health(self, request: Request, call: ReplicaCall) -> dict[str, Any]:
        """Load the default models if needed, then report."""
        read(methods.METHODS["GetStatus"], request, call)
        await self.parts.catalog.load_defaults()
        answer = await self.parts.servicer.status(b"", call)
        return health.to_json(inference_pb2.GetStatusResponse.FromString(answer).replicas[0], call.request_id)

    async def _predict_stream(self, request: Request, call: ReplicaCall) -> AsyncGenerator[dict[str, Any], None]:
        """One output per series, in order of completion; `index` is the series' place in the request."""
        request.body, request.names = forms.predict(request.body)
        message, _ = read(methods.METHODS["Predict"], request, call)
        assert isinstance(message, inference_pb2.PredictRequest)  # noqa: S101 -- narrows the type
        if message.groups:
            text = "are answered as a whole: ask with the action predict"
            raise InvalidRequestError([Violation("groups", text, "group")])
        await self.parts.catalog.get("forecast", message.model)
        refused, call.refused = call.refused, {}
        for (_, index), status in refused.items():
            yield {
                "index": index,
                "error": mistakes.text(status, request.names),
                "error_type": mistakes.error_type(status),
            }
        alone = [index for index in range(len(message.series)) if ("series", index) not in refused]
        tasks = [asyncio.create_task(self._one_series(message, index, request, call)) for index in alone]
        try:
            for ready in asyncio.as_completed(tasks):
                yield await ready
        finally:
            for task in tasks:
                task.cancel()

    async def _one_series(
        self, message: inference_pb2.PredictRequest, index: int, request: Request, call: ReplicaCall
    ) -> dict[str, Any]:
        one = inference_pb2.PredictRequest()
        one.CopyFrom(message)
        del one.series[:]
        one.series.append(message.series[index])
        try:
            answer = await self.parts.servicer.predict(twins.rewrite(one), call)
        except ServiceError as error:
            status = error.status(call.request_id)
            return {"index": index, "error": mistakes.text(status, {}), "error_type": mistakes.error_type(status)}
        output = encode.to_json(inference_pb2.PredictResponse.FromString(answer), {})
        del output["request_id"]
        return {"index": index, **output.pop("forecasts")[0], **output}

    async def _watch(self, request: Request, call: ReplicaCall) -> AsyncGenerator[dict[str, Any], None]:
        """One output per bar of `bars`, computed from the history and all bars up to the answered bar."""
        asked = watch.read(request.body)
        request.body, request.names = asked.body, asked.names
        message, _ = read(methods.METHODS["Analyze"], request, call)
        assert isinstance(message, inference_pb2.AnalyzeRequest)  # noqa: S101 -- narrows the type
        # A watch has one series and one panel, so an error of an item is an error of the watch.
        for status in call.refused.values():
            raise RemoteError(status)
        # The check above saw all bars. The first answer has the shortest request, which may be too short.
        for refusal in explain.check(watch.until(message, asked.history + 1)):
            raise refusal.error
        for bar in range(asked.bars):
            seen = watch.until(message, asked.history + bar + 1)
            answer = inference_pb2.AnalyzeResponse.FromString(
                await self.parts.servicer.analyze(twins.rewrite(seen), call)
            )
            output = encode.to_json(answer, request.names)
            del output["request_id"]
            yield {"bar": bar, **output}


def read(method: Method, request: Request, call: ReplicaCall) -> tuple[Message, bytes]:
    """The request's message, checked by the contract, and its bytes; refused items go to `call.refused`.

    The size of the answer is computed from the request, so that a request for too large an answer costs nothing. The
    outputs of a streamed action count together: the job holds all of them. Raises ServiceError.
    """
    message = decode.message(method.request, request.body)
    size = message.ByteSize()
    if size > method.max_request_bytes:
        raise RequestTooLargeError(method.max_request_bytes, size)
    checked = check_message(method, message)
    call.refused = {
        (refusal.list_name, refusal.index): refusal.error.status(call.request_id) for refusal in checked.refused
    }
    return message, checked.raw
