"""A gateway for the client's tests: the generated servicer on a real socket, with answers that each test chooses."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import status_pb2
from grpc_status import rpc_status

from market_inference.contract.errors import ServiceError, ServiceUnavailableError
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import (
    MarketInferenceServiceServicer,
    add_MarketInferenceServiceServicer_to_server,
)

METHODS = ("Predict", "AnalyzeSentiment", "ComputeIndicators", "Analyze", "GetStatus", "ListModels")
LEVELS = np.arange(1, 10) / 10


class FakeService(MarketInferenceServiceServicer):
    """Answers by plain arithmetic; `on` replaces a method's answer, `calls` keeps (method, request, metadata)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, dict[str, str | bytes]]] = []
        self.on: dict[str, Callable[[Any], Any]] = {
            "Predict": predict,
            "AnalyzeSentiment": sentiment,
            "ComputeIndicators": indicators,
            "Analyze": analyze,
            "GetStatus": lambda request: status(),
            "ListModels": lambda request: models(),
        }
        self.target = ""

    def method(self, name: str) -> Callable[[Any, grpc.ServicerContext], Message]:
        def call(request: Any, context: grpc.ServicerContext) -> Message:
            metadata = dict(context.invocation_metadata())
            self.calls.append((name, request, metadata))
            request_id = str(metadata["x-request-id"])
            try:
                answer = self.on[name](request)
            except ServiceError as error:
                context.abort_with_status(rpc_status.to_status(error.status(request_id)))
            answer.request_id = request_id
            return answer

        return call

    @property
    def methods_called(self) -> list[str]:
        return [name for name, _, _ in self.calls]

    def fail(self, method: str, error: ServiceError, times: int = 1) -> None:
        """The next `times` calls of a method end with `error`, then it answers as before."""
        before, left = self.on[method], iter(range(times))

        def answer(request: Any) -> Any:
            if next(left, None) is not None:
                raise error
            return before(request)

        self.on[method] = answer


def predict(request: pb.PredictRequest) -> pb.PredictResponse:
    """A random walk without noise; quantiles fan out by one per level and step. A series with a NaN fails alone."""
    levels = np.sort(np.array(request.quantiles)) if request.quantiles else LEVELS
    answer = pb.PredictResponse(quantile_levels=levels, model=request.model or "walk", model_version="1")
    steps = np.arange(1, request.horizon + 1)
    for at, series in enumerate(request.series):
        values = np.array(series.values)
        refused = bool(np.isnan(values).any()) or series.symbol == "BAD"
        # As in the gateway, the content of a refused item does not come back.
        item = answer.forecasts.add(symbol="" if refused else series.symbol)
        if refused:
            item.error.CopyFrom(failed_item(f"series[{at}].values: must be finite"))
            continue
        item.forecast.point.extend(np.full(request.horizon, values[-1]))
        item.forecast.quantiles.extend((values[-1] + np.outer(steps, levels - 0.5)).ravel())
        item.forecast.coverage.nominal, item.forecast.coverage.measured, item.forecast.coverage.origins = 0.8, 0.75, 12
        item.forecast.context = len(values)
    return answer


def sentiment(request: pb.AnalyzeSentimentRequest) -> pb.AnalyzeSentimentResponse:
    answer = pb.AnalyzeSentimentResponse(model=request.model or "words", model_version="1")
    for at, text in enumerate(request.texts):
        if not text:
            answer.sentiments.add().error.CopyFrom(failed_item(f"texts[{at}]: must not be empty"))
            continue
        up = 0.75 if "up" in text else 0.125
        label = pb.SENTIMENT_LABEL_POSITIVE if up > 0.5 else pb.SENTIMENT_LABEL_NEGATIVE
        found = answer.sentiments.add().sentiment
        found.label, found.positive, found.neutral, found.negative = label, up, 0.125, 0.875 - up
        found.score, found.chunks = 2 * up - 0.875, 1
    return answer


def indicators(request: pb.ComputeIndicatorsRequest) -> pb.ComputeIndicatorsResponse:
    """MACD has three outputs, all others one: the closes times the parameter `timeperiod`, or 1."""
    answer = pb.ComputeIndicatorsResponse(model="ta", model_version="1")
    for panel in request.panels:
        item = answer.panels.add(symbol=panel.symbol)
        close = np.array(panel.close)
        if close[-1] < 0:
            item.error.CopyFrom(failed_item("panels[?].close: must be positive"))
            continue
        for spec in request.indicators:
            found = item.indicators.indicators.add(name=spec.name)
            names = ("macd", "macdsignal", "macdhist") if spec.name == "MACD" else ("real",)
            for at, name in enumerate(names):
                values = close * spec.params.get("timeperiod", 1.0) + at
                found.outputs.add(name=name, values=values[-spec.last :])
    return answer


def analyze(request: pb.AnalyzeRequest) -> pb.AnalyzeResponse:
    answer = pb.AnalyzeResponse()
    if request.HasField("predict"):
        answer.predict.CopyFrom(predict(request.predict))
    if request.HasField("sentiment"):
        answer.sentiment_error.CopyFrom(ServiceUnavailableError("the sentiment model is not available").status("id"))
    if request.HasField("indicators"):
        answer.indicators.CopyFrom(indicators(request.indicators))
    return answer


def status() -> pb.GetStatusResponse:
    answer = pb.GetStatusResponse(health=pb.HEALTH_DEGRADED, version="0.1.0")
    answer.time.FromJsonString("2026-01-02T03:04:05Z")
    replica = answer.replicas.add(name="one", health=pb.HEALTH_DEGRADED, uptime_seconds=12.5)
    replica.device.kind, replica.device.name, replica.device.count = "cpu", "test", 1
    replica.engines.add(name="forecast", health=pb.HEALTH_HEALTHY, model="auto", loaded=True, probe_seconds=0.003)
    replica.engines.add(name="sentiment", health=pb.HEALTH_UNHEALTHY, model="minilm", message="no such file")
    return answer


def models() -> pb.ListModelsResponse:
    answer = pb.ListModelsResponse()
    answer.models.add(name="auto", engine="forecast", state=pb.MODEL_STATE_READY, is_default=True, version="3")
    answer.models.add(name="fracast", engine="forecast", state=pb.MODEL_STATE_AVAILABLE)
    return answer


def failed_item(message: str) -> status_pb2.Status:
    return status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=message)


for _name in METHODS:
    setattr(FakeService, _name, property(lambda self, name=_name: self.method(name)))


@pytest.fixture
def service() -> Iterator[FakeService]:
    """The service, listening at `service.target` while the test runs."""
    fake = FakeService()
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)])
    add_MarketInferenceServiceServicer_to_server(fake, server)
    fake.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield fake
    server.stop(None).wait(60)


@pytest.fixture(autouse=True)
def no_state_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Neither the user's key nor the user's state folder reaches a test."""
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("MARKET_INFERENCE_API_KEY", raising=False)
    monkeypatch.delenv("MARKET_INFERENCE_TARGET", raising=False)
