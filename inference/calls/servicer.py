"""The methods of the public service: decode the request, submit jobs, await them, encode the response.

Owns the meaning of a request. Knows neither gRPC (transport/exchange.py and the serverless handler carry requests) nor
torch.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.rpc import status_pb2

from inference.batching.job import Job
from inference.batching.tracks import Tracks
from inference.calls import answers, together
from inference.calls.answer_memory import AnswerMemory
from inference.calls.call import ReplicaCall
from inference.calls.parts import PART_UNITS, PanelParts
from inference.calls.shadow import Shadows
from inference.calls.texts import PREPARATION
from inference.calls.together import require_taken
from inference.loading.catalog import Catalog
from inference.status import Status
from market_inference.contract import answer_size
from market_inference.contract.encoding import in_place, twins
from market_inference.contract.errors import InvalidRequestError, ServiceError, Violation
from market_inference.contract.generated import answers_pb2, inference_pb2, requests_pb2
from models import indicators
from models.cache import SizedCache, sized_cache
from models.forecast import Group, Series
from runtime.foreign import contained

DEFAULT_LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

# Programs by the serialised specs of a request, bounded in bytes: some 450 of ten indicators. A program has many small
# objects, over which the garbage collector passes: 32 MB of programs and plans make that a pause of 60 ms and more.
_programs: SizedCache[indicators.Program] = SizedCache(4 << 20)
_BYTES_OBJECT = 48
# A cautious estimate before a text is prepared: English text has about four.
_CHARACTERS_PER_TOKEN = 6


class Servicer:
    """Serves requests that the gateway has checked, from bytes that contract/encoding/twins.py can read.

    Every method takes a serialised public request and returns the serialised public response, or raises ServiceError.
    `tracks` has the tracks of each engine, and of "texts".
    """

    def __init__(
        self, catalog: Catalog, tracks: Mapping[str, Tracks], status: Status, memory: AnswerMemory, shadows: Shadows
    ) -> None:
        self._catalog = catalog
        self._tracks = tracks
        self._status = status
        self.memory = memory
        self.shadows = shadows

    async def predict(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        request = _read(inference_pb2.PredictRequest, raw)
        response = await self._predict(request, call)
        self.shadows.compare("forecast", request, self._predict, response, call)
        return response

    async def _predict(self, request: requests_pb2.PredictColumns, call: ReplicaCall) -> bytes:
        model = await self._catalog.get("forecast", request.model)
        call.add_items(model.name, len(request.series))
        require_taken(model, "period", request.period, "period")
        # A slice of a repeated field is a list: Python iterates a list several times faster.
        levels, series = _levels(tuple(request.quantiles[:])), request.series[:]
        horizon, refused = request.horizon, _refused(call, "series", len(series))
        joint, alike = None, False
        items: Sequence[Series | Group]
        if together.asked(request, series):
            joint = together.read(request, levels, model, refused, call.request_id)
            items, refused = joint.items, joint.refused
        else:
            plain = [
                Series(twins.array(one.values), horizon, levels, one.symbol, request.period)
                for one, status in zip(series, refused, strict=True)
                if status is None
            ]
            # Bucket and units of a series follow from its length, besides what all series of a request share.
            items, alike = plain, len({len(item.values) for item in plain}) == 1
        held = self.memory.hold(call.client, answer_size.predict(request))
        try:
            found = await self._run("forecast", model, items, call, _withdrawn(call, refused), alike=alike)
            outcomes = _in_order(refused, found) if joint is None else joint.in_order(found)
            call.failed = _failed(outcomes, call)
            call.count_warnings(outcomes)
            return answers.forecasts([one.symbol for one in series], outcomes, levels, model, call.request_id)
        finally:
            self.memory.release(call.client, held)

    async def sentiment(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        request = inference_pb2.AnalyzeSentimentRequest.FromString(bytes(raw))
        response = await self._sentiment(request, call)
        self.shadows.compare("sentiment", request, self._sentiment, response, call)
        return response

    async def _sentiment(self, request: inference_pb2.AnalyzeSentimentRequest, call: ReplicaCall) -> bytes:
        model = await self._catalog.get("sentiment", request.model)
        call.add_items(model.name, len(request.texts))
        refused = _refused(call, "texts", len(request.texts))
        asked = enumerate(zip(request.texts, _companies(request), refused, strict=True))
        items = [(model, text, company, index) for index, (text, company, status) in asked if status is None]
        # Refuse the request before its texts are prepared if the model's queue is full, or too slow for the deadline.
        tokens = sum([_tokens(text) for _, text, _, _ in items])
        self._tracks["sentiment"].check_units(model, tokens, call)
        texts = await self._run("texts", PREPARATION, items, call)
        chunks = [chunk for text in texts if not isinstance(text, ServiceError) for chunk in text.chunks]
        outcomes = _pool(model, texts, await self._run("sentiment", model, chunks, call))
        call.count_warnings(outcomes)
        return answers.sentiments(_in_order(refused, outcomes), model, call.request_id)

    async def indicators(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        return await self._indicators(_read(inference_pb2.ComputeIndicatorsRequest, raw), call)

    async def _indicators(self, request: requests_pb2.ComputeIndicatorsColumns, call: ReplicaCall) -> bytes:
        model = await self._catalog.get("indicators", "")
        call.add_items(model.name, len(request.panels))
        program = compile_specs(request.indicators[:])
        panels = request.panels[:]
        needs = [name for name in indicators.COLUMNS if name in program.needs]
        columns = [[getattr(panel, name) for name in needs] for panel in panels]
        refused = _refused(call, "panels", len(panels))
        _refuse_incomplete(needs, columns, refused, call.request_id)
        items = [
            indicators.Task(indicators.Panel(**dict(zip(needs, map(twins.array, given), strict=True))), program)
            for given, status in zip(columns, refused, strict=True)
            if status is None
        ]
        # A costly request is refused before it is divided.
        longest = max(items, key=lambda item: item.panel.bars, default=None)
        if longest is not None and program.units(longest.panel.bars) > PART_UNITS:
            self._tracks["indicators"].check_early(model, longest, len(items), call)
        held = self.memory.hold(call.client, answer_size.indicators(request))
        try:
            places = [index for index, status in enumerate(refused) if status is None]
            parts = PanelParts(items, _withdrawn(call, refused), places)
            # Bucket and units of a panel follow from its length, besides the program that all panels share.
            alike = parts.tasks is items and len({item.panel.bars for item in items}) == 1
            found = parts.join(await self._run("indicators", model, parts.tasks, call, parts.withdrawn, alike=alike))
            if found and call.calls == 1 and all(isinstance(outcome, ServiceError) for outcome in found):
                raise found[0]
            outcomes = _in_order(refused, found)
            call.failed = _failed(outcomes, call)
            return answers.indicators([panel.symbol for panel in panels], outcomes, program, model, call.request_id)
        finally:
            self.memory.release(call.client, held)

    async def analyze(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        """Run the parts in parallel. A part that fails has its own status in the response."""
        request = requests_pb2.AnalyzeColumns.FromString(bytes(raw))
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
    async def _part(part: Coroutine[Any, Any, bytes], call: ReplicaCall) -> bytes | status_pb2.Status:
        try:
            return await part
        except ServiceError as error:
            return error.status(call.request_id)

    async def status(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        replica = await self._status.probe()
        return inference_pb2.GetStatusResponse(replicas=[replica], request_id=call.request_id).SerializeToString()

    async def models(self, raw: bytes | memoryview, call: ReplicaCall) -> bytes:
        listing = self._status.models()
        return inference_pb2.ListModelsResponse(models=listing, request_id=call.request_id).SerializeToString()

    async def _run(
        self,
        engine: str,
        model: Any,
        items: Sequence[Any],
        call: ReplicaCall,
        withdrawn: Set[int] = frozenset(),
        *,
        alike: bool = False,
    ) -> list[Any]:
        """Submit the items as one job and await their outcomes.

        `withdrawn`: indices of items to leave out. `alike`: all items have one bucket and one number of units.
        """
        if not items:
            return []
        job = Job(
            model,
            items,
            client=call.client,
            priority=call.priority,
            deadline=call.deadline,
            span=call.span,
            withdrawn=withdrawn,
            alike=alike,
        )
        tracks = self._tracks[engine]
        tracks.submit(job)
        try:
            outcomes = await tracks.outcomes(job)
        finally:
            call.add_timing(job)
        # Calls of a merged request get their errors item by item.
        if call.calls == 1 and all(isinstance(outcome, ServiceError) for outcome in outcomes):
            raise outcomes[0]
        return outcomes


def _read(kind: type[Message], raw: bytes | memoryview) -> Any:
    """The request of the public type `kind`, in place or as its twin."""
    return in_place.read(kind, raw) or twins.TWINS[kind].FromString(raw)  # type: ignore[arg-type]  # takes views, too


@lru_cache(maxsize=1024)
def _levels(quantiles: tuple[float, ...]) -> tuple[float, ...]:
    """The levels in ascending order. A batch compares equal levels by identity."""
    return tuple(sorted(quantiles)) or DEFAULT_LEVELS


def _refused(call: ReplicaCall, name: str, count: int) -> list[status_pb2.Status | None]:
    if not call.refused:
        return [None] * count
    return [call.refused.get((name, index)) for index in range(count)]


def _companies(request: inference_pb2.AnalyzeSentimentRequest) -> Sequence[str]:
    """The company of each text, "" for none. Raises InvalidRequestError if there are not as many companies as texts."""
    about, count = request.about, len(request.texts)
    if about and len(about) != count:
        what = f"must have as many values as texts, or none ({count}, got {len(about)})"
        raise InvalidRequestError([Violation("about", what, "equal_length")])
    return about or [""] * count


def _withdrawn(call: ReplicaCall, refused: Sequence[status_pb2.Status | None]) -> Set[int]:
    """Indices of withdrawn items among the items that run. They are the request's indices if no item was refused."""
    return frozenset() if any(refused) else call.withdrawn


