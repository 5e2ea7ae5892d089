"""Outcomes to response bytes: the public response messages, written through their twins in answers.proto.

Owns the serialisation of arrays: an array enters the response with one copy, never element by element. Serialised
protobuf messages that are concatenated are one message with the fields of all of them, so a response is the
concatenation of its items. Live users ask for the same indicators at every bar, so the constant bytes of a panel's
answer are cached and joined with the numbers.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from google.rpc import status_pb2
from numpy.typing import NDArray

from market_inference.contract.encoding import twins, wireformat
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import answers_pb2, inference_pb2
from models.cache import sized_cache
from models.forecast import Forecast
from models.forecast.series import Phases
from models.indicators import Program
from models.warning import AnswerWarning

Outcome: TypeAlias = Any
"""What became of an item: the model's answer, or an error (one of FAILED)."""
FAILED: Final = (status_pb2.Status, ServiceError)
NOMINAL_COVERAGE: Final = 0.8
"""Share of closes that the interval between the quantiles 0.1 and 0.9 is meant to contain."""
_LABELS: Final = (
    inference_pb2.SENTIMENT_LABEL_NEGATIVE,
    inference_pb2.SENTIMENT_LABEL_NEUTRAL,
    inference_pb2.SENTIMENT_LABEL_POSITIVE,
)
_FLOAT64_BYTES: Final = 8
_NO_ARRAYS: Final = (np.empty(0), np.empty((0, 0)))
# Bytes of a cached row head beside its content: object, tuple places, length and its share of the program.
_HEAD_BYTES: Final = 400


class Sentiment(NamedTuple):
    """The outcome of one text: probabilities [3] of negative, neutral and positive, the number of chunks, doubts."""

    probabilities: NDArray[np.float32]
    chunks: int
    warnings: tuple[AnswerWarning, ...] = ()


def forecasts(
    symbols: Sequence[str], outcomes: Sequence[Outcome], levels: tuple[float, ...], model: Any, request_id: str
) -> bytes:
    """A PredictResponse. Outcomes are models.forecast.Forecast or errors."""
    pieces: list[Any] = []
    for symbol, outcome in zip(symbols, outcomes, strict=True):
        if isinstance(outcome, FAILED):
            item = answers_pb2.SeriesForecastAnswer(symbol=symbol, error=_status(outcome, request_id))
            pieces += wireformat.pieces(1, item.SerializeToString())
        else:
            pieces += _series(symbol, outcome)
    rest = answers_pb2.PredictAnswer(
        quantile_levels=_level_bytes(levels),
        model=model.name,
        model_version=model.version,
        request_id=request_id,
    )
    pieces.append(rest.SerializeToString())
    return b"".join(pieces)


def _series(symbol: str, forecast: Forecast) -> tuple[Any, ...]:
    """A SeriesForecast, as a list item, in pieces: the forecast's arrays uncopied."""
    point, quantiles, *numbers, warnings, phases = forecast
    if warnings or phases is not None:
        rest = answers_pb2.ForecastAnswer()
        _write_rest(rest, forecast)
        tail = rest.SerializeToString()
    else:
        tail = _tail(*numbers)
    opening, middle = _series_heads(symbol, len(point), quantiles.size, len(tail))
    return opening, point, middle, quantiles, tail


@lru_cache(maxsize=4096)
def _tail(*numbers: Any) -> bytes:
    """The bytes of a Forecast after its arrays: gate, logs, context, coverage. Few differ between series alike."""
    rest = answers_pb2.ForecastAnswer()
    _write_rest(rest, Forecast(*_NO_ARRAYS, *numbers))
    return rest.SerializeToString()


@lru_cache(maxsize=4096)
def _series_heads(symbol: str, steps: int, numbers: int, rest: int) -> tuple[bytes, bytes]:
    """The bytes before the two arrays of a SeriesForecast; `rest`: the bytes after the arrays."""
    point, quantiles = (wireformat.header(at, size * _FLOAT64_BYTES) for at, size in ((1, steps), (2, numbers)))
    size = len(point) + len(quantiles) + (steps + numbers) * _FLOAT64_BYTES + rest
    opening = answers_pb2.SeriesForecastAnswer(symbol=symbol).SerializeToString() + wireformat.header(2, size)
    return wireformat.header(1, len(opening) + size) + opening + point, quantiles


@lru_cache(maxsize=1024)
def _level_bytes(levels: tuple[float, ...]) -> bytes:
    return np.asarray(levels, dtype="<f8").tobytes()


def write_forecast(message: answers_pb2.ForecastAnswer, forecast: Forecast) -> None:
    """Fill an empty message with a forecast."""
    message.point = forecast.point.tobytes()
    message.quantiles = forecast.quantiles.tobytes()
    _write_rest(message, forecast)


def _write_rest(message: answers_pb2.ForecastAnswer, forecast: Forecast) -> None:
    """Fill a message with everything but the arrays."""
    message.gate, message.logs, message.context = forecast.gate, forecast.logs, forecast.context
    coverage = message.coverage
    coverage.nominal, coverage.measured, coverage.origins = NOMINAL_COVERAGE, forecast.coverage, forecast.coverage_count
    if forecast.phases is not None:
        coverage.MergeFromString(_phases(forecast.phases))
    if forecast.warnings:
        _write_warnings(message.warnings, forecast.warnings)


