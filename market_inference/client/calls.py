"""The calls of the service as values: a method, its requests, and the reading of the answers.

Owns the way from users' data to messages. Both clients and the streams send these calls and know nothing of the
content.
"""

import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from market_inference.client import arrays, batches, decode, status
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.decode import Part
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Indicator, Labels, columns_read, read_all
from market_inference.client.inputs import arguments
from market_inference.client.inputs.bars import panels
from market_inference.client.inputs.items import Given, Panel, Series, Source, Text
from market_inference.client.inputs.series import series as series_of
from market_inference.client.inputs.texts import texts as texts_of
from market_inference.contract import answer_size
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.errors import ArgumentError, InputWarning, MarketInferenceError

T = TypeVar("T")
I = TypeVar("I")  # noqa: E741

# Bytes of an item beside its numbers and texts: tags, lengths.
_ITEM_BYTES = 64
_ANSWER_BYTES = 160
_NUMBER_BYTES = 8
_PACKAGE = str(Path(__file__).resolve().parents[1]) + os.sep


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """`method` is a name in MarketInferenceService; `read` turns the answers to `requests` into the user's.

    There are several requests when the items exceed the limits of one. An error stands for the answer to a request that
    failed while another was answered.
    """

    method: str
    requests: Sequence[Message]
    read: Callable[[Sequence[Any]], T]
    parts: Sequence[Sequence[Any]] = ()
    """The items of each request."""

    def explain(self, error: MarketInferenceError, at: int) -> MarketInferenceError:
        """The error of the request at a position, in the terms of the caller's data."""
        if not self.parts:
            return error
        return decode.request_error(error, self.parts[at], sum(map(len, self.parts[:at])))


def predict(
    series: object, horizon: int, quantiles: object, model: str, interval: object = None
) -> Call[Forecast | Answers[Forecast]]:
    """One series or many; see Client.predict."""
    given = noted(series_of(series))
    template = _predict_request(horizon, quantiles, interval, model)
    parts = _cut(given, "Predict", "series", template)
    requests = [_with_series(template, part) for part in parts]
    return _call("Predict", given, parts, requests, decode.forecasts)


def sentiment(texts: object, model: str) -> Call[Sentiment | Answers[Sentiment]]:
    """One text or many; see Client.sentiment."""
    given = noted(texts_of(texts))
    parts = _cut(given, "AnalyzeSentiment", "texts", None)
    requests = [_sentiment_request(part, model) for part in parts]
    return _call("AnalyzeSentiment", given, parts, requests, decode.sentiments)