def _in_order(refused: Sequence[Any], outcomes: Sequence[Any]) -> list[Any]:
    """Outcomes in the request's order: the statuses of refused items, and the outcomes of the others."""
    rest = iter(outcomes)
    return [next(rest) if status is None else status for status in refused]


def _failed(outcomes: Sequence[Any], call: ReplicaCall) -> Sequence[int]:
    """Indices of errors, for a gateway that splits the response to a merged request."""
    if call.calls == 1:
        return ()
    return [index for index, outcome in enumerate(outcomes) if isinstance(outcome, answers.FAILED)]


def _pool(model: Any, texts: Sequence[Any], outcomes: Sequence[Any]) -> list[Any]:
    """Each text's outcome: an answers.Sentiment, or the first error of its preparation or its chunks."""
    pooled: list[Any] = []
    start = 0
    for text in texts:
        if isinstance(text, ServiceError):
            pooled.append(text)
            continue
        parts = outcomes[start : start + len(text.chunks)]
        start += len(text.chunks)
        error = next((part for part in parts if isinstance(part, ServiceError)), None)
        if error is not None:
            pooled.append(error)
            continue
        with contained:
            probabilities = model.pool(text.chunks, np.stack(parts)) if len(parts) > 1 else parts[0]
        pooled.append(answers.Sentiment(probabilities, len(parts), text.warnings))
    return pooled


def _tokens(text: str) -> float:
    """About the tokens of a text: a character that takes three bytes, such as a Chinese one, is a token by itself."""
    beyond = 0 if text.isascii() else (len(text.encode()) - len(text)) / 2
    return len(text) / _CHARACTERS_PER_TOKEN + beyond


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
    try:
        return indicators.assemble(map(_checked, serialised))
    except indicators.SpecError as error:
        field = f"indicators[{error.index}].{error.field}"
        raise InvalidRequestError([Violation(field, error.message, "indicator")]) from error


# A new list of indicators mostly has known indicators.
@sized_cache(1 << 20, lambda call: indicators.CALL_BYTES)
def _checked(serialised: bytes) -> indicators.Call:
    spec = inference_pb2.IndicatorSpec.FromString(serialised)
    return indicators.check(indicators.Spec(spec.name, dict(spec.params), spec.last or None))


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