def _phases(phases: Phases) -> bytes:
    """The fields of a Coverage by phase: protobuf would take 50 ns for each of up to 3,245 numbers."""
    columns = [phases.measured.astype("<f8").tobytes(), _varints(phases.origins.astype("<i8").tobytes())]
    if phases.ahead is not None:
        columns.append(_varints(phases.ahead.astype("<i8").tobytes()))
    return b"".join(piece for number, column in enumerate(columns, 4) for piece in wireformat.pieces(number, column))


@lru_cache(maxsize=64)
def _varints(column: bytes) -> bytes:
    """The packed numbers of an int64 column. The series of a call mostly have the same times."""
    return twins.varints(np.frombuffer(column, "<i8"))


def _write_warnings(written: Any, warnings: Sequence[AnswerWarning]) -> None:
    for warning in warnings:
        one = written.add(code=f"WARNING_CODE_{warning.code}", message=warning.message)
        for name, values in warning.evidence:
            one.evidence.add(name=name, values=values)


def sentiments(outcomes: Sequence[Outcome], model: Any, request_id: str) -> bytes:
    """An AnalyzeSentimentResponse. Outcomes are Sentiment or errors."""
    response = inference_pb2.AnalyzeSentimentResponse(
        model=model.name, model_version=model.version, request_id=request_id
    )
    for outcome in outcomes:
        item = response.sentiments.add()
        if isinstance(outcome, FAILED):
            item.error.CopyFrom(_status(outcome, request_id))
            continue
        probabilities, chunks, warnings = outcome
        negative, neutral, positive = probabilities.tolist()
        sentiment = item.sentiment
        sentiment.negative, sentiment.neutral, sentiment.positive = negative, neutral, positive
        sentiment.score = positive - negative
        sentiment.label = _LABELS[int(probabilities.argmax())]
        sentiment.chunks = chunks
        _write_warnings(sentiment.warnings, warnings)
    return response.SerializeToString()


def indicators(
    symbols: Sequence[str], outcomes: Sequence[Outcome], program: Program, model: Any, request_id: str
) -> bytes:
    """A ComputeIndicatorsResponse. Outcomes are models.indicators.Answer of one program, or errors."""
    pieces: list[Any] = []
    for symbol, outcome in zip(symbols, outcomes, strict=True):
        if isinstance(outcome, FAILED):
            item = answers_pb2.PanelIndicatorsAnswer(symbol=symbol, error=_status(outcome, request_id))
            pieces += wireformat.pieces(1, item.SerializeToString())
        else:
            pieces += _panel(symbol, program, list(outcome))
    rest = answers_pb2.ComputeIndicatorsAnswer(model=model.name, model_version=model.version, request_id=request_id)
    return b"".join((*pieces, rest.SerializeToString()))


def _panel(symbol: str, program: Program, rows: list[Any]) -> list[Any]:
    """A PanelIndicators in pieces. `rows`: contiguous float64 arrays, one per output of the program."""
    size, heads = _row_heads(program, tuple(map(len, rows)))
    pieces: list[Any] = [_panel_head(symbol, size)] + [None] * (2 * len(rows))
    pieces[1::2], pieces[2::2] = heads, rows
    return pieces


@lru_cache(maxsize=4096)
def _panel_head(symbol: str, size: int) -> bytes:
    """The bytes of a PanelIndicators, as a list item, before its IndicatorSet of `size` bytes."""
    opening = answers_pb2.PanelIndicatorsAnswer(symbol=symbol).SerializeToString() + wireformat.header(2, size)
    return wireformat.header(1, len(opening) + size) + opening


@sized_cache(16 << 20, lambda found: _HEAD_BYTES * (len(found[1]) + 8) + sum(map(len, found[1])))
def _row_heads(program: Program, lengths: tuple[int, ...]) -> tuple[int, tuple[bytes, ...]]:
    """The bytes before each row of an IndicatorSet, and the size of the IndicatorSet, rows included."""
    heads: list[bytes] = []
    total = 0
    for call, outputs in zip(program.calls, program.rows, strict=True):
        first, inner = len(heads), 0
        for name, length in zip(program.outputs[outputs], lengths[outputs], strict=True):
            heads.append(_output_head(name, length * _FLOAT64_BYTES))
            inner += len(heads[-1]) + length * _FLOAT64_BYTES
        opening = _indicator_head(call.function.name, inner)
        heads[first] = opening + heads[first]
        total += len(opening) + inner
    return total, tuple(heads)


# A new list of indicators mostly has outputs of known names and sizes.
@lru_cache(maxsize=4096)
def _output_head(name: str, size: int) -> bytes:
    """The bytes of an IndicatorOutput, as a list item, before its values of `size` bytes."""
    # protobuf leaves an empty field out; a reader takes a field of length 0 for the same.
    head = answers_pb2.IndicatorOutputAnswer(name=name).SerializeToString() + wireformat.header(2, size)
    return wireformat.header(2, len(head) + size) + head


@lru_cache(maxsize=4096)
def _indicator_head(name: str, size: int) -> bytes:
    """The bytes of an Indicator, as a list item, before its outputs of `size` bytes."""
    named = answers_pb2.IndicatorAnswer(name=name).SerializeToString()
    return wireformat.header(1, len(named) + size) + named


def _status(outcome: status_pb2.Status | ServiceError, request_id: str) -> status_pb2.Status:
    return outcome.status(request_id) if isinstance(outcome, ServiceError) else outcome
