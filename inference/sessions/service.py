"""The live sessions of this replica: opening, bars in batches, forecasts that are due.

Owns how many sessions there are, how much memory they may hold, the schedule of their work on the sessions' thread, and
the jobs of their forecasts. state.py owns bars and indicators; transport/exchange.py owns the streams.

Openings and bars are scheduled like jobs: turns.py orders them fairly between clients, and a batch on the thread ends
after some milliseconds. A long history is loaded in slices of that time. So no session delays another by more than a
batch, and closing a session removes its waiting work.
"""

import asyncio
import functools
import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeAlias

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
from inference.sessions.session import Phase, Send, Session
from inference.sessions.state import BarUpdate, Opening, SessionState
from inference.sessions.turns import Turns
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
from runtime.foreign import contained
from runtime.logs import fields

log = logging.getLogger(__name__)

MAX_LOOKBACK = methods.max_lookback(inference_pb2.WatchOpen.DESCRIPTOR.fields_by_name["indicators"])
BATCH_ITEMS = 256
BATCH_SECONDS = 0.01
"""Bounds of a batch on the sessions' thread."""
MAX_BAR_UNITS = 2_000_000
"""The largest cost of a session's indicators at each bar, some 20 ms of one CPU core: a bar is not divided."""
FORECAST_SECONDS = 10.0
_PLAN_BYTES = 128 << 20
_SHORTEST = methods.field_rules(inference_pb2.Series.DESCRIPTOR.fields_by_name["values"]).repeated.min_items

CLOSED = "CLOSED"
"""The reason of a session's end if its caller, or the caller's gateway, closes the session."""

Work: TypeAlias = Opening | inference_pb2.WatchBar
Outcome: TypeAlias = inference_pb2.WatchCheckpoint | BarUpdate | ServiceError | None
"""An opened session's checkpoint, a bar's update, an error; None for an opening with history still to load."""


