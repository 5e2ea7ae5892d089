"""The session sessions of this replica: opening, bars in batches, answers in order.

Owns how many there are and what they may weigh, the thread that computes them, and their forecasts' way through the
forecast engine's batches. What a bar means to a session is session.py's; streams are exchange.py's.

Bars that arrive while a batch runs, of however many sessions, are the next batch: they share one hand-over between
threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from google.rpc import status_pb2

from inference.batching.batcher import Batcher
from inference.batching.job import Job
from inference.calls import answers
from inference.calls.servicer import DEFAULT_LEVELS, compile_specs
from inference.device.engine import BatchRan, Engine
from inference.loading.catalog import Catalog
from inference.sessions.session import Send, Session
from inference.sessions.state import BarUpdate, Opening, SessionState
from market_inference.contract import deadline, methods
from market_inference.contract.errors import (
    DrainingError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    SessionLostError,
    Violation,
)
from market_inference.contract.generated import answers_pb2, exchange_pb2, inference_pb2
from models import indicators
from models.forecast import Series
from models.indicators.plan import Plans
from runtime.logs import fields

log = logging.getLogger(__name__)

BATCH = 256
FORECAST_SECONDS = 10.0
_PLAN_BYTES = 128 << 20
_SHORTEST = methods.field_rules(inference_pb2.Series.DESCRIPTOR.fields_by_name["values"]).repeated.min_items

CLOSED = "CLOSED"
"""How a session ends that its caller, or the caller's gateway, closes."""


class Observer(Protocol):
    """Told what happens, for metrics. Every session that is opened ends once; reasons are those of contract.errors."""

    def opened(self) -> None: ...
    def ended(self, reason: str) -> None: ...
    def bar(self, outcome: str) -> None:
        """`taken` or `refused`."""
        ...

    def checked(self, model: str, hit: bool) -> None:
        """A bar has shown whether a forecast's interval held."""
        ...


