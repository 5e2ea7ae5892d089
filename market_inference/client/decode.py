"""Answers of the service as the values that users get.

Owns the way from the bytes of a call's responses to answers. bulk.py reads items and their columns when the caller
reaches for them. The status of a failed item becomes the typed error in the item's place.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from market_inference import errors
from market_inference.client import checks, response, warning
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.bulk import ForecastAnswers, Forecasts, IndicatorAnswers, Panels, Part
from market_inference.client.checks import AskedForecast, AskedIndicators
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Labels
from market_inference.client.inputs.items import Panel, Series, Source, Text
from market_inference.client.item_error import item_error
from market_inference.contract.generated import answers_pb2
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import MarketInferenceError


def forecasts(parts: Sequence[Part[Series]], source: Source, asked: AskedForecast) -> ForecastAnswers:
    """One Forecast, or error, per series."""
    items = Forecasts(parts, asked)
    return ForecastAnswers(items, _symbols(parts), items.request_id, source, items.models)


def forecast(raw: bytes, series: Series, asked: AskedForecast) -> Forecast:
    """The forecast of one series. Raises the item's error."""
    return Forecasts.one(raw, series, asked)


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
        if len(answer.sentiments) != len(part.items):
            raise checks.wrong("sentiments", f"{len(part.items)} answers", len(answer.sentiments), request_id)
        for at, (item, text) in enumerate(zip(answer.sentiments, part.items, strict=True)):
            try:
                found.append(_sentiment(answer, item, text.source, f"sentiments[{at}]"))
            except MarketInferenceError as error:
                found.append(item_error(error, text.source, before))
    return Answers(found, _symbols(parts), request_id, source, models)


def indicators(
    parts: Sequence[Part[Panel]], source: Source, labels: Labels, asked: AskedIndicators
) -> IndicatorAnswers:
    """One Indicators, or error, per panel."""
    items = Panels(parts, labels, asked)
    return IndicatorAnswers(items, _symbols(parts), items.request_id, source, items.models)


def indicator_set(raw: bytes, panel: Panel, labels: Labels, asked: AskedIndicators) -> Indicators:
    """The indicators of one panel. Raises the item's error."""
    return Panels.one(raw, panel, labels, asked)


def analysis(raw: bytes, readers: Mapping[str, Callable[[bytes], Any]]) -> Analysis:
    """The parts that were asked for; `readers`: of each of these."""
    answer = response.parse(answers_pb2.AnalyzeAnswer, raw)
    return Analysis(
        forecasts=_part(answer, "predict", readers),
        sentiments=_part(answer, "sentiment", readers),
        indicators=_part(answer, "indicators", readers),
        request_id=answer.request_id,
    )


def _symbols(parts: Sequence[Part[Any]]) -> tuple[str, ...]:
    """The symbols of the items, () where none has a symbol."""
    symbols = tuple([item.source.symbol for part in parts for item in part.items])
    return symbols if any(symbols) else ()


def _part(answer: Any, name: str, readers: Mapping[str, Callable[[bytes], Any]]) -> Any:
    which, read = answer.WhichOneof(f"{name}_result"), readers.get(name)
    if (which is None) != (read is None):
        expected = "nothing" if read is None else "an answer or an error"
        raise checks.wrong(name, expected, which or "nothing", answer.request_id)
    if which == f"{name}_error":
        return errors.from_status(getattr(answer, which), answer.request_id)
    return None if read is None else read(getattr(answer, str(which)))


def _sentiment(answer: pb.AnalyzeSentimentResponse, item: pb.TextSentiment, source: Source, place: str) -> Sentiment:
    """The sentiment of one text. Raises the item's error."""
    which = item.WhichOneof("result")
    if which == "error":
        raise errors.from_status(item.error, answer.request_id)
    if which is None:
        raise checks.wrong(place, "an answer or an error", "neither", answer.request_id)
    found = item.sentiment
    checks.sentiment(found, f"{place}.{which}", answer.request_id)
    return Sentiment(
        label=checks.LABELS[found.label - 1],
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
