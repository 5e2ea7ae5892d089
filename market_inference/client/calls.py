"""The calls of the service as values: a method, the bytes of its requests, and the reading of the answers.

Owns the way from users' data to requests; encode.py writes the items. Both clients and the streams send these calls
and know nothing of the content.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

from market_inference.client import batches, caller, decode, encode, response, status
from market_inference.client.answers import Analysis, Answers, Indicators, Sentiment
from market_inference.client.bulk import ForecastAnswers, IndicatorAnswers, Part
from market_inference.client.checks import AskedForecast, AskedIndicators
from market_inference.client.forecast import Forecast
from market_inference.client.indicator import Asked, Indicator
from market_inference.client.inputs import arguments, beside
from market_inference.client.inputs.bars import panels
from market_inference.client.inputs.items import Given, Panel, Series, Source, Text
from market_inference.client.inputs.series import series as series_of
from market_inference.client.inputs.texts import texts as texts_of
from market_inference.client.inputs.texts import towards
from market_inference.client.item_error import request_error
from market_inference.contract import answer_size
from market_inference.contract.encoding import wireformat
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import requests_pb2
from market_inference.errors import ArgumentError, InputWarning, MarketInferenceError

T = TypeVar("T")
A = TypeVar("A", bound=Answers[Any])
I = TypeVar("I")  # noqa: E741

REQUESTS_TOGETHER = 4
"""The requests of one call that are in flight at a time: one is computed, one on its way to it and one back."""
# Bytes of an item beside its numbers and texts: tags, lengths.
_ITEM_BYTES = 64
_ANSWER_BYTES = 160
_NUMBER_BYTES = 8
_ANALYZE = {name: field.number for name, field in pb.AnalyzeRequest.DESCRIPTOR.fields_by_name.items()}


@dataclass(slots=True)
class Call(Generic[T]):
    """`method` is a name in MarketInferenceService; `read` turns the responses to `requests` into the user's values.

    Requests and responses are serialised messages. There are several requests when the items exceed the limits of one.
    An error stands for the answer to a request that failed while another was answered.
    """

    method: str
    requests: Sequence[bytes]
    read: Callable[[Sequence[Any]], T]
    parts: Sequence[Sequence[Any]] = ()
    """The items of each request."""

    def ahead(self, at: int, asked: Mapping[int, Any]) -> Iterator[tuple[int, bytes]]:
        """The requests to send before the answer at a position is awaited, with their positions, but for those `asked`.

        Nothing for a call of one request, which needs no stream.
        """
        if len(self.requests) > 1:
            for place in range(at, min(at + REQUESTS_TOGETHER, len(self.requests))):
                if place not in asked:
                    yield place, self.requests[place]

    def explain(self, error: MarketInferenceError, at: int) -> MarketInferenceError:
        """The error of the request at a position, in the terms of the caller's data."""
        if not self.parts:
            return error
        return request_error(error, self.parts[at], sum(map(len, self.parts[:at])))


def predict(
    series: object,
    horizon: int,
    quantiles: object,
    model: str,
    interval: object = None,
    period: object = 0,
    covariates: object = None,
    known_ahead: object = (),
    groups: object = None,
    times: object = None,
) -> Call[Forecast | ForecastAnswers]:
    """One series or many; see Client.predict."""
    given = noted(series_of(series))
    rest = _predict_rest(horizon, quantiles, interval, model, period)
    given = beside.timed(given, times)
    if covariates is not None or known_ahead or groups is not None:
        given, names = beside.covariates(given, covariates, known_ahead, arguments.whole(horizon, "horizon", 1))
        labels = beside.groups(given, groups)
        fields = pb.PredictRequest(covariates=names, groups=labels).SerializeToString()
        rest = replace(rest, raw=rest.raw + fields)
        if labels:
            only = _only(given, "Predict", "series", _GROUPED, rest)
            return _forecasts(given, [only], [encode.predict(only, rest.raw)], rest.forecast)
    parts = _cut(given, "Predict", "series", rest)
    return _forecasts(given, parts, [encode.predict(part, rest.raw) for part in parts], rest.forecast)


def sentiment(texts: object, model: str, about: object = None) -> Call[Sentiment | Answers[Sentiment]]:
    """One text or many; see Client.sentiment."""
    given = towards(noted(texts_of(texts)), about)
    parts = _cut(given, "AnalyzeSentiment", "texts", None)
    requests = [_sentiment_request(part, model) for part in parts]
    return _call("AnalyzeSentiment", given, parts, requests, decode.sentiments)


