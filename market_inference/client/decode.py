"""Answers of the service as the values that users get.

Owns the way from messages to answers.py. The status of a failed item becomes the typed error in the item's place, in
the terms of the caller's data: its symbol, its position, its rows without a value.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from market_inference import errors
from market_inference.client import arrays, warning
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.arrays import Floats
from market_inference.client.forecast import Coverage, Forecast
from market_inference.client.indicator import Labels
from market_inference.client.inputs.items import Given, Panel, Series, Source, Text
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import MarketInferenceError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741
_POSITION = re.compile(r"\b(series|texts|panels)\[(\d+)\]")


@dataclass(frozen=True)
class Part(Generic[I]):
    """The answer to one request of a call, or its error, and the items that the request held."""

    answer: Any
    items: Sequence[I]


@dataclass(frozen=True, slots=True)
class AnalysisGiven:
    """The items of an Analyze call."""

    series: Given[Series]
    texts: Given[Text]
    bars: Given[Panel]
    labels: Labels


def forecasts(parts: Sequence[Part[Series]], source: Source) -> Answers[Forecast]:
    """One Forecast, or error, per series."""

    def read(answer: pb.PredictResponse, item: pb.SeriesForecast, given: Source) -> Forecast:
        return forecast(item.forecast, arrays.read(answer.quantile_levels), given, answer, answer.request_id)

    return _answers(parts, "forecasts", read, source)


def sentiments(parts: Sequence[Part[Text]], source: Source) -> Answers[Sentiment]:
    """One Sentiment, or error, per text."""
    return _answers(parts, "sentiments", lambda answer, item, given: _sentiment(answer, item.sentiment, given), source)


def indicators(parts: Sequence[Part[Panel]], source: Source, labels: Labels) -> Answers[Indicators]:
    """One Indicators, or error, per panel."""
    return _answers(parts, "panels", lambda answer, item, given: _indicators(answer, item, given, labels), source)


def analysis(answer: pb.AnalyzeResponse, given: AnalysisGiven) -> Analysis:
    """The parts that were asked for."""
    return Analysis(
        forecasts=_part(
            answer, "predict", lambda part: forecasts([Part(part, given.series.items)], given.series.source)
        ),
        sentiments=_part(
            answer, "sentiment", lambda part: sentiments([Part(part, given.texts.items)], given.texts.source)
        ),
        indicators=_part(
            answer,
            "indicators",
            lambda part: indicators([Part(part, given.bars.items)], given.bars.source, given.labels),
        ),
        request_id=answer.request_id,
    )


def forecast(found: pb.Forecast, levels: Floats, source: Source, model: Any, request_id: str) -> Forecast:
    """A forecast message; `model` is a message with the fields `model` and `model_version`."""
    point = arrays.read(found.point)
    return Forecast(
        symbol=source.symbol,
        point=point,
        quantiles=arrays.read(found.quantiles).reshape(len(point), len(levels)),
        levels=levels,
        coverage=Coverage(found.coverage.nominal, found.coverage.measured, found.coverage.origins),
        gate=found.gate,
        logs=found.logs,
        context=found.context,
        model=model.model,
        model_version=model.model_version,
        request_id=request_id,
        warnings=warning.read(found.warnings),
        source=source,
    )


def _answers(
    parts: Sequence[Part[Any]], field: str, read: Callable[[Any, Any, Source], T], source: Source
) -> Answers[T]:
    """One answer or error per item, over all requests of the call."""
    found: list[T | MarketInferenceError] = []
    request_id = ""
    for part in parts:
        if isinstance(part.answer, MarketInferenceError):
            found += [part.answer] * len(part.items)
        else:
            request_id = request_id or part.answer.request_id
            found += _read(part, field, read, len(found))
    symbols = tuple(item.source.symbol for part in parts for item in part.items)
    return Answers(found, symbols if any(symbols) else (), request_id, source)


def _read(
    part: Part[Any], field: str, read: Callable[[Any, Any, Source], T], before: int
) -> Iterator[T | MarketInferenceError]:
    for answer, item in zip(getattr(part.answer, field), part.items, strict=True):
        if answer.WhichOneof("result") == "error":
            yield _item_error(errors.from_status(answer.error, part.answer.request_id), item.source, before)
        else:
            yield read(part.answer, answer, item.source)


def request_error(error: MarketInferenceError, items: Sequence[Any], before: int) -> MarketInferenceError:
    """The error of a whole request in the caller's terms: the service refuses a request without a good item as one."""
    found = _POSITION.search(error.message)
    if found is None or int(found[2]) >= len(items):
        return error
    return _item_error(error, items[int(found[2])].source, before)


def _item_error(error: MarketInferenceError, source: Source, before: int) -> MarketInferenceError:
    """The error in the caller's terms; `before` items went with earlier requests."""

    def shifted(text: str) -> str:
        return _POSITION.sub(lambda found: f"{found[1]}[{int(found[2]) + before}]", text)

    error.violations = [(shifted(field), text) for field, text in error.violations]
    error.message = f"{source.symbol}: {shifted(error.message)}" if source.symbol else shifted(error.message)
    error.args = (error.message,)
    if source.missing:
        error.extend(
            f"{', '.join(source.missing)} without a value: fill such rows (ffill()) or leave them out (dropna())"
        )
    return error


def _part(answer: pb.AnalyzeResponse, name: str, read: Callable[[Any], T]) -> T | MarketInferenceError | None:
    result: Any = answer
    which = result.WhichOneof(f"{name}_result")
    if which == f"{name}_error":
        return errors.from_status(getattr(result, which), answer.request_id)
    return read(getattr(result, which)) if which else None


def _sentiment(answer: pb.AnalyzeSentimentResponse, found: pb.Sentiment, source: Source) -> Sentiment:
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
        symbol=source.symbol,
    )


def _indicators(
    answer: pb.ComputeIndicatorsResponse, item: pb.PanelIndicators, source: Source, labels: Labels
) -> Indicators:
    outputs = {
        name: {output.name: arrays.read(output.values) for output in indicator.outputs}
        for name, indicator in zip(labels.names, item.indicators.indicators, strict=True)
    }
    return Indicators(
        outputs,
        labels.aliases,
        source=source,
        model=answer.model,
        model_version=answer.model_version,
        request_id=answer.request_id,
    )
