"""The calls themselves: decode, submit, await, encode.

Owns what a request means. Knows neither gRPC (exchange.py carries it, or the serverless handler) nor torch.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence, Set
from functools import lru_cache
from typing import Any

import numpy as np
from google.rpc import status_pb2

from inference.batching.batcher import Batcher
from inference.batching.job import Job
from inference.calls import answers
from inference.calls.call import Call
from inference.loading.catalog import Catalog
from inference.status import Status
from market_inference.contract.encoding import twins
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2
from models import indicators
from models.forecast import Series

DEFAULT_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


class Servicer:
    """Answers validated requests, in the bytes that market_inference/contract/encoding/twins.py reads through twins.

    Every method returns the serialised public response or raises ServiceError.
    """

    def __init__(self, catalog: Catalog, batchers: dict[str, Batcher], status: Status) -> None:
        self._catalog = catalog
        self._batchers = batchers
        self._status = status

    async def predict(self, raw: bytes, call: Call) -> bytes:
        return await self._predict(requests_pb2.PredictColumns.FromString(raw), call)

    async def _predict(self, request: requests_pb2.PredictColumns, call: Call) -> bytes:
        model = await self._catalog.get("forecast", request.model)
        # A slice of a repeated field is a list, which is walked several times faster.
        levels, asked = _levels(tuple(request.quantiles[:])), request.series[:]
        horizon, refused = request.horizon, _refused(call, "series", len(asked))
        items = [
            Series(twins.array(series.values), horizon, levels)
            for series, status in zip(asked, refused, strict=True)
            if status is None
        ]
        found = await self._run("forecast", model, items, call, _gone(call, refused))
        symbols = [series.symbol for series in asked]
        outcomes = _merge(refused, found)
        call.failed = _failed(outcomes, call)
        return answers.forecasts(symbols, outcomes, levels, model, call.request_id)

    async def sentiment(self, raw: bytes, call: Call) -> bytes:
        return await self._sentiment(inference_pb2.AnalyzeSentimentRequest.FromString(raw), call)

    async def _sentiment(self, request: inference_pb2.AnalyzeSentimentRequest, call: Call) -> bytes:
        model = await self._catalog.get("sentiment", request.model)
        refused = _refused(call, "texts", len(request.texts))
        texts = [text for text, status in zip(request.texts, refused, strict=True) if status is None]
        self._batchers["sentiment"].check_room(call.priority, call.deadline)
        chunked = await asyncio.to_thread(model.prepare, texts)
        found = await self._run("sentiment", model, [chunk for chunks in chunked for chunk in chunks], call)
        return answers.sentiments(_merge(refused, _pool(model, chunked, found)), model, call.request_id)

    async def indicators(self, raw: bytes, call: Call) -> bytes:
        return await self._indicators(requests_pb2.ComputeIndicatorsColumns.FromString(raw), call)

    async def _indicators(self, request: requests_pb2.ComputeIndicatorsColumns, call: Call) -> bytes:
        model = await self._catalog.get("indicators", "")
        program = compile_specs(request.indicators[:])
        asked = request.panels[:]
        needs = [name for name in indicators.COLUMNS if name in program.needs]
        panels = [[getattr(panel, name) for name in needs] for panel in asked]
        refused = _refused(call, "panels", len(panels))
        _refuse_incomplete(needs, panels, refused, call.request_id)
        items = [
            indicators.Task(indicators.Panel(**dict(zip(needs, map(twins.array, panel), strict=True))), program)
            for panel, status in zip(panels, refused, strict=True)
            if status is None
        ]
        found = await self._run("indicators", model, items, call, _gone(call, refused))
        symbols = [panel.symbol for panel in asked]
        outcomes = _merge(refused, found)
        call.failed = _failed(outcomes, call)
        return answers.indicators(symbols, outcomes, program, model, call.request_id)

    async def analyze(self, raw: bytes, call: Call) -> bytes:
        """The parts side by side; one that fails carries its own status in the answer."""
        request = requests_pb2.AnalyzeColumns.FromString(raw)
        asked: dict[str, Coroutine[Any, Any, bytes]] = {}
        if request.HasField("predict"):
            asked["predict"] = self._predict(request.predict, call)
        if request.HasField("sentiment"):
            asked["sentiment"] = self._sentiment(request.sentiment, call)
        if request.HasField("indicators"):
            asked["indicators"] = self._indicators(request.indicators, call)
        outcomes = await asyncio.gather(*(self._part(part, call) for part in asked.values()))
        answer = answers_pb2.AnalyzeAnswer(request_id=call.request_id)
        for part, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, bytes):
                setattr(answer, part, outcome)
            else:
                getattr(answer, f"{part}_error").CopyFrom(outcome)
        return answer.SerializeToString()

    @staticmethod
    async def _part(part: Coroutine[Any, Any, bytes], call: Call) -> bytes | status_pb2.Status:
        try:
            return await part
        except ServiceError as error:
            return error.status(call.request_id)

    async def status(self, raw: bytes, call: Call) -> bytes:
        replica = await self._status.probe()
        return inference_pb2.GetStatusResponse(replicas=[replica], request_id=call.request_id).SerializeToString()

    async def models(self, raw: bytes, call: Call) -> bytes:
        listing = self._status.models()
        return inference_pb2.ListModelsResponse(models=listing, request_id=call.request_id).SerializeToString()

    async def _run(
        self, engine: str, model: Any, items: Sequence[Any], call: Call, gone: Set[int] = frozenset()
    ) -> list[Any]:
        """Submit the items as one job and await their outcomes. `gone` are those that nobody waits for, by place."""
        if not items:
            return []
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = Job(model, items, reply, call.client, call.priority, call.deadline, span=call.span, gone=gone)
        self._batchers[engine].submit(job)
        try:
            outcomes: list[Any] = await reply
        finally:
            call.took(job)
        # What befell one call's items is not what another's are told.
        if call.calls == 1 and all(isinstance(outcome, ServiceError) for outcome in outcomes):
            raise outcomes[0]
        return outcomes


@lru_cache(maxsize=4096)
def _levels(quantiles: tuple[float, ...]) -> tuple[float, ...]:
    """In order. Equal ones are one object, which a batch of many requests' series is quick to see."""
    return tuple(sorted(quantiles)) or DEFAULT_LEVELS