def indicators(bars: object, specs: object, last: int) -> Call[Indicators | Answers[Indicators]]:
    """One instrument's bars or many's; see Client.indicators."""
    asked = read_all(specs)
    labels = Labels.of(asked)
    given = noted(panels(bars, columns_read(asked)))
    template = _indicators_request(asked, last)
    parts = _cut(given, "ComputeIndicators", "panels", template)
    requests = [_with_panels(template, part) for part in parts]
    return _call(
        "ComputeIndicators", given, parts, requests, lambda found, source: decode.indicators(found, source, labels)
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one Analyze call; None leaves a part out."""

    series: object = None
    horizon: int = 10
    quantiles: object = None
    texts: object = None
    bars: object = None
    indicators: object = ()
    last: int = 0
    forecast_model: str = ""
    sentiment_model: str = ""


def analyze(parts: Parts) -> Call[Analysis]:
    """The three under one deadline; see Client.analyze."""
    request = pb.AnalyzeRequest()
    series, texts, bars = Given[Series]((), False), Given[Text]((), False), Given[Panel]((), False)
    if parts.series is not None:
        series = noted(series_of(parts.series))
        template = _predict_request(parts.horizon, parts.quantiles, None, parts.forecast_model)
        only_series = _only(series, "Predict", "series", "predict", template)
        request.predict.CopyFrom(_with_series(template, only_series))
    if parts.texts is not None:
        texts = noted(texts_of(parts.texts))
        only = _only(texts, "AnalyzeSentiment", "texts", "sentiment", None)
        request.sentiment.CopyFrom(_sentiment_request(only, parts.sentiment_model))
    asked = read_all(parts.indicators)
    labels = Labels.of(asked)
    if parts.bars is not None:
        bars = noted(panels(parts.bars, columns_read(asked)))
        specs = _indicators_request(asked, parts.last)
        only_bars = _only(bars, "ComputeIndicators", "panels", "indicators", specs)
        request.indicators.CopyFrom(_with_panels(specs, only_bars))
    given = decode.AnalysisGiven(series, texts, bars, labels)
    return Call("Analyze", (request,), lambda found: decode.analysis(found[0], given))


def get_status() -> Call[status.ServiceStatus]:
    """See Client.status."""
    return Call("GetStatus", (pb.GetStatusRequest(),), lambda found: status.read_status(found[0]))


def list_models() -> Call[list[status.ModelInfo]]:
    """See Client.models."""
    return Call("ListModels", (pb.ListModelsRequest(),), lambda found: status.read_models(found[0]))


def _call(
    method: str,
    given: Given[I],
    parts: Sequence[tuple[I, ...]],
    requests: Sequence[Message],
    read: Callable[[Sequence[Part[I]], Source], Answers[T]],
) -> Call[T | Answers[T]]:
    def read_all_parts(found: Sequence[Message | MarketInferenceError]) -> T | Answers[T]:
        answers = read([Part(answer, items) for answer, items in zip(found, parts, strict=True)], given.source)
        return answers[0] if given.single else answers

    return Call(method, requests, read_all_parts, parts)


def _cut(given: Given[Any], method: str, field: str, template: Any) -> list[tuple[Any, ...]]:
    if len(given.items) == 1:
        return [given.items]
    sizes = [_size(item, template) for item in given.items]
    return batches.cut(given.items, sizes, batches.limits(method, field))


def _only(given: Given[I], method: str, field: str, alone: str, template: Any) -> tuple[I, ...]:
    """The items of a part of an Analyze call, which is one request."""
    parts = _cut(given, method, field, template)
    if len(parts) > 1:
        limit = batches.limits(method, field)
        raise ArgumentError(
            field,
            f"{len(given.items)} are more than one request holds ({limit.items}, {limit.request_bytes:,} bytes, "
            f"and {limit.answer_bytes:,} bytes of answers): call {alone}(), which splits them over several requests",
        )
    return parts[0]


def _size(item: Series | Panel | Text, template: Any) -> batches.Size:
    """The bytes of an item and its answer; `template` is the request without items."""
    size = _ITEM_BYTES + 4 * len(item.source.symbol)
    if isinstance(item, Series):
        levels = len(template.quantiles) or answer_size.DEFAULT_LEVELS
        answer = _NUMBER_BYTES * template.horizon * (levels + 1)
        return batches.Size(size + _NUMBER_BYTES * len(item.values), size + _ANSWER_BYTES + answer)
    if isinstance(item, Panel):
        bars = len(item.columns["close"])
        answer = sum(
            answer_size.OUTPUTS.get(one.name.upper(), 1)
            * (_ANSWER_BYTES + _NUMBER_BYTES * (min(bars, one.last) if one.last else bars))
            for one in template.indicators
        )
        return batches.Size(size + len(item.columns) * (_NUMBER_BYTES * bars + _ITEM_BYTES), size + answer)
    bytes_each = 1 if item.text.isascii() else 4
    return batches.Size(size + bytes_each * len(item.text), size)


def noted(given: Given[I]) -> Given[I]:
    """The same; what was changed in the data is said by a warning at the caller's line."""
    items: Iterable[Any] = given.items
    notes = list(dict.fromkeys(note for item in items for note in item.source.notes))
    if notes:
        depth, frame = 1, sys._getframe()
        while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
            depth, frame = depth + 1, frame.f_back
        more = f" (and {len(notes) - 5} more)" if len(notes) > 5 else ""
        warnings.warn("; ".join(notes[:5]) + more, InputWarning, stacklevel=depth)
    return given


def _predict_request(horizon: object, quantiles: object, interval: object, model: object) -> pb.PredictRequest:
    levels = arguments.levels(quantiles)
    if interval is not None:
        levels = sorted({*levels, 0.5, *arguments.central_levels(interval)})
    return pb.PredictRequest(
        horizon=arguments.whole(horizon, "horizon", 1), model=arguments.text(model or "", "model"), quantiles=levels
    )


def _with_series(template: pb.PredictRequest, given: Iterable[Series]) -> pb.PredictRequest:
    request = pb.PredictRequest()
    request.CopyFrom(template)
    for one in given:
        symbol = arguments.text(one.source.symbol, "symbol")
        arrays.write(request.series.add(symbol=symbol), "values", one.values)
    return request


def _sentiment_request(given: Iterable[Text], model: object) -> pb.AnalyzeSentimentRequest:
    return pb.AnalyzeSentimentRequest(texts=[one.text for one in given], model=arguments.text(model or "", "model"))


def _indicators_request(asked: Iterable[Indicator], last: object) -> pb.ComputeIndicatorsRequest:
    request = pb.ComputeIndicatorsRequest()
    newest = arguments.whole(last, "last")
    for one in asked:
        request.indicators.add(name=one.name, params=one.params, last=one.last or newest)
    return request


def _with_panels(template: pb.ComputeIndicatorsRequest, given: Iterable[Panel]) -> pb.ComputeIndicatorsRequest:
    request = pb.ComputeIndicatorsRequest()
    request.CopyFrom(template)
    for panel in given:
        message = request.panels.add(symbol=arguments.text(panel.source.symbol, "symbol"))
        for name, values in panel.columns.items():
            arrays.write(message, name, values)
    return request