class SessionService:
    """All sessions of this process. Every method is called on the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        forecasts: Batcher,
        catalog: Catalog,
        *,
        most: int,
        most_bytes: int,
        observer: Observer,
    ) -> None:
        self._engine = engine
        self._forecasts = forecasts
        self._catalog = catalog
        self._most = most
        self._most_bytes = most_bytes
        self._observer = observer
        self._computation = _SessionEngine()
        self._waiting: deque[tuple[Session, Opening | inference_pb2.WatchBar]] = deque()
        self._running = False
        self._asked = False
        self._live: set[Session] = set()
        self.nbytes = 0

    @property
    def count(self) -> int:
        return len(self._live)

    def open(self, envelope: exchange_pb2.Envelope, send: Send) -> Session:
        """A session for the envelope; its first reply tells that it is open, or why it cannot be."""
        session = Session(envelope, send)
        self._live.add(session)
        self._observer.opened()
        session.opening = asyncio.create_task(self._open(session))
        return session

    def bar(self, session: Session, bar: inference_pb2.WatchBar) -> None:
        """Take a bar for an open session, or one that is being opened."""
        if session.closed:
            return
        if session.early is not None:
            session.early.append(bar)
        else:
            self._submit(session, bar)

    def close(self, session: Session, reason: str = CLOSED) -> None:
        """Forget a session: nobody waits for its answers."""
        session.closed = True
        if session in self._live:
            self._live.remove(session)
            self._observer.ended(reason)
            self.nbytes -= session.nbytes
        for task in (session.opening, *session.forecasts):
            if task is not None:
                task.cancel()

    def drain(self) -> None:
        """Send every session elsewhere."""
        for session in tuple(self._live):
            self._fail(session, DrainingError("the replica is draining", retry_after=0.1))

    def _fail(self, session: Session, error: ServiceError) -> None:
        session.end(error)
        self.close(session, error.reason)

    async def _open(self, session: Session) -> None:
        request, session.request = session.request, None
        if request is None:
            raise RuntimeError("a session is opened once")
        try:
            opening = await self._ask(session, request)
        except ServiceError as error:
            session.opening = None
            self._fail(session, error)
            return
        except Exception:  # a bug of ours: the caller learns nothing of it, the log everything
            log.exception("session failed to open", extra=fields(request_id=session.request_id))
            session.opening = None
            self._fail(session, InternalError())
            return
        self._submit(session, opening)
        early, session.early = session.early or [], None
        for bar in early:
            self._submit(session, bar)

    async def _ask(self, session: Session, request: inference_pb2.WatchOpen) -> Opening:
        """What the session needs, within the bounds. Raises ServiceError."""
        history, program = (
            _panel_of(request.history),
            compile_specs(spec.SerializeToString() for spec in request.indicators),
        )
        missing = [name for name in indicators.COLUMNS if name in program.needs and getattr(history, name) is None]
        if missing:
            raise InvalidRequestError(
                [Violation(f"history.{name}", "is empty, and an indicator needs it", "missing") for name in missing]
            )
        _check_times(request.times, history.bars)
        every = 0
        if request.HasField("forecast"):
            every = request.forecast.every or 1
            session.levels = tuple(sorted(request.forecast.quantiles)) or DEFAULT_LEVELS
            session.model = await self._catalog.get("forecast", request.forecast.model)
        wanted = max(request.bars or history.bars, _SHORTEST if every else 1)
        opening = Opening(history, request.times, program, wanted, every, request.sequence)
        if len(self._live) > self._most:
            raise OverloadedError(f"too many sessions (max {self._most})", retry_after=1.0)
        # As Bars allots them.
        session.nbytes = len(opening.columns) * (opening.held + opening.held // 4 + 64) * 8
        if self.nbytes + session.nbytes > self._most_bytes:
            session.nbytes = 0
            raise OverloadedError(
                f"the sessions' memory is used up (max {self._most_bytes} bytes): hold fewer bars", retry_after=1.0
            )
        self.nbytes += session.nbytes
        return opening

    def _submit(self, session: Session, work: Opening | inference_pb2.WatchBar) -> None:
        self._waiting.append((session, work))
        if not self._running and not self._asked:
            self._asked = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._asked = False
        if self._running or not self._waiting:
            return
        batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        batch = [one for one in batch if not one[0].closed]
        self._running = True
        self._engine.run(self._computation, batch, lambda ran: self._deliver(batch, ran))

    def _deliver(self, batch: Sequence[tuple[Session, Any]], ran: BatchRan) -> None:
        self._running = False
        for (session, work), outcome in zip(batch, ran.answers, strict=True):
            if isinstance(work, Opening):
                self._opened(session, work, outcome)
            else:
                self._answered(session, work, outcome)
        self._dispatch()

    def _opened(self, session: Session, opening: Opening, outcome: SessionState | ServiceError) -> None:
        if isinstance(outcome, ServiceError):
            self._fail(session, outcome)
            return
        session.state = outcome
        opened = inference_pb2.WatchOpened(
            columns=_names(opening.program),
            request_id=session.request_id,
            quantile_levels=session.levels,
            bars=outcome.held,
            memory_bytes=session.nbytes,
        )
        if session.model is not None:
            opened.model, opened.model_version = session.model.name, session.model.version
        session.answer(answers_pb2.WatchAnswer(sequence=opening.sequence, opened=opened))

    def _answered(self, session: Session, bar: inference_pb2.WatchBar, outcome: BarUpdate | ServiceError) -> None:
        if isinstance(outcome, InternalError):
            self._fail(session, outcome)  # what the bar left behind is unknown
            return
        session.taken += 1
        answer = answers_pb2.WatchAnswer(sequence=bar.sequence, taken=session.taken)
        if isinstance(outcome, ServiceError):
            self._observer.bar("refused")
            answer.error.CopyFrom(outcome.status(session.request_id))
            session.answer(answer)
            return
        self._observer.bar("taken")
        self._check_interval(session, bar)
        answer.update.indicators = outcome.values.tobytes()
        if outcome.closes is None:
            session.answer(answer)
            return
        forecast = asyncio.create_task(self._forecast(session, answer, outcome.closes, session.reserve()))
        session.forecasts.add(forecast)
        forecast.add_done_callback(session.forecasts.discard)

    def _check_interval(self, session: Session, bar: inference_pb2.WatchBar) -> None:
        hit = session.interval.meet(bar.sequence, bar.bar.close)
        if hit is not None:
            self._observer.checked(session.model.name, hit)

    async def _forecast(self, session: Session, answer: answers_pb2.WatchAnswer, closes: Any, slot: list[Any]) -> None:
        """Finish an answer with its forecast. SessionService that are due together share the engine's batch."""
        try:
            found = await self._run_forecast(session, closes)
            answers.write_forecast(answer.update.forecast, found)
            session.interval.expect(answer.sequence + 1, session.levels, found.quantiles[0])
        except ServiceError as error:
            answer.update.forecast_error.CopyFrom(error.status(session.request_id))
        except Exception:  # a bug of ours: the caller learns nothing of it, the log everything
            log.exception("forecast failed", extra=fields(request_id=session.request_id))
            status: status_pb2.Status = InternalError().status(session.request_id)
            answer.update.forecast_error.CopyFrom(status)
        session.answer(answer, slot)

    async def _run_forecast(self, session: Session, closes: Any) -> Any:
        if len(closes) < _SHORTEST:
            violation = Violation("history", f"too short to forecast (min {_SHORTEST}, got {len(closes)})", "min_items")
            raise InvalidRequestError([violation])
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        series = Series(closes, session.horizon, session.levels)
        until = deadline.after(FORECAST_SECONDS)
        self._forecasts.submit(Job(session.model, [series], reply, session.client, "interactive", until))
        (outcome,) = await reply
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome


