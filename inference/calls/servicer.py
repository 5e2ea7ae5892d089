"""The methods of the public service: decode the request, submit jobs, await them, encode the response.

Owns the meaning of a request. Knows neither gRPC (transport/exchange.py and the serverless handler carry requests) nor
torch.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any

import numpy as np
from google.rpc import status_pb2

from inference.batching.batcher import Batcher
from inference.batching.job import Job
from inference.calls import answers
from inference.calls.answer_memory import AnswerMemory
from inference.calls.call import Call
from inference.calls.texts import TextPreparation
from inference.loading.catalog import Catalog
from inference.status import Status
from market_inference.contract.encoding import twins
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2
from models import indicators
from models.cache import SizedCache
from models.forecast import Series

DEFAULT_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# Programs by the serialised specs of a request, bounded in bytes.
_programs: SizedCache[indicators.Program] = SizedCache(32 << 20)
_BYTES_OBJECT = 48


class Servicer:
    """Serves requests that the gateway has checked, from bytes that contract/encoding/twins.py can read.

    Every method takes a serialised public request and returns the serialised public response, or raises ServiceError.
    `batchers` has one batcher per engine, and "texts".
    """

    def __init__(self, catalog: Catalog, batchers: Mapping[str, Batcher], status: Status, memory: AnswerMemory) -> None:
        self._catalog = catalog
        self._batchers = batchers
        self._status = status
        self.memory = memory
        self._preparation = TextPreparation()

    async def predict(self, raw: bytes, call: Call) -> bytes:
        return await self._predict(requests_pb2.PredictColumns.FromString(raw), call)

    async def _predict(self, request: requests_pb2.PredictColumns, call: Call) -> bytes:
        model = await self._catalog.get("forecast", request.model)
        # A slice of a repeated field is a list: Python iterates a list several times faster.
        levels, series = _levels(tuple(request.quantiles[:])), request.series[:]
        horizon, refused = request.horizon, _refused(call, "series", len(series))
        items = [
            Series(twins.array(one.values), horizon, levels)
            for one, status in zip(series, refused, strict=True)
            if status is None
        ]
        held = self.memory.hold(call.client, answers.forecasts_bytes(len(items), horizon, len(levels)))
        try:
            outcomes = _merge(refused, await self._run("forecast", model, items, call, _withdrawn(call, refused)))
            call.failed = _failed(outcomes, call)
            return answers.forecasts([one.symbol for one in series], outcomes, levels, model, call.request_id)
        finally:
            self.memory.release(call.client, held)

    async def sentiment(self, raw: bytes, call: Call) -> bytes:
        return await self._sentiment(inference_pb2.AnalyzeSentimentRequest.FromString(raw), call)

    async def _sentiment(self, request: inference_pb2.AnalyzeSentimentRequest, call: Call) -> bytes:
        model = await self._catalog.get("sentiment", request.model)
        refused = _refused(call, "texts", len(request.texts))
        items = [(model, text) for text, status in zip(request.texts, refused, strict=True) if status is None]
        # Refuse the request before its texts are prepared if the model's queue is full.
        self._batchers["sentiment"].check_room(call.client, call.priority, call.deadline, 0.0)
        chunks_of = await self._run("texts", self._preparation, items, call)
        chunks = [chunk for chunks in chunks_of if not isinstance(chunks, ServiceError) for chunk in chunks]
        outcomes = _pool(model, chunks_of, await self._run("sentiment", model, chunks, call))
        return answers.sentiments(_merge(refused, outcomes), model, call.request_id)

    async def indicators(self, raw: bytes, call: Call) -> bytes:
        return await self._indicators(requests_pb2.ComputeIndicatorsColumns.FromString(raw), call)

    async def _indicators(self, request: requests_pb2.ComputeIndicatorsColumns, call: Call) -> bytes:
        model = await self._catalog.get("indicators", "")
        program = compile_specs(request.indicators[:])
        panels = request.panels[:]
        needs = [name for name in indicators.COLUMNS if name in program.needs]
        columns = [[getattr(panel, name) for name in needs] for panel in panels]
        refused = _refused(call, "panels", len(panels))
        _refuse_incomplete(needs, columns, refused, call.request_id)
        items = [
            indicators.Task(indicators.Panel(**dict(zip(needs, map(twins.array, found), strict=True))), program)
            for found, status in zip(columns, refused, strict=True)
            if status is None
        ]
        held = self.memory.hold(call.client, answers.indicators_bytes(program, [item.panel.bars for item in items]))
        try:
            outcomes = _merge(refused, await self._run("indicators", model, items, call, _withdrawn(call, refused)))
            call.failed = _failed(outcomes, call)
            return answers.indicators([panel.symbol for panel in panels], outcomes, program, model, call.request_id)
        finally:
            self.memory.release(call.client, held)

    async def analyze(self, raw: bytes, call: Call) -> bytes:
        """Run the parts in parallel. A part that fails has its own status in the response."""
        request = requests_pb2.AnalyzeColumns.FromString(raw)
        parts: dict[str, Coroutine[Any, Any, bytes]] = {}
        if request.HasField("predict"):
            parts["predict"] = self._predict(request.predict, call)
        if request.HasField("sentiment"):
            parts["sentiment"] = self._sentiment(request.sentiment, call)
        if request.HasField("indicators"):
            parts["indicators"] = self._indicators(request.indicators, call)
        outcomes = await asyncio.gather(*(self._part(part, call) for part in parts.values()))
        response = answers_pb2.AnalyzeAnswer(request_id=call.request_id)
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, bytes):
                setattr(response, part, outcome)
            else:
                getattr(response, f"{part}_error").CopyFrom(outcome)
        return response.SerializeToString()

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
        self, engine: str, model: Any, items: Sequence[Any], call: Call, withdrawn: Set[int] = frozenset()
    ) -> list[Any]:
        """Submit the items as one job and await their outcomes. `withdrawn`: indices of items to leave out."""
        if not items:
            return []
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        job = Job(model, items, reply, call.client, call.priority, call.deadline, span=call.span, withdrawn=withdrawn)
        batcher = self._batchers[engine]
        batcher.submit(job)
        try:
            outcomes: list[Any] = await reply
        except asyncio.CancelledError:
            batcher.withdraw(job)
            raise
        finally:
            call.add_timing(job)
        # Calls of a merged request get their errors item by item.
        if call.calls == 1 and all(isinstance(outcome, ServiceError) for outcome in outcomes):
            raise outcomes[0]
        return outcomes


@lru_cache(maxsize=1024)
def _levels(quantiles: tuple[float, ...]) -> tuple[float, ...]:
    """The levels in ascending order. A batch compares equal levels by identity."""
    return tuple(sorted(quantiles)) or DEFAULT_LEVELS


def _refused(call: Call, name: str, count: int) -> list[status_pb2.Status | None]:
    if not call.refused:
        return [None] * count
    return [call.refused.get((name, index)) for index in range(count)]


def _withdrawn(call: Call, refused: Sequence[status_pb2.Status | None]) -> Set[int]:
    """Indices of withdrawn items among the items that run. They are the request's indices if no item was refused."""
    return frozenset() if any(refused) else call.withdrawn