class SessionService:
    """All sessions of this process. Every method is called on the event loop's thread.

    `most`: sessions. `most_bytes`: bytes of bars of all sessions. `share`: the share of `most_bytes` that one client's
    sessions may hold. `stuck_seconds`: a batch that runs longer ends every session.
    """

    def __init__(
        self,
        engine: Engine,
        forecasts: Tracks,
        catalog: Catalog,
        *,
        most: int,
        most_bytes: int,
        share: float,
        observer: SessionMetrics,
        stuck_seconds: float = math.inf,
    ) -> None:
        self._engine = engine
        self._forecasts = forecasts
        self._catalog = catalog
        self._most = most
        self._most_bytes = most_bytes
        self._most_client_bytes = int(most_bytes * share)
        # The copies of bars that forecasts wait with: of one client as many bytes as of its sessions' bars.
        self._inputs = AnswerMemory(most_bytes, share=share, what="inputs of sessions' forecasts")
        self._observer = observer
        self._stuck_seconds = stuck_seconds
        self._plans = Plans(_PLAN_BYTES)
        self._turns: Turns[Session, Work] = Turns()
        self._running = False
        self._dispatch_due = False
        self._sessions: set[Session] = set()
        self._client_bytes: defaultdict[str, int] = defaultdict(int)
        self.nbytes = 0
        self.stuck = False

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
        if session.phase is Phase.CHECKED:
            session.early_bars.append(own)
        elif not session.closed:
            self._submit(session, own)

    def close(self, session: Session, reason: str = CLOSED) -> None:
        """Drop a session with the waiting work and the memory."""
        session.phase = Phase.CLOSED
        self._turns.remove(session.client, session)
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
            session.phase = Phase.ADMITTED
            self._submit(session, opening)
            bars, session.early_bars = session.early_bars, []
            for bar in bars:
                self._submit(session, bar)
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

    def _submit(self, session: Session, work: Work) -> None:
        self._turns.add(session.client, session, work)
        if not self._running and not self._dispatch_due:
            self._dispatch_due = True
            asyncio.get_running_loop().call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_due = False
        if self._running or not self._turns:
            return
        batch = list(self._turns.take(BATCH_ITEMS, BATCH_SECONDS))
        watchdog = None
        if self._stuck_seconds < math.inf:
            watchdog = asyncio.get_running_loop().call_later(self._stuck_seconds, self._declare_stuck)
        self._running = True
        self._engine.post(
            functools.partial(_run, [(session, work) for _, session, work in batch], self._plans),
            functools.partial(self._deliver, batch, watchdog),
        )

    def _deliver(
        self,
        batch: Sequence[tuple[str, Session, Work]],
        watchdog: asyncio.TimerHandle | None,
        outcomes: Sequence[tuple[Outcome, float]],
    ) -> None:
        self._running = False
        if watchdog is not None:
            watchdog.cancel()
        if self.stuck:
            self.stuck = False
        # In front of the work that arrived meanwhile, in order.
        for client, session, work in reversed(batch[len(outcomes) :]):
            if not session.closed:
                self._turns.put_back(client, session, work)
        for (client, session, work), (outcome, seconds) in zip(batch, outcomes, strict=False):
            self._turns.measured(client, session, seconds)
            if session.closed:
                continue
            if outcome is None:
                self._turns.add(client, session, work, front=True)
            elif isinstance(work, Opening):
                self._opened(session, work, outcome)
            else:
                self._updated(session, work, outcome)
        self._dispatch()

    def _declare_stuck(self) -> None:
        """End every session: the batch on the sessions' thread has run for `stuck_seconds`."""
        self.stuck = True
        log.error("sessions' thread stuck", extra=fields(seconds=self._stuck_seconds))
        self._fail_all(SessionLostError("the replica's sessions are stuck: open the session again", retry_after=0.1))

    def _opened(self, session: Session, opening: Opening, outcome: Outcome) -> None:
        if not isinstance(outcome, inference_pb2.WatchCheckpoint):
            self._fail(session, outcome if isinstance(outcome, ServiceError) else InternalError())
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

    def _updated(self, session: Session, bar: inference_pb2.WatchBar, outcome: Outcome) -> None:
        if isinstance(outcome, InternalError):
            self._fail(session, outcome)  # the session's state is unknown
            return
        session.taken += 1
        answer = answers_pb2.WatchAnswer(sequence=bar.sequence, taken=session.taken)
        if not isinstance(outcome, BarUpdate):
            self._observer.bar("refused")
            error = outcome if isinstance(outcome, ServiceError) else InternalError()
            answer.error.CopyFrom(error.status(session.request_id))
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
            self._observer.checked(*session.interval.model, hit)

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


def _run(batch: Sequence[tuple[Session, Work]], plans: Plans) -> list[tuple[Outcome, float]]:
    """Outcomes with seconds, on the sessions' thread. Work not begun within BATCH_SECONDS has no outcome."""
    outcomes: list[tuple[Outcome, float]] = []
    began = at = deadline.now()
    until = began + BATCH_SECONDS
    unfinished: set[Session] = set()
    for session, work in batch:
        # A bar must not overtake its session's opening.
        if at >= until or session in unfinished:
            break
        outcome = None if session.closed else _outcome(session, work, plans, until)
        if outcome is None:
            unfinished.add(session)
        ended = deadline.now()
        outcomes.append((outcome, ended - at))
        at = ended
    return outcomes


def _outcome(session: Session, work: Work, plans: Plans, until: float) -> Outcome:
    try:
        with contained:
            if not isinstance(work, Opening):
                if session.state is None:
                    return SessionLostError("the session did not open", retry_after=0.0)
                return session.state.update(work)
            if session.state is None:
                session.state = SessionState(work, plans)
            return session.state.load(until)
    except ServiceError as error:
        return error
    except Exception:  # a bug ends this session and no other
        log.exception("session failed", extra=fields(request_id=session.request_id))
        return InternalError()


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