def indicators(bars: object, specs: object, last: int) -> Call[Indicators | IndicatorAnswers]:
    """One instrument's bars or many's; see Client.indicators."""
    asked = Asked.of(specs)
    labels = asked.labels
    given = noted(panels(bars, asked.columns))
    rest = _indicators_rest(asked.indicators, last)
    wanted = rest.indicators
    parts = _cut(given, "ComputeIndicators", "panels", rest)
    return _call(
        "ComputeIndicators",
        given,
        parts,
        [encode.indicators(part, rest.raw) for part in parts],
        lambda found, source: decode.indicators(found, source, labels, wanted),
        lambda answer, item: decode.indicator_set(answer, item, labels, wanted),
    )


@dataclass(frozen=True, slots=True)
class AnalyzeParts:
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


def analyze(parts: AnalyzeParts) -> Call[Analysis]:
    """The three under one deadline; see Client.analyze."""
    request: list[bytes] = []
    readers: dict[str, Callable[[bytes], Any]] = {}
    if parts.series is not None:
        series = noted(series_of(parts.series))
        rest = _predict_rest(parts.horizon, parts.quantiles, None, parts.forecast_model)
        only_series = _only(series, "Predict", "series", _alone("predict"), rest)
        request += wireformat.pieces(_ANALYZE["predict"], encode.predict(only_series, rest.raw))
        readers["predict"] = lambda raw: decode.forecasts([Part(raw, series.items)], series.source, rest.forecast)
    if parts.texts is not None:
        texts = noted(texts_of(parts.texts))
        only = _only(texts, "AnalyzeSentiment", "texts", _alone("sentiment"), None)
        request += wireformat.pieces(_ANALYZE["sentiment"], _sentiment_request(only, parts.sentiment_model))
        readers["sentiment"] = lambda raw: decode.sentiments([Part(raw, texts.items)], texts.source)
    asked = Asked.of(parts.indicators)
    if parts.bars is not None:
        bars = noted(panels(parts.bars, asked.columns))
        specs = _indicators_rest(asked.indicators, parts.last)
        only_bars = _only(bars, "ComputeIndicators", "panels", _alone("indicators"), specs)
        request += wireformat.pieces(_ANALYZE["indicators"], encode.indicators(only_bars, specs.raw))
        readers["indicators"] = lambda raw: decode.indicators(
            [Part(raw, bars.items)], bars.source, asked.labels, specs.indicators
        )
    return Call("Analyze", (b"".join(request),), lambda found: decode.analysis(found[0], readers))


def _forecasts(
    given: Given[Series], parts: Sequence[tuple[Series, ...]], requests: Sequence[bytes], asked: AskedForecast
) -> Call[Forecast | ForecastAnswers]:
    return _call(
        "Predict",
        given,
        parts,
        requests,
        lambda found, source: decode.forecasts(found, source, asked),
        lambda answer, item: decode.forecast(answer, item, asked),
    )


def get_status() -> Call[status.ServiceStatus]:
    """See Client.status."""
    return Call("GetStatus", (b"",), lambda found: status.read_status(response.parse(pb.GetStatusResponse, found[0])))


def list_models() -> Call[list[status.ModelInfo]]:
    """See Client.models."""
    return Call("ListModels", (b"",), lambda found: status.read_models(response.parse(pb.ListModelsResponse, found[0])))


def _call(
    method: str,
    given: Given[I],
    parts: Sequence[tuple[I, ...]],
    requests: Sequence[bytes],
    read: Callable[[Sequence[Part[I]], Source], A],
    read_one: Callable[[bytes, I], Any] | None = None,
) -> Call[Any | A]:
    """`read_one` reads the answer to a single item at a lower cost than `read`."""
    if given.single and read_one is not None:
        (item,) = given.items
        return Call(method, requests, lambda found: read_one(found[0], item), parts)

    def read_all_parts(found: Sequence[bytes | MarketInferenceError]) -> Any | A:
        answers = read([Part(answer, items) for answer, items in zip(found, parts, strict=True)], given.source)
        return answers[0] if given.single else answers

    return Call(method, requests, read_all_parts, parts)


