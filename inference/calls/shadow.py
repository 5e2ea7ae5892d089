"""Models in the shadow: run on a share of a model's requests, compared with the answers of callers, never returned.

Owns the sampling, the bound on the work, and the comparison. A shadow's work is batch work of a client of its own: it
waits behind callers' work, and is left out when a queue is not nearly empty.
"""

import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import numpy as np

from inference.batching.tracks import Tracks
from inference.calls.call import ReplicaCall
from inference.loading.catalog import Catalog
from market_inference.contract import deadline
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import inference_pb2
from runtime.logs import fields
from runtime.tasks import Tasks

log = logging.getLogger(__name__)

CLIENT: Final = "shadow"
_MOST_RUNNING = 4
_MOST_QUEUED_SECONDS = 0.2
_SECONDS = 30.0

Serve = Callable[[Any, ReplicaCall], Awaitable[bytes]]
Count = Callable[[str, str, str, str, int], None]
"""(engine, model, version, outcome, items): outcome is agree, differ or failed."""


class Shadows:
    """Compares requests. `count` gets the results."""

    def __init__(self, catalog: Catalog, tracks: Mapping[str, Tracks], count: Count) -> None:
        self._catalog = catalog
        self._tracks = tracks
        self._count = count
        self._running = Tasks()

    def compare(self, engine: str, request: Any, serve: Serve, response: bytes, call: ReplicaCall) -> None:
        """Perhaps run the model's shadow on the request, in a task; returns at once."""
        shadow = self._catalog.shadow(engine, request.model)
        if shadow is None or len(self._running) >= _MOST_RUNNING or random.random() >= shadow.share:  # noqa: S311
            return
        if self._tracks[engine].queued_seconds(deadline.now()) > _MOST_QUEUED_SECONDS:
            return
        request.model = shadow.name
        beside = ReplicaCall(
            request_id=call.request_id, client=CLIENT, priority="batch", deadline=deadline.after(_SECONDS),
            refused=dict(call.refused),
        )  # fmt: skip
        self._running.spawn(self._compare(engine, request, serve, response, beside))

    async def _compare(self, engine: str, request: Any, serve: Serve, response: bytes, call: ReplicaCall) -> None:
        try:
            answered = await serve(request, call)
        except ServiceError as error:
            log.info("shadow failed", extra=fields(engine=engine, model=request.model, reason=error.reason))
            self._count(engine, request.model, "", "failed", 1)
            return
        except Exception:  # a bug of a model that no caller has asked for
            log.exception("shadow failed", extra=fields(engine=engine, model=request.model))
            self._count(engine, request.model, "", "failed", 1)
            return
        compare = _forecasts if engine == "forecast" else _sentiments
        version, agree, differ = compare(response, answered)
        self._count(engine, request.model, version, "agree", agree)
        self._count(engine, request.model, version, "differ", differ)


def _sentiments(response: bytes, shadow: bytes) -> tuple[str, int, int]:
    """The shadow's version, and how many texts have the same and another label."""
    served = inference_pb2.AnalyzeSentimentResponse.FromString(response)
    beside = inference_pb2.AnalyzeSentimentResponse.FromString(shadow)
    pairs = [
        (one.sentiment, other.sentiment)
        for one, other in zip(served.sentiments, beside.sentiments, strict=True)
        if one.HasField("sentiment") and other.HasField("sentiment")
    ]
    agree = sum(_label(one) == _label(other) for one, other in pairs)
    return beside.model_version, agree, len(pairs) - agree


def _label(one: inference_pb2.Sentiment) -> int:
    return int(np.argmax([one.negative, one.neutral, one.positive]))


def _forecasts(response: bytes, shadow: bytes) -> tuple[str, int, int]:
    """The shadow's version, and how many of its medians lie in and out of the served interval at the last step."""
    served = inference_pb2.PredictResponse.FromString(response)
    beside = inference_pb2.PredictResponse.FromString(shadow)
    found = []
    for one, other in zip(served.forecasts, beside.forecasts, strict=True):
        if one.HasField("forecast") and other.HasField("forecast"):
            levels = len(one.forecast.quantiles) // len(one.forecast.point)
            low, high = one.forecast.quantiles[-levels], one.forecast.quantiles[-1]
            found.append(low <= other.forecast.point[-1] <= high)
    return beside.model_version, sum(found), len(found) - sum(found)