def _refused(call: Call, name: str, count: int) -> list[status_pb2.Status | None]:
    if not call.refused:
        return [None] * count
    return [call.refused.get((name, index)) for index in range(count)]


def _gone(call: Call, refused: Sequence[status_pb2.Status | None]) -> Set[int]:
    """The items that nobody waits for, as places among those that are computed: the same ones where none is refused."""
    return frozenset() if any(refused) else call.gone


def _merge(refused: Sequence[Any], found: Sequence[Any]) -> list[Any]:
    """Outcomes in the request's order: the refused items' statuses, and what was found for the others."""
    rest = iter(found)
    return [next(rest) if status is None else status for status in refused]


def _failed(outcomes: Sequence[Any], call: Call) -> Sequence[int]:
    """The places of errors, for the front that has to part the answer."""
    if call.calls == 1:
        return ()
    return [place for place, outcome in enumerate(outcomes) if isinstance(outcome, answers.FAILED)]


def _pool(model: Any, chunked: Sequence[Sequence[Any]], found: Sequence[Any]) -> list[Any]:
    """Each text's outcome from its chunks': (probabilities, chunks), or the error of the first chunk that failed."""
    outcomes: list[Any] = []
    start = 0
    for chunks in chunked:
        parts = found[start : start + len(chunks)]
        start += len(chunks)
        error = next((part for part in parts if isinstance(part, ServiceError)), None)
        outcomes.append(error or (model.pool(chunks, np.stack(parts)) if len(parts) > 1 else parts[0], len(parts)))
    return outcomes


def compile_specs(specs: Iterable[bytes]) -> indicators.Program:
    """The checked program of a request's IndicatorSpec messages, serialised. Raises InvalidRequestError.

    Live users send the same ones at every bar, so it is looked up by their bytes.
    """
    return _compiled(tuple(specs))


@lru_cache(maxsize=4096)
def _compiled(serialised: tuple[bytes, ...]) -> indicators.Program:
    specs = map(inference_pb2.IndicatorSpec.FromString, serialised)
    try:
        return indicators.compile([indicators.Spec(s.name, dict(s.params), s.last or None) for s in specs])
    except indicators.SpecError as error:
        field = f"indicators[{error.index}].{error.field}"
        raise InvalidRequestError([Violation(field, error.message, "indicator")]) from error


def _refuse_incomplete(
    needs: Sequence[str],
    panels: Sequence[Sequence[bytes]],
    refused: list[status_pb2.Status | None],
    request_id: str,
) -> None:
    """Refuse panels that lack one of the columns `needs`. Raises InvalidRequestError when none is complete."""
    if all(map(all, panels)):
        return
    found = []
    for index, panel in enumerate(panels):
        missing = [
            Violation(f"panels[{index}].{name}", "is empty, and a requested indicator needs it", "column_missing")
            for name, column in zip(needs, panel, strict=True)
            if refused[index] is None and not column
        ]
        if missing:
            refused[index] = InvalidRequestError(missing).status(request_id)
            found.extend(missing)
    if found and None not in refused:
        raise InvalidRequestError(found)
