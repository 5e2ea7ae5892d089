"""The live sessions of this replica: opening, bars in batches, forecasts that are due.

Owns how many sessions there are, how much memory they may hold, the way of their work through the two lanes, and the
jobs of their forecasts. lane.py owns a thread's work, state.py bars and indicators; transport/exchange.py the streams.

Openings and bars are scheduled like jobs: turns.py orders them fairly between clients, and a batch ends after some
milliseconds. A history is loaded in slices of that time on a thread of its own, which gives way on a busy CPU: 10,000
bars of 100 recursive indicators take seconds of the interpreter. So no session delays another by more than a batch, and
closing a session removes its waiting work.
"""

import asyncio
import logging
import math
from collections import defaultdict
from functools import partial
from typing import Any

from google.rpc import status_pb2

from inference.batching.job import Job
from inference.batching.tracks import Tracks
from inference.calls import answers
from inference.calls.answer_memory import AnswerMemory
from inference.calls.servicer import DEFAULT_LEVELS, compile_specs
from inference.calls.together import not_nanoseconds, require_taken
from inference.device.engine import Engine
from inference.loading.catalog import Catalog
from inference.metrics import SessionMetrics
from inference.sessions.lane import Lane
from inference.sessions.session import Phase, Send, Session
from inference.sessions.state import BarUpdate, Opening, SessionState
from market_inference.contract import deadline, methods, units
from market_inference.contract.errors import (
    DrainingError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    ServiceError,
    SessionLostError,
    UnknownModelError,
    Violation,
)
from market_inference.contract.generated import answers_pb2, exchange_pb2, inference_pb2
from models import indicators
from models.forecast import Series
from models.indicators.incremental import newest_units
from models.indicators.plan import Plans
from runtime.logs import fields

log = logging.getLogger(__name__)

MAX_LOOKBACK = methods.max_lookback(inference_pb2.WatchOpen.DESCRIPTOR.fields_by_name["indicators"])
MAX_BAR_UNITS = 2_000_000
"""The largest cost of a session's indicators at each bar, some 20 ms of one CPU core: a bar is not divided."""
FORECAST_SECONDS = 10.0
_PLAN_BYTES = 128 << 20
_SHORTEST = methods.field_rules(inference_pb2.Series.DESCRIPTOR.fields_by_name["values"]).repeated.min_items

CLOSED = "CLOSED"
"""The reason of a session's end if its caller, or the caller's gateway, closes the session."""


