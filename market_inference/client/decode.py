"""Answers of the service as the values that users get.

Owns the way from the bytes of a call's responses to answers. bulk.py reads items and their columns when the caller
reaches for them. The status of a failed item becomes the typed error in the item's place.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from market_inference import errors
from market_inference.client import response, warning
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.bulk import ForecastAnswers, Forecasts, IndicatorAnswers, Panels, Part
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Labels
from market_inference.client.inputs.items import Given, Panel, Series, Source, Text
from market_inference.client.item_error import item_error
from market_inference.contract.generated import answers_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import MarketInferenceError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AnalysisGiven:
    """The items of an Analyze call."""

    series: Given[Series]
    texts: Given[Text]
    bars: Given[Panel]
    labels: Labels


def forecasts(parts: Sequence[Part[Series]], source: Source) -> ForecastAnswers:
    """One Forecast, or error, per series."""
    items = Forecasts(parts)
    return ForecastAnswers(items, _symbols(parts), items.request_id, source, items.models)


def forecast(raw: bytes, series: Series) -> Forecast:
    """The forecast of one series. Raises the item's error."""
    return Forecasts.one(raw, series)


def sentiments(parts: Sequence[Part[Text]], source: Source) -> Answers[Sentiment]:
    """One Sentiment, or error, per text."""
    found: list[Sentiment | MarketInferenceError] = []
    request_id = ""
    models: dict[tuple[str, str], None] = {}
    for part in parts:
        if isinstance(part.answer, MarketInferenceError):
            found += [part.answer] * len(part.items)
            continue
        answer, before = response.parse(pb.AnalyzeSentimentResponse, part.answer), len(found)
        request_id = request_id or answer.request_id
        if answer.model:
            models[answer.model, answer.model_version] = None
        for item, text in zip(answer.sentiments, part.items, strict=True):
            if item.WhichOneof("result") == "error":
                found.append(item_error(errors.from_status(item.error, answer.request_id), text.source, before))
            else:
                found.append(_sentiment(answer, item.sentiment, text.source))
    return Answers(found, _symbols(parts), request_id, source, models)


def indicators(parts: Sequence[Part[Panel]], source: Source, labels: Labels) -> IndicatorAnswers:
    """One Indicators, or error, per panel."""
    items = Panels(parts, labels)
    return IndicatorAnswers(items, _symbols(parts), items.request_id, source, items.models)


def indicator_set(raw: bytes, panel: Panel, labels: Labels) -> Indicators:
    """The indicators of one panel. Raises the item's error."""
    return Panels.one(raw, panel, labels)


def analysis(raw: bytes, given: AnalysisGiven) -> Analysis:
    """The parts that were asked for."""
    answer = response.parse(answers_pb2.AnalyzeAnswer, raw)
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


def _symbols(parts: Sequence[Part[Any]]) -> tuple[str, ...]:
    """The symbols of the items, () where none has a symbol."""
    symbols = tuple([item.source.symbol for part in parts for item in part.items])
    return symbols if any(symbols) else ()


def _part(answer: Any, name: str, read: Callable[[Any], T]) -> T | MarketInferenceError | None:
    which = answer.WhichOneof(f"{name}_result")
    if which == f"{name}_error":
        return errors.from_status(getattr(answer, which), answer.request_id)
    return read(getattr(answer, which)) if which else None


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
        warnings=warning.read(found.warnings),
    )
