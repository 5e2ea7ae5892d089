"""The live sessions of this replica: opening, bars in batches, answers in order.

Owns how many there are and what they may weigh, the thread that computes them, and their forecasts' way through the
forecast engine's batches. What a bar means to a session is session.py's; streams are exchange.py's.

Bars that arrive while a batch runs, of however many sessions, are the next batch: they share one hand-over between
threads.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from google.rpc import status_pb2

from inference.batching.batcher import Batcher
from inference.batching.job import Job
from inference.calls import answers
from inference.calls.servicer import DEFAULT_LEVELS, compile_specs
from inference.device.engine import BatchRan, Engine
from inference.loading.catalogue import Catalogue
from inference.sessions.interval import Interval
from inference.sessions.session import Ask, Session, Tick
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

Send = Callable[[exchange_pb2.Reply], None]
CLOSED = "CLOSED"
"""How a session ends that its caller, or the caller's gateway, closes."""


class Observer(Protocol):
    """Told what happens, for metrics. Every session that is opened ends once; reasons are those of wire.errors."""

    def opened(self) -> None: ...
    def ended(self, reason: str) -> None: ...
    def bar(self, outcome: str) -> None:
        """`taken` or `refused`."""
        ...

    def checked(self, model: str, hit: bool) -> None:
        """A bar has shown whether a forecast's interval held."""
        ...


class Live:
    """A session on its stream. Answers leave in the order of the bars, however long a forecast takes."""

    def __init__(self, envelope: exchange_pb2.Envelope, send: Send) -> None:
        self.id = envelope.id
        self.request_id = envelope.request_id
        self.client = envelope.client
        # Until the session is open; it would keep the whole frame that it came in.
        self.request: inference_pb2.WatchOpen | None = envelope.watch_open
        self.horizon = envelope.watch_open.forecast.horizon
        self.session: Session | None = None
        self.model: Any = None
        self.levels: tuple[float, ...] = ()
        self.interval = Interval()
        self.taken = 0
        self.nbytes = 0
        self.closed = False
        # Bars that came before the session was open.
        self.early: list[inference_pb2.WatchBar] | None = []
        self.opening: asyncio.Task[None] | None = None
        self.forecasts: set[asyncio.Task[None]] = set()
        self._send = send
        self._slots: deque[list[exchange_pb2.Reply]] = deque()

    def reserve(self) -> list[exchange_pb2.Reply]:
        """The place of the next answer; put the reply in and call flush()."""
        slot: list[exchange_pb2.Reply] = []
        self._slots.append(slot)
        return slot

    def answer(self, response: answers_pb2.WatchAnswer, slot: list[exchange_pb2.Reply] | None = None) -> None:
        """Send a response in its place, by default the next."""
        slot = self.reserve() if slot is None else slot
        watch = exchange_pb2.WatchReply(response=response.SerializeToString(), replaceable=response.HasField("update"))
        slot.append(exchange_pb2.Reply(id=self.id, watch=watch))
        self.flush()

    def end(self, error: ServiceError) -> None:
        """Tell the gateway that the session is over."""
        if not self.closed:
            self.closed = True
            self._send(exchange_pb2.Reply(id=self.id, error=error.status(self.request_id)))

    def flush(self) -> None:
        while self._slots and self._slots[0]:
            (reply,) = self._slots.popleft()
            if not self.closed:
                self._send(reply)