def _merge(refused: Sequence[Any], outcomes: Sequence[Any]) -> list[Any]:
    """Outcomes in the request's order: the statuses of refused items, and the outcomes of the others."""
    rest = iter(outcomes)
    return [next(rest) if status is None else status for status in refused]


def _failed(outcomes: Sequence[Any], call: Call) -> Sequence[int]:
    """Indices of errors, for a gateway that splits the response to a merged request."""
    if call.calls == 1:
        return ()
    return [index for index, outcome in enumerate(outcomes) if isinstance(outcome, answers.FAILED)]


def _pool(model: Any, chunks_of: Sequence[Any], outcomes: Sequence[Any]) -> list[Any]:
    """Each text's outcome: (probabilities, number of chunks), or the first error of its preparation or its chunks."""
    pooled: list[Any] = []
    start = 0
    for chunks in chunks_of:
        if isinstance(chunks, ServiceError):
            pooled.append(chunks)
            continue
        parts = outcomes[start : start + len(chunks)]
        start += len(chunks)
        error = next((part for part in parts if isinstance(part, ServiceError)), None)
        pooled.append(error or (model.pool(chunks, np.stack(parts)) if len(parts) > 1 else parts[0], len(parts)))
    return pooled


def compile_specs(specs: Iterable[bytes]) -> indicators.Program:
    """The program of a request's serialised IndicatorSpec messages. Raises InvalidRequestError.

    Programs are cached by these bytes, because live users send the same indicators at every bar.
    """
    key = tuple(specs)
    program = _programs.get(key)
    if program is None:
        program = _compiled(key)
        _programs.put(key, program, program.size_bytes + sum(_BYTES_OBJECT + len(spec) for spec in key))
    return program


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
    """Refuse panels that lack one of the columns `needs`. Raises InvalidRequestError if no panel is complete."""
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