class _SessionEngine:
    """What the sessions' thread runs: openings and bars, each for itself."""

    name = "sessions"

    def __init__(self) -> None:
        self._plans = Plans(_PLAN_BYTES)

    def run(self, items: Sequence[tuple[Session, Any]]) -> list[SessionState | BarUpdate | ServiceError]:
        """One outcome each. Never raises, since a batch that is run again would take its bars twice."""
        opened: dict[Session, SessionState] = {}
        outcomes: list[SessionState | BarUpdate | ServiceError] = []
        for session, work in items:
            outcome = self._one(session, opened.get(session) or session.state, work)
            if isinstance(outcome, SessionState):
                opened[session] = outcome
            outcomes.append(outcome)
        return outcomes

    def _one(self, session: Session, state: SessionState | None, work: Any) -> SessionState | BarUpdate | ServiceError:
        try:
            if isinstance(work, Opening):
                return SessionState(work, self._plans)
            if state is None:
                return SessionLostError("the session did not open", retry_after=0.0)
            return state.take(work)
        except ServiceError as error:
            return error
        except Exception:  # a bug of ours: it ends this session, and no other
            log.exception("session failed", extra=fields(request_id=session.request_id))
            return InternalError()


def _panel_of(panel: inference_pb2.Panel) -> indicators.Panel:
    """A message's columns as arrays; those that are empty are absent."""
    found = [getattr(panel, name) for name in indicators.COLUMNS]
    return indicators.Panel(*[np.asarray(column) if len(column) else None for column in found])


def _check_times(times: Sequence[int], bars: int) -> None:
    if not times:
        return
    if len(times) != bars:
        what = f"must have as many values as history.close ({bars}, got {len(times)})"
        raise InvalidRequestError([Violation("times", what, "equal_length")])
    for at in range(1, bars):
        if times[at] <= times[at - 1]:
            raise InvalidRequestError([Violation(f"times[{at}]", "must be after the one before it", "ascending")])


def _names(program: indicators.Program) -> list[str]:
    """ "RSI", or "MACD.macdsignal" where a function has several outputs."""
    return [
        call.function.name if len(call.function.outputs) == 1 else f"{call.function.name}.{output.name}"
        for call in program.calls
        for output in call.function.outputs
    ]
