"""The obvious server for comparison: grpc.aio, the same models, one request after another, no batching."""

import asyncio

import grpc
import numpy as np

from inference.calls import answers
from market_inference.contract.generated import inference_pb2_grpc as rpc
from models import forecast, indicators, sentiment


class Plain(rpc.MarketInferenceServiceServicer):
    def __init__(self) -> None:
        self.forecaster, self.classifier, self.talib = forecast.load("auto"), sentiment.load(), indicators.load()

    async def Predict(self, request, context):  # noqa: N802
        levels = tuple(request.quantiles)
        items = [forecast.Series(np.asarray(s.values), request.horizon, levels) for s in request.series]
        return answers.forecasts([""] * len(items), self.forecaster.run(items), levels, self.forecaster, "")

    async def AnalyzeSentiment(self, request, context):  # noqa: N802
        chunks = [chunk for chunks in self.classifier.prepare(request.texts) for chunk in chunks]
        return answers.sentiments([answers.Sentiment(p, 1) for p in self.classifier.run(chunks)], self.classifier, "")

    async def ComputeIndicators(self, request, context):  # noqa: N802
        program = indicators.compile([indicators.Spec(s.name, dict(s.params)) for s in request.indicators])
        columns = [{c: np.asarray(getattr(p, c)) for c in indicators.COLUMNS} for p in request.panels]
        tasks = [indicators.Task(indicators.Panel(**c), program) for c in columns]
        return answers.indicators([""] * len(tasks), self.talib.run(tasks), program, self.talib, "")


async def main() -> None:
    server = grpc.aio.server()
    rpc.add_MarketInferenceServiceServicer_to_server(Plain(), _Raw(server))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f'{{"event": "ready", "listen": "127.0.0.1:{port}", "metrics": ""}}', flush=True)
    await server.wait_for_termination()


class _Raw:
    """Registers handlers with answers that are bytes already."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: dict[str, grpc.RpcMethodHandler]) -> None:
        raw = {name: handler._replace(response_serializer=None) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, raw)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Not needed: the registered handlers serve."""


if __name__ == "__main__":
    asyncio.run(main())