class SessionService:
    """All sessions of this process. Every method is called on the event loop's thread.

    `engine` takes bars, `loading` the histories of openings.
    `most`: sessions. `most_bytes`: bytes of bars of all sessions. `share`: the share of `most_bytes` that one client's
    sessions may hold. `stuck_seconds`: a batch that runs longer ends every session.
    """

    def __init__(
        self,
        engine: Engine,
        loading: Engine,
        forecasts: Tracks,
        catalog: Catalog,
        *,
        most: int,
        most_bytes: int,
        share: float,
        observer: SessionMetrics,
        stuck_seconds: float = math.inf,
    ) -> None:
        self._forecasts = forecasts
        self._catalog = catalog
        self._most = most
        self._most_bytes = most_bytes
        self._most_client_bytes = int(most_bytes * share)
        # The copies of bars that forecasts wait with: of one client as many bytes as of its sessions' bars.
        self._inputs = AnswerMemory(most_bytes, share=share, what="inputs of sessions' forecasts")
        self._observer = observer
        self._plans = Plans(_PLAN_BYTES)
        # An opening takes the first lane until its history is loaded, and the second one for its indicators.
        self.loading = Lane(loading, self._lose_all, stuck_seconds)
        self.lane = Lane(engine, self._lose_all, stuck_seconds)
        self._sessions: set[Session] = set()
        self._client_bytes: defaultdict[str, int] = defaultdict(int)
        self.nbytes = 0

    @property
    def stuck(self) -> bool:
        return self.loading.stuck or self.lane.stuck

    @property
    def count(self) -> int:
        return len(self._sessions)

    def open(self, envelope: exchange_pb2.Envelope, send: Send) -> Session:
        """Open a session for the envelope. The first reply says that the session is open, or why it is refused."""
        session = Session(envelope, send)
        self._sessions.add(session)
        self._observer.opened()
        # A copy: the message in the envelope would keep the whole frame in memory.
        request = inference_pb2.WatchOpen()
        request.CopyFrom(envelope.watch_open)
        session.opening = asyncio.create_task(self._open(session, request))
        return session

    def bar(self, session: Session, bar: inference_pb2.WatchBar) -> None:
        """Queue a bar of a session that is open or being opened."""
        # A copy, as in open().
        own = inference_pb2.WatchBar()
        own.CopyFrom(bar)
        if session.phase is Phase.OPENING:
            session.early_bars.append(own)
        elif not session.closed:
            self._update(session, own)

    def close(self, session: Session, reason: str = CLOSED) -> None:
        """Drop a session with the waiting work and the memory."""
        session.phase = Phase.CLOSED
        self.loading.remove(session)
        self.lane.remove(session)
        if session in self._sessions:
            self._sessions.remove(session)
            self._observer.ended(reason)
            self.nbytes -= session.size_bytes
            self._client_bytes[session.client] -= session.size_bytes
            if not self._client_bytes[session.client]:
                del self._client_bytes[session.client]
        for task in (session.opening, *session.forecasts):
            if task is not None:
                task.cancel()

    def drain(self) -> None:
        """End every session, for the gateways to open them on another replica."""
        self._fail_all(DrainingError("the replica is draining", retry_after=0.1))

    def _fail_all(self, error: ServiceError) -> None:
        for session in tuple(self._sessions):
            self._fail(session, error)

    def _fail(self, session: Session, error: ServiceError) -> None:
        session.end(error)
        self.close(session, error.reason)

    async def _open(self, session: Session, request: inference_pb2.WatchOpen) -> None:
        error: ServiceError
        try:
            opening = await self._admit(session, request)
        except ServiceError as refusal:
            error = refusal
        except Exception:  # a bug: the log gets the trace, the caller INTERNAL without details
            log.exception("session failed to open", extra=fields(request_id=session.request_id))
            error = InternalError()
        else:
            session.opening = None
            self.loading.add(session, partial(self._load, session, opening), partial(self._loaded, session, opening))
            return
        session.opening = None
        self._fail(session, error)

    async def _admit(self, session: Session, request: inference_pb2.WatchOpen) -> Opening:
        """Check the request and reserve its memory. Raises ServiceError."""
        if self.stuck:
            raise OverloadedError("the sessions' thread is stuck", retry_after=1.0)
        program = compile_specs(spec.SerializeToString() for spec in request.indicators)
        _check_lookback(program)
        missing = [name for name in indicators.COLUMNS if name in program.needs and not getattr(request.history, name)]
        if missing:
            raise InvalidRequestError(
                [Violation(f"history.{name}", "is empty, and an indicator needs it", "missing") for name in missing]
            )
        every = 0
        if request.HasField("forecast"):
            every = request.forecast.every or 1
            session.levels = tuple(sorted(request.forecast.quantiles)) or DEFAULT_LEVELS
            session.model_name = request.forecast.model
            session.model = await self._catalog.get("forecast", session.model_name)
            require_taken(session.model, "period", session.period, "forecast.period")
            if request.forecast.by_time:
                require_taken(session.model, "times", True, "forecast.by_time")
                wrong = not_nanoseconds(request.times[-1]) if request.times else "are needed by forecast.by_time"
                if wrong:
                    raise InvalidRequestError([Violation("times", wrong, "nanoseconds")])
        bars = max(request.bars or len(request.history.close), _SHORTEST if every else 1)
        opening = Opening(request, program, bars, every)
        _check_cost(opening)
        self._reserve(session, opening.size_bytes)
        return opening

    def _reserve(self, session: Session, size_bytes: int) -> None:
        if len(self._sessions) > self._most:
            raise OverloadedError(f"too many sessions (max {self._most})", retry_after=1.0)
        if self._client_bytes.get(session.client, 0) + size_bytes > self._most_client_bytes:
            raise OverloadedError(
                f"this client's share of the sessions' memory is used up (max {self._most_client_bytes} bytes, this "
                f"session {size_bytes}): hold fewer bars",
                retry_after=1.0,
            )
        if self.nbytes + size_bytes > self._most_bytes:
            raise OverloadedError(
                f"the sessions' memory is used up (max {self._most_bytes} bytes): hold fewer bars", retry_after=1.0
            )
        session.size_bytes = size_bytes
        self.nbytes += size_bytes
        self._client_bytes[session.client] += size_bytes

    def _load(self, session: Session, opening: Opening, until: float) -> SessionState | None:
        """On the thread for histories."""
        session.state = session.state or SessionState(opening, self._plans)
        return session.state if session.state.load(until) else None

    def _loaded(self, session: Session, opening: Opening, outcome: SessionState | ServiceError) -> None:
        if isinstance(outcome, ServiceError):
            self._fail(session, outcome)
            return
        self.lane.add(session, lambda _: outcome.start(), partial(self._opened, session, opening))

    def _lose_all(self) -> None:
        """End every session: a batch has run for `stuck_seconds`."""
        log.error("sessions' thread stuck", extra=fields(seconds=self.lane.stuck_seconds))
        self._fail_all(SessionLostError("the replica's sessions are stuck: open the session again", retry_after=0.1))

    def _opened(
        self, session: Session, opening: Opening, outcome: inference_pb2.WatchCheckpoint | ServiceError
    ) -> None:
        if isinstance(outcome, ServiceError):
            self._fail(session, outcome)
            return
        session.phase = Phase.OPEN
        opened = inference_pb2.WatchOpened(
            columns=_output_names(opening.program),
            request_id=session.request_id,
            quantile_levels=session.levels,
            bars=opening.held,
            memory_bytes=session.size_bytes,
            units_per_bar=units.of_newest(len(opening.program.calls), newest_units(opening.program, opening.held)),
        )
        if session.model is not None:
            opened.model, opened.model_version = session.model.name, session.model.version
        session.answer(answers_pb2.WatchAnswer(sequence=outcome.sequence, opened=opened, checkpoint=outcome))
        for bar in session.early_bars:
            self._update(session, bar)
        session.early_bars.clear()

    def _update(self, session: Session, bar: inference_pb2.WatchBar) -> None:
        state = session.state
        if state is None:
            raise AssertionError("a session is open after its history was loaded")
        self.lane.add(session, lambda _: state.update(bar), partial(self._updated, session, bar))

    def _updated(self, session: Session, bar: inference_pb2.WatchBar, outcome: BarUpdate | ServiceError) -> None:
        if isinstance(outcome, InternalError):
            self._fail(session, outcome)  # the session's state is unknown
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
        if outcome.checkpoint is not None:
            answer.checkpoint.CopyFrom(outcome.checkpoint)
        if outcome.closes is None:
            session.answer(answer)
            return
        if not self._up_to_date(session):
            self._fail(session, SessionLostError("the model was replaced: open the session again", retry_after=0.0))
            return
        session.forecasts.spawn(self._forecast(session, answer, outcome.closes, outcome.times, session.reserve()))

    def _up_to_date(self, session: Session) -> bool:
        """Whether the session's model is in service; another load of the same version replaces the session's."""
        try:
            model = self._catalog.slot("forecast", session.model_name).model
        except UnknownModelError:
            return False
        if model is not None and (model.name, model.version) != (session.model.name, session.model.version):
            return False
        session.model = model or session.model
        return True

    def _check_interval(self, session: Session, bar: inference_pb2.WatchBar) -> None:
        hit = session.interval.meet(bar.sequence, bar.bar.close)
        if hit is not None:
            self._observer.checked(*session.interval.model, session.client, hit)

    async def _forecast(
        self,
        session: Session,
        answer: answers_pb2.WatchAnswer,
        closes: Any,
        times: Any,
        place: list[exchange_pb2.Reply],
    ) -> None:
        """Complete an answer with the forecast. Forecasts due at the same time share a batch."""
        identity = session.model.name, session.model.version
        held = 0
        try:
            size = closes.nbytes + (0 if times is None else times.nbytes)
            held = self._inputs.hold(session.client, size)
            forecast = await self._run_forecast(session, closes, times)
            answers.write_forecast(answer.update.forecast, forecast)
            for warning in forecast.warnings:
                self._observer.warned(warning.code)
            session.interval.expect(answer.sequence + 1, session.levels, forecast.quantiles[0], identity)
        except ServiceError as error:
            answer.update.forecast_error.CopyFrom(error.status(session.request_id))
        except Exception:  # a bug: the log gets the trace, the caller INTERNAL without details
            log.exception("forecast failed", extra=fields(request_id=session.request_id))
            status: status_pb2.Status = InternalError().status(session.request_id)
            answer.update.forecast_error.CopyFrom(status)
        finally:
            self._inputs.release(session.client, held)
        session.answer(answer, place)

    async def _run_forecast(self, session: Session, closes: Any, times: Any) -> Any:
        if len(closes) < _SHORTEST:
            violation = Violation("history", f"too short to forecast (min {_SHORTEST}, got {len(closes)})", "min_items")
            raise InvalidRequestError([violation])
        series = Series(closes, session.horizon, session.levels, session.symbol, session.period, times=times)
        job = Job(session.model, [series], client=session.client, deadline=deadline.after(FORECAST_SECONDS))
        self._forecasts.submit(job)
        (outcome,) = await self._forecasts.outcomes(job)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome


def _output_names(program: indicators.Program) -> list[str]:
    """A name per output: "RSI", or "MACD.macdsignal" for a function with several outputs."""
    return [
        call.function.name if len(call.function.outputs) == 1 else f"{call.function.name}.{output.name}"
        for call in program.calls
        for output in call.function.outputs
    ]


def _check_cost(opening: Opening) -> None:
    """Raises InvalidRequestError if the indicators take too long at each bar."""
    price = newest_units(opening.program, opening.held)
    if price > MAX_BAR_UNITS:
        what = (
            f"take {price / MAX_BAR_UNITS:.1f} times as long at each bar as a session may: hold fewer bars than "
            f"{opening.held}, or ask for fewer indicators with long periods"
        )
        raise InvalidRequestError([Violation("indicators", what, "cost")])


def _check_lookback(program: indicators.Program) -> None:
    """A session holds the bars of its longest lookback. Raises InvalidRequestError."""
    violations = [
        Violation(
            f"indicators[{place}].params",
            f"{call.function.name} needs {call.lookback} bars before the newest with these parameters "
            f"(max {MAX_LOOKBACK})",
            "max_lookback",
        )
        for place, call in enumerate(program.calls)
        if call.lookback > MAX_LOOKBACK
    ]
    if violations:
        raise InvalidRequestError(violations)
