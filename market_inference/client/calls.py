"""The calls of the service as values: a method, its request, and how to read the answer.

Owns the way from users' data to messages. Both clients send these calls; neither knows what is inside.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from market_inference.client import arrays, decode, inputs, status
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Indicator, IndicatorSpec, Labels, read_all
from market_inference.contract.generated import inference_pb2 as pb

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """`method` is a name in MarketInferenceService; `read` turns its answer into what the user gets."""

    method: str
    request: Any
    read: Callable[[Any], T]


def predict(
    series: object, horizon: int, quantiles: Sequence[float] | None, model: str
) -> Call[Forecast | Answers[Forecast]]:
    """One series or many; see Client.predict."""
    given = inputs.series(series)
    request = _predict_request(given, horizon, quantiles, model)
    if given.single:
        return Call("Predict", request, lambda answer: decode.forecasts(answer)[0])
    return Call("Predict", request, decode.forecasts)


def sentiment(texts: str | Iterable[str], model: str) -> Call[Sentiment | Answers[Sentiment]]:
    """One text or many; see Client.sentiment."""
    request = _sentiment_request([texts] if isinstance(texts, str) else texts, model)
    if isinstance(texts, str):
        return Call("AnalyzeSentiment", request, lambda answer: decode.sentiments(answer)[0])
    return Call("AnalyzeSentiment", request, decode.sentiments)


def indicators(
    bars: object, specs: IndicatorSpec | Iterable[IndicatorSpec], last: int
) -> Call[Indicators | Answers[Indicators]]:
    """One instrument's bars or many's; see Client.indicators."""
    given = inputs.panels(bars)
    asked = read_all(specs)
    request = _indicators_request(given, asked, last)
    labels = Labels.of(asked)
    if given.single:
        return Call("ComputeIndicators", request, lambda answer: decode.indicators(answer, labels)[0])
    return Call("ComputeIndicators", request, lambda answer: decode.indicators(answer, labels))


@dataclass(frozen=True, slots=True)
class Parts:
    """What one Analyze call asks for; None leaves the part out."""

    series: object = None
    horizon: int = 10
    quantiles: Sequence[float] | None = None
    texts: str | Iterable[str] | None = None
    bars: object = None
    indicators: IndicatorSpec | Iterable[IndicatorSpec] = ()
    last: int = 0
    forecast_model: str = ""
    sentiment_model: str = ""


def analyze(parts: Parts) -> Call[Analysis]:
    """The three under one deadline; see Client.analyze."""
    request = pb.AnalyzeRequest()
    if parts.series is not None:
        given = inputs.series(parts.series)
        request.predict.CopyFrom(_predict_request(given, parts.horizon, parts.quantiles, parts.forecast_model))
    if parts.texts is not None:
        texts = [parts.texts] if isinstance(parts.texts, str) else parts.texts
        request.sentiment.CopyFrom(_sentiment_request(texts, parts.sentiment_model))
    asked = read_all(parts.indicators)
    if parts.bars is not None:
        request.indicators.CopyFrom(_indicators_request(inputs.panels(parts.bars), asked, parts.last))
    labels = Labels.of(asked)
    return Call("Analyze", request, lambda answer: decode.analysis(answer, labels))


def get_status() -> Call[status.ServiceStatus]:
    return Call("GetStatus", pb.GetStatusRequest(), status.read_status)


def list_models() -> Call[list[status.ModelInfo]]:
    return Call("ListModels", pb.ListModelsRequest(), status.read_models)


def _predict_request(
    given: inputs.Named[arrays.Floats], horizon: int, quantiles: Sequence[float] | None, model: str
) -> pb.PredictRequest:
    request = pb.PredictRequest(horizon=horizon, model=model, quantiles=[] if quantiles is None else quantiles)
    for symbol, values in zip(given.symbols, given.values, strict=True):
        arrays.write(request.series.add(symbol=symbol), "values", values)
    return request


def _sentiment_request(texts: Iterable[str], model: str) -> pb.AnalyzeSentimentRequest:
    return pb.AnalyzeSentimentRequest(texts=texts, model=model)


def _indicators_request(
    given: inputs.Named[dict[str, arrays.Floats]],
    asked: Iterable[Indicator],
    last: int,
) -> pb.ComputeIndicatorsRequest:
    request = pb.ComputeIndicatorsRequest()
    for symbol, panel in zip(given.symbols, given.values, strict=True):
        message = request.panels.add(symbol=symbol)
        for name, values in panel.items():
            arrays.write(message, name, values)
    for one in asked:
        request.indicators.add(name=one.name, params=one.params, last=one.last or last)
    return request
