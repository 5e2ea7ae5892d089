"""Answers as bytes: the public response messages, written through their twins in answers.proto.

Owns the way from arrays to serialised protobuf. Arrays go in as they lie in memory, never element by element.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from google.rpc import status_pb2

from inference.calls import skeleton
from market_inference.contract.encoding import wireformat
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import answers_pb2, inference_pb2
from models.forecast import Forecast
from models.indicators import Program

# An item's outcome: the model's answer, or what befell it.
Outcome = Any
_LABELS = (
    inference_pb2.SENTIMENT_LABEL_NEGATIVE,
    inference_pb2.SENTIMENT_LABEL_NEUTRAL,
    inference_pb2.SENTIMENT_LABEL_POSITIVE,
)


FAILED = (status_pb2.Status, ServiceError)
"""What an outcome is that is no answer."""


def _error(outcome: Outcome, request_id: str) -> status_pb2.Status:
    return outcome.status(request_id) if isinstance(outcome, ServiceError) else outcome


def _failed(symbol: str, outcome: Outcome, request_id: str) -> tuple[bytes, ...]:
    """A failed item, of SeriesForecast as of PanelIndicators."""
    item = answers_pb2.SeriesForecastAnswer(symbol=symbol, error=_error(outcome, request_id)).SerializeToString()
    return wireformat.pieces(1, item)


def forecasts(
    symbols: Sequence[str], outcomes: Sequence[Outcome], levels: tuple[float, ...], model: Any, request_id: str
) -> bytes:
    """A PredictResponse; outcomes are models.forecast.Forecast."""
    written: list[bytes] = []
    for symbol, outcome in zip(symbols, outcomes, strict=True):
        if isinstance(outcome, FAILED):
            written += _failed(symbol, outcome, request_id)
        else:
            forecast = skeleton.forecast(outcome)
            written += (skeleton.item(symbol, len(forecast)), forecast)
    rest = answers_pb2.PredictAnswer(
        quantile_levels=_level_bytes(levels), model=model.name, model_version=model.version, request_id=request_id
    )
    # Serialised messages that are joined are one message with the fields of both.
    return b"".join((*written, rest.SerializeToString()))


@lru_cache(maxsize=1024)
def _level_bytes(levels: tuple[float, ...]) -> bytes:
    return np.asarray(levels, dtype="<f8").tobytes()


def write_forecast(target: answers_pb2.ForecastAnswer, forecast: Forecast) -> None:
    """A forecast in its message, which is empty so far."""
    target.MergeFromString(skeleton.forecast(forecast))


def sentiments(outcomes: Sequence[Outcome], model: Any, request_id: str) -> bytes:
    """An AnalyzeSentimentResponse; outcomes are (probabilities [negative, neutral, positive], chunks)."""
    answer = inference_pb2.AnalyzeSentimentResponse(
        model=model.name, model_version=model.version, request_id=request_id
    )
    for outcome in outcomes:
        entry = answer.sentiments.add()
        if isinstance(outcome, FAILED):
            entry.error.CopyFrom(_error(outcome, request_id))
            continue
        probabilities, chunks = outcome
        negative, neutral, positive = probabilities.tolist()
        sentiment = entry.sentiment
        sentiment.negative, sentiment.neutral, sentiment.positive = negative, neutral, positive
        sentiment.score = positive - negative
        sentiment.label = _LABELS[int(probabilities.argmax())]
        sentiment.chunks = chunks
    return answer.SerializeToString()


def indicators(
    symbols: Sequence[str], outcomes: Sequence[Outcome], program: Program, model: Any, request_id: str
) -> bytes:
    """A ComputeIndicatorsResponse; outcomes are models.indicators.Answer, all of one program."""
    written: list[Any] = []
    for symbol, outcome in zip(symbols, outcomes, strict=True):
        if isinstance(outcome, FAILED):
            written += _failed(symbol, outcome, request_id)
        else:
            size, pieces = skeleton.panel(program, outcome)
            written.append(skeleton.item(symbol, size))
            written += pieces
    rest = answers_pb2.ComputeIndicatorsAnswer(model=model.name, model_version=model.version, request_id=request_id)
    # Serialised messages that are joined are one message with the fields of both.
    return b"".join((*written, rest.SerializeToString()))
