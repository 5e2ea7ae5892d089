"""Answers of the service as the values that users get.

Owns the way from messages to answers.py; an item's status becomes the typed error in its place.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from market_inference import errors
from market_inference.client import arrays, warning
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.arrays import Floats
from market_inference.client.forecast import Coverage, Forecast
from market_inference.client.indicator import Labels
from market_inference.contract.generated import inference_pb2 as pb

T = TypeVar("T")


def forecasts(answer: pb.PredictResponse) -> Answers[Forecast]:
    levels = arrays.read(answer.quantile_levels)
    return _answers(answer, answer.forecasts, lambda item: _forecast(answer, item, levels))


def sentiments(answer: pb.AnalyzeSentimentResponse) -> Answers[Sentiment]:
    return _answers(answer, answer.sentiments, lambda item: _sentiment(answer, item.sentiment))


def indicators(answer: pb.ComputeIndicatorsResponse, labels: Labels) -> Answers[Indicators]:
    return _answers(answer, answer.panels, lambda item: _indicators(answer, item, labels))


def analysis(answer: pb.AnalyzeResponse, labels: Labels) -> Analysis:
    return Analysis(
        forecasts=_part(answer, "predict", forecasts),
        sentiments=_part(answer, "sentiment", sentiments),
        indicators=_part(answer, "indicators", lambda part: indicators(part, labels)),
        request_id=answer.request_id,
    )


def _answers(answer: Any, items: Iterable[Any], read: Callable[[Any], T]) -> Answers[T]:
    """One answer or error per item; items without a symbol are known by position alone."""
    items = list(items)
    found = [
        errors.from_status(item.error, answer.request_id) if item.WhichOneof("result") == "error" else read(item)
        for item in items
    ]
    symbols = tuple(getattr(item, "symbol", "") for item in items)
    return Answers(found, symbols if any(symbols) else (), answer.request_id)


def _part(answer: pb.AnalyzeResponse, name: str, read: Callable[[Any], T]) -> T | errors.MarketInferenceError | None:
    result: Any = answer
    which = result.WhichOneof(f"{name}_result")
    if which == f"{name}_error":
        return errors.from_status(getattr(result, which), answer.request_id)
    return read(getattr(result, which)) if which else None


def _forecast(answer: pb.PredictResponse, item: pb.SeriesForecast, levels: Floats) -> Forecast:
    found = item.forecast
    point = arrays.read(found.point)
    return Forecast(
        symbol=item.symbol,
        point=point,
        quantiles=arrays.read(found.quantiles).reshape(len(point), len(levels)),
        levels=levels,
        coverage=Coverage(found.coverage.nominal, found.coverage.measured, found.coverage.origins),
        gate=found.gate,
        logs=found.logs,
        context=found.context,
        model=answer.model,
        model_version=answer.model_version,
        request_id=answer.request_id,
        warnings=warning.read(found.warnings),
    )


def _sentiment(answer: pb.AnalyzeSentimentResponse, found: pb.Sentiment) -> Sentiment:
    return Sentiment(
        label=pb.SentimentLabel.Name(found.label).removeprefix("SENTIMENT_LABEL_").lower(),
        score=found.score,
        negative=found.negative,
        neutral=found.neutral,
        positive=found.positive,
        chunks=found.chunks,
        model=answer.model,
        model_version=answer.model_version,
        request_id=answer.request_id,
    )


def _indicators(answer: pb.ComputeIndicatorsResponse, item: pb.PanelIndicators, labels: Labels) -> Indicators:
    outputs = {
        name: {output.name: arrays.read(output.values) for output in indicator.outputs}
        for name, indicator in zip(labels.names, item.indicators.indicators, strict=True)
    }
    return Indicators(
        outputs,
        labels.aliases,
        symbol=item.symbol,
        model=answer.model,
        model_version=answer.model_version,
        request_id=answer.request_id,
    )