@dataclass(frozen=True, slots=True)
class _Rest:
    """The bytes of a request's fields beside its items."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class _PredictRest(_Rest):
    forecast: AskedForecast


@dataclass(frozen=True, slots=True)
class _IndicatorsRest(_Rest):
    """`outputs`: of each indicator the number of outputs."""

    indicators: AskedIndicators
    outputs: tuple[int, ...]


def _cut(given: Given[Any], method: str, field: str, rest: _Rest | None) -> list[tuple[Any, ...]]:
    if len(given.items) == 1:
        return [given.items]
    return batches.cut(given.items, _sizes(given.items, rest or _Rest(b"")), batches.limits(method, field))


_GROUPED = "a group is one request: call predict() for each group or for a few"


def _alone(call: str) -> str:
    return f"call {call}(), which splits them over several requests"


def _only(given: Given[I], method: str, field: str, advice: str, rest: _Rest | None) -> tuple[I, ...]:
    """The items of a call that is one request."""
    parts = _cut(given, method, field, rest)
    if len(parts) > 1:
        limit = batches.limits(method, field)
        raise ArgumentError(
            field,
            f"{len(given.items)} are more than one request holds ({limit.items}, {limit.request_bytes:,} bytes, "
            f"and {limit.answer_bytes:,} bytes of answers): {advice}",
        )
    return parts[0]


def _sizes(items: Sequence[Any], rest: Any) -> list[tuple[int, int]]:
    """The bytes of each item and of its answer, estimated from above."""
    heads = [_ITEM_BYTES + 4 * len(item.source.symbol) for item in items]
    if isinstance(items[0], Series):
        answer = _forecast_bytes(rest.raw, timed=any(item.times is not None for item in items))
        return [(head + _NUMBER_BYTES * _numbers(item), head + answer) for head, item in zip(heads, items, strict=True)]
    if isinstance(items[0], Panel):
        return [
            (head + _panel_bytes(item), head + _answer_bytes(item, rest))
            for head, item in zip(heads, items, strict=True)
        ]
    return [(head + _text_bytes(item), head) for head, item in zip(heads, items, strict=True)]


@lru_cache(maxsize=64)
def _forecast_bytes(rest: bytes, *, timed: bool) -> int:
    """The bytes of a series' answer, as the contract counts them for a request of one series."""
    request = requests_pb2.PredictColumns.FromString(rest)
    request.series.add(times=bytes(_NUMBER_BYTES) if timed else b"")
    return answer_size.predict(request)


def _numbers(item: Series) -> int:
    return sum([row.size for row in (item.values, item.past, item.future, item.times) if row is not None])


def _panel_bytes(item: Panel) -> int:
    return len(item.columns) * (_NUMBER_BYTES * len(item.columns["close"]) + _ITEM_BYTES)


def _answer_bytes(item: Panel, rest: _IndicatorsRest) -> int:
    bars = len(item.columns["close"])
    return sum(
        count * (_ANSWER_BYTES + _NUMBER_BYTES * (min(bars, last) if last else bars))
        for last, count in zip(rest.indicators.newest, rest.outputs, strict=True)
    )


def _text_bytes(item: Text) -> int:
    return (1 if item.text.isascii() else 4) * len(item.text)


def noted(given: Given[I]) -> Given[I]:
    """The same; an unusual change of the data, or a doubt about it, is said by a warning at the caller's line."""
    items: Iterable[Any] = given.items
    found = [*given.notes]
    found += [note for item in items for note in item.source.notes if note not in item.source.usual]
    if found:
        notes = list(dict.fromkeys(found))
        more = f" (and {len(notes) - 5} more)" if len(notes) > 5 else ""
        caller.warn("; ".join(notes[:5]) + more, InputWarning)
    return given


def _predict_rest(
    horizon: object, quantiles: object, interval: object, model: object, period: object = 0
) -> _PredictRest:
    levels = arguments.levels(quantiles)
    if interval is not None:
        levels = sorted({*levels, 0.5, *arguments.central_levels(interval)})
    steps = arguments.whole(horizon, "horizon", 1)
    cycle = arguments.whole(period or 0, "period")
    return _predict_fields(steps, tuple(levels), arguments.text(model or "", "model"), cycle)


@lru_cache(maxsize=1024)
def _predict_fields(horizon: int, levels: tuple[float, ...], model: str, period: int) -> _PredictRest:
    """Programs ask for the same steps and levels again and again."""
    request = pb.PredictRequest(horizon=horizon, model=model, quantiles=levels, period=period)
    return _PredictRest(request.SerializeToString(), AskedForecast(horizon, levels, period))


def _sentiment_request(given: Iterable[Text], model: object) -> bytes:
    items = list(given)
    request = pb.AnalyzeSentimentRequest(texts=[one.text for one in items], model=arguments.text(model or "", "model"))
    if any(one.about for one in items):
        request.about.extend(one.about for one in items)
    return request.SerializeToString()


def _indicators_rest(asked: Iterable[Indicator], last: object) -> _IndicatorsRest:
    newest = arguments.whole(last, "last")
    return _indicators_fields(tuple((one.name, tuple(one.params.items()), one.last or newest) for one in asked))


@lru_cache(maxsize=1024)
def _indicators_fields(asked: tuple[tuple[str, tuple[tuple[str, float], ...], int], ...]) -> _IndicatorsRest:
    """Programs ask for the same indicators again and again."""
    request = pb.ComputeIndicatorsRequest()
    for name, params, last in asked:
        request.indicators.add(name=name, params=dict(params), last=last)
    wanted = AskedIndicators(tuple(name.upper() for name, _, _ in asked), tuple(last for _, _, last in asked))
    outputs = tuple(answer_size.OUTPUTS.get(name, 1) for name in wanted.functions)
    return _IndicatorsRest(request.SerializeToString(), wanted, outputs)