class Sessions:
    """All sessions of this process. Every method is called on the event loop's thread."""

    def __init__(
        self,
        engine: Engine,
        forecasts: Batcher,
        catalogue: Catalogue,
        *,
        most: int,
        most_bytes: int,
        observer: Observer,
    ) -> None:
        self._engine = engine
        self._forecasts = forecasts
        self._catalogue = catalogue
        self._most = most
        self._most_bytes = most_bytes
        self._observer = observer
        self._ticks = _Ticks()
        self._waiting: deque[tuple[Live, Ask | inference_pb2.WatchBar]] = deque()
        self._running = False
        self._asked = False
        self._live: set[Live] = set()
        self.nbytes = 0

    @property
    def count(self) -> int:
        return len(self._live)

    def open(self, envelope: exchange_pb2.Envelope, send: Send) -> Live:
        """A session for the envelope; its first reply tells that it is open, or why it cannot be."""
        live = Live(envelope, send)
        self._live.add(live)
        self._observer.opened()
        live.opening = asyncio.create_task(self._open(live))
        return live

    def bar(self, live: Live, bar: inference_pb2.WatchBar) -> None:
        """Take a bar for an open session, or one that is being opened."""
        if live.closed:
            return
        if live.early is not None:
            live.early.append(bar)
        else:
            self._submit(live, bar)

    def close(self, live: Live, reason: str = CLOSED) -> None:
        """Forget a session: nobody waits for its answers."""
        live.closed = True
        if live in self._live:
            self._live.remove(live)
            self._observer.ended(reason)
            self.nbytes -= live.nbytes
        for task in (live.opening, *live.forecasts):
            if task is not None:
                task.cancel()

    def drain(self) -> None:
        """Send every session elsewhere."""
        for live in tuple(self._live):
            self._fail(live, DrainingError("the replica is draining", retry_after=0.1))

    def _fail(self, live: Live, error: ServiceError) -> None:
        live.end(error)
        self.close(live, error.reason)

    async def _open(self, live: Live) -> None:
        request, live.request = live.request, None
        if request is None:
            raise RuntimeError("a session is opened once")
        try:
            ask = await self._ask(live, request)
        except ServiceError as error:
            live.opening = None
            self._fail(live, error)
            return
        except Exception:  # a bug of ours: the caller learns nothing of it, the log everything
            log.exception("session failed to open", extra=fields(request_id=live.request_id))
            live.opening = None
            self._fail(live, InternalError())
            return
        self._submit(live, ask)
        early, live.early = live.early or [], None
        for bar in early:
            self._submit(live, bar)

    async def _ask(self, live: Live, request: inference_pb2.WatchOpen) -> Ask:
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
            live.levels = tuple(sorted(request.forecast.quantiles)) or DEFAULT_LEVELS
            live.model = await self._catalogue.get("forecast", request.forecast.model)
        wanted = max(request.bars or history.bars, _SHORTEST if every else 1)
        ask = Ask(history, request.times, program, wanted, every, request.sequence)
        if len(self._live) > self._most:
            raise OverloadedError(f"too many sessions (max {self._most})", retry_after=1.0)
        # As Bars allots them.
        live.nbytes = len(ask.columns) * (ask.held + ask.held // 4 + 64) * 8
        if self.nbytes + live.nbytes > self._most_bytes:
            live.nbytes = 0
            raise OverloadedError(
                f"the sessions' memory is used up (max {self._most_bytes} bytes): hold fewer bars", retry_after=1.0
            )
        self.nbytes += live.nbytes
        return ask

    def _submit(self, live: Live, work: Ask | inference_pb2.WatchBar) -> None:
        self._waiting.append((live, work))
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
        self._engine.run(self._ticks, batch, lambda ran: self._deliver(batch, ran))

    def _deliver(self, batch: Sequence[tuple[Live, Any]], ran: BatchRan) -> None:
        self._running = False
        for (live, work), outcome in zip(batch, ran.answers, strict=True):
            if isinstance(work, Ask):
                self._opened(live, work, outcome)
            else:
                self._answered(live, work, outcome)
        self._dispatch()

    def _opened(self, live: Live, ask: Ask, outcome: Session | ServiceError) -> None:
        if isinstance(outcome, ServiceError):
            self._fail(live, outcome)
            return
        live.session = outcome
        opened = inference_pb2.WatchOpened(
            columns=_names(ask.program),
            request_id=live.request_id,
            quantile_levels=live.levels,
            bars=outcome.held,
            memory_bytes=live.nbytes,
        )
        if live.model is not None:
            opened.model, opened.model_version = live.model.name, live.model.version
        live.answer(answers_pb2.WatchAnswer(sequence=ask.sequence, opened=opened))

    def _answered(self, live: Live, bar: inference_pb2.WatchBar, outcome: Tick | ServiceError) -> None:
        if isinstance(outcome, InternalError):
            self._fail(live, outcome)  # what the bar left behind is unknown
            return
        live.taken += 1
        answer = answers_pb2.WatchAnswer(sequence=bar.sequence, taken=live.taken)
        if isinstance(outcome, ServiceError):
            self._observer.bar("refused")
            answer.error.CopyFrom(outcome.status(live.request_id))
            live.answer(answer)
            return
        self._observer.bar("taken")
        self._check_interval(live, bar)
        answer.update.indicators = outcome.values.tobytes()
        if outcome.closes is None:
            live.answer(answer)
            return
        forecast = asyncio.create_task(self._forecast(live, answer, outcome.closes, live.reserve()))
        live.forecasts.add(forecast)
        forecast.add_done_callback(live.forecasts.discard)

    def _check_interval(self, live: Live, bar: inference_pb2.WatchBar) -> None:
        hit = live.interval.meet(bar.sequence, bar.bar.close)
        if hit is not None:
            self._observer.checked(live.model.name, hit)

    async def _forecast(self, live: Live, answer: answers_pb2.WatchAnswer, closes: Any, slot: list[Any]) -> None:
        """Finish an answer with its forecast. Sessions that are due together share the engine's batch."""
        try:
            found = await self._run_forecast(live, closes)
            answers.write_forecast(answer.update.forecast, found)
            live.interval.expect(answer.sequence + 1, live.levels, found.quantiles[0])
        except ServiceError as error:
            answer.update.forecast_error.CopyFrom(error.status(live.request_id))
        except Exception:  # a bug of ours: the caller learns nothing of it, the log everything
            log.exception("forecast failed", extra=fields(request_id=live.request_id))
            status: status_pb2.Status = InternalError().status(live.request_id)
            answer.update.forecast_error.CopyFrom(status)
        live.answer(answer, slot)

    async def _run_forecast(self, live: Live, closes: Any) -> Any:
        if len(closes) < _SHORTEST:
            violation = Violation("history", f"too short to forecast (min {_SHORTEST}, got {len(closes)})", "min_items")
            raise InvalidRequestError([violation])
        reply: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        series = Series(closes, live.horizon, live.levels)
        until = deadline.after(FORECAST_SECONDS)
        self._forecasts.submit(Job(live.model, [series], reply, live.client, "interactive", until))
        (outcome,) = await reply
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome


class _Ticks:
    """What the sessions' thread runs: openings and bars, each for itself."""

    name = "sessions"

    def __init__(self) -> None:
        self._plans = Plans(_PLAN_BYTES)

    def run(self, items: Sequence[tuple[Live, Any]]) -> list[Session | Tick | ServiceError]:
        """One outcome each. Never raises, since a batch that is run again would take its bars twice."""
        opened: dict[Live, Session] = {}
        outcomes: list[Session | Tick | ServiceError] = []
        for live, work in items:
            outcome = self._one(live, opened.get(live) or live.session, work)
            if isinstance(outcome, Session):
                opened[live] = outcome
            outcomes.append(outcome)
        return outcomes

    def _one(self, live: Live, session: Session | None, work: Any) -> Session | Tick | ServiceError:
        try:
            if isinstance(work, Ask):
                return Session(work, self._plans)
            if session is None:
                return SessionLostError("the session did not open", retry_after=0.0)
            return session.take(work)
        except ServiceError as error:
            return error
        except Exception:  # a bug of ours: it ends this session, and no other
            log.exception("session failed", extra=fields(request_id=live.request_id))
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
