"""The replica's sessions, with forecasts paced by the test."""

import asyncio
import math
import sys
import weakref
from threading import Event
from typing import Any

import numpy as np
import pytest

from inference.batching.batcher import Batcher
from inference.batching.job import BatchBounds
from inference.batching.tracks import Tracks
from inference.device.engine import Engine
from inference.loading.catalog import Catalog, Slot
from inference.sessions.service import SessionService
from inference.sessions.state import SessionState
from market_inference.contract.errors import (
    DrainingError,
    InternalError,
    OverloadedError,
    SessionLostError,
    reason_of,
)
from market_inference.contract.generated import exchange_pb2
from market_inference.contract.generated import inference_pb2 as pb
from models import indicators
from models.forecast import Forecast
from tests.eventually import eventually_async

CLOSES = np.arange(1.0, 41.0)


class Forecaster:
    """A model that answers once the gate is open, and records the sizes of batches."""

    name, version = "slow", "1"
    takes = ("times",)

    def __init__(self) -> None:
        self.gate = Event()
        self.gate.set()
        self.batches: list[int] = []
        self.items: list[Any] = []

    def bucket(self, item: Any) -> str:
        return "all"

    def units(self, item: Any) -> int:
        return 1

    def run(self, items: Any) -> list[Forecast]:
        """A forecast of the last value, with quantiles at level - 0.5 from the value: 0.1 is 0.4 below."""
        assert self.gate.wait(60)
        self.batches.append(len(items))
        self.items += items
        return [
            Forecast(
                item.values[-1:],
                item.values[-1] + np.asarray([item.levels]) - 0.5,
                0.0,
                False,
                len(item.values),
                0.8,
                1,
            )
            for item in items
        ]


class Silent:
    """Ignores the reports of the batcher."""

    def batch(self, plan: Any, ran: Any, units: int) -> None: ...
    def refused(self, reason: str) -> None: ...
    def dropped(self, count: int) -> None: ...


class Recorder:
    """Records the reports of the sessions."""

    def __init__(self) -> None:
        self.openings = 0
        self.endings: list[str] = []
        self.bars: list[str] = []
        self.checks: list[bool] = []

    def opened(self) -> None:
        self.openings += 1

    def ended(self, reason: str) -> None:
        self.endings.append(reason)

    def bar(self, outcome: str) -> None:
        self.bars.append(outcome)

    def checked(self, model: str, version: str, client: str, hit: bool) -> None:
        assert model == "slow"
        self.checks.append(hit)


class Replies:
    """The messages to the gateway for one session."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[exchange_pb2.Reply] = asyncio.Queue()

    async def next(self) -> pb.WatchResponse:
        reply = await asyncio.wait_for(self.queue.get(), 60)
        assert reply.HasField("watch"), reply
        return pb.WatchResponse.FromString(reply.watch.response)

    async def end(self) -> str:
        reply = await asyncio.wait_for(self.queue.get(), 60)
        return reason_of(reply.error)


class Setup:
    """Sessions on an engine of their own."""

    def __init__(
        self, most: int = 100, most_bytes: int = 1 << 20, share: float = 1.0, stuck_seconds: float = math.inf
    ) -> None:
        self.model = Forecaster()
        self.engines = [Engine("sessions"), Engine("histories"), Engine("forecast")]
        batcher = Batcher(self.engines[2], Silent(), budget=BatchBounds(100, 100), max_queued_seconds=5.0)
        slot = Slot("forecast", "slow", lambda: self.model, is_default=True, model=self.model)
        self.recorder = Recorder()
        self.sessions = SessionService(
            self.engines[0],
            self.engines[1],
            Tracks(batcher),
            Catalog([slot]),
            most=most,
            most_bytes=most_bytes,
            share=share,
            stuck_seconds=stuck_seconds,
            observer=self.recorder,
        )
        self._id = 0

    def open(self, client: str = "", **fields: Any) -> tuple[Any, Replies]:
        self._id += 1
        fields = {"history": pb.Panel(close=CLOSES), "indicators": [pb.IndicatorSpec(name="SMA")], **fields}
        replies = Replies()
        envelope = exchange_pb2.Envelope(id=self._id, client=client, watch_open=pb.WatchOpen(**fields))
        return self.sessions.open(envelope, replies.queue.put_nowait), replies

    def bar(self, session: Any, sequence: int, close: float | None = None) -> None:
        bar = pb.Bar(time=sequence, close=float(sequence) if close is None else close)
        self.sessions.bar(session, pb.WatchBar(sequence=sequence, bar=bar))

    def close(self) -> None:
        self.model.gate.set()
        for engine in self.engines:
            engine.close()


@pytest.fixture
async def setup():
    setup = Setup()
    yield setup
    setup.close()


async def test_bars_that_come_before_the_session_is_open_are_answered_after_it(setup, monkeypatch):
    sound, go_on = SessionState.load, Event()

    def load(self, until):
        assert go_on.wait(60)
        return sound(self, until)

    monkeypatch.setattr(SessionState, "load", load)
    session, replies = setup.open(indicators=[pb.IndicatorSpec(name="CUMSUM")], sequence=1)
    setup.bar(session, 1, 7.0)  # corrects the history's newest bar
    setup.bar(session, 2, 1.0)
    await eventually_async(lambda: session.state is not None)
    setup.bar(session, 2, 2.0)
    setup.bar(session, 3, 4.0)
    go_on.set()
    opened, *updates = [await replies.next() for _ in range(5)]
    assert (opened.sequence, opened.checkpoint.sequence, opened.checkpoint.bars) == (1, 1, len(CLOSES) - 1)
    assert [(one.sequence, one.taken) for one in updates] == [(1, 1), (2, 2), (2, 3), (3, 4)]
    sums = CLOSES[:-1].sum() + np.array([7.0, 8.0, 9.0, 13.0])
    np.testing.assert_allclose([one.update.indicators[0] for one in updates], sums, rtol=1e-9)


async def test_answers_keep_the_order_of_the_bars_while_a_forecast_takes_its_time(setup):
    setup.model.gate.clear()
    session, replies = setup.open(forecast=pb.WatchForecast(horizon=1, every=2))
    other, undisturbed = setup.open()
    for sequence in range(1, 5):
        setup.bar(session, sequence)
        setup.bar(other, sequence)
    assert (await replies.next()).HasField("opened")
    assert (await replies.next()).sequence == 1
    for sequence in range(5):
        assert (await undisturbed.next()).sequence == sequence
    assert replies.queue.empty()
    setup.model.gate.set()
    found = [await replies.next() for _ in range(3)]
    assert [one.sequence for one in found] == [2, 3, 4]
    assert [one.update.HasField("forecast") for one in found] == [True, False, True]
    assert list(found[0].update.forecast.point) == [2.0]


async def test_forecasts_that_are_due_together_share_a_batch(setup):
    setup.model.gate.clear()
    opened = [setup.open(forecast=pb.WatchForecast(horizon=1)) for _ in range(20)]
    for _, replies in opened:
        assert (await replies.next()).HasField("opened")
    for session, _ in opened:
        setup.bar(session, 1)
    setup.model.gate.set()
    for _, replies in opened:
        assert (await replies.next()).update.HasField("forecast")
    assert sum(setup.model.batches) == 20
    assert len(setup.model.batches) <= 3


async def test_too_few_bars_for_a_forecast_leave_the_indicators_their_values(setup):
    replies = Replies()
    asked = pb.WatchOpen(
        history=pb.Panel(close=CLOSES[:5]),
        indicators=[pb.IndicatorSpec(name="SMA", params={"timeperiod": 2})],
        forecast=pb.WatchForecast(horizon=1),
    )
    session = setup.sessions.open(exchange_pb2.Envelope(id=99, watch_open=asked), replies.queue.put_nowait)
    setup.bar(session, 1)
    await replies.next()
    update = (await replies.next()).update
    assert list(update.indicators) == [3.0]
    assert "min 30, got 6" in update.forecast_error.message


async def test_sessions_beyond_the_bounds_are_refused_and_closing_makes_room():
    for setup in (Setup(most=2), Setup(most_bytes=2 * (50 + 12 + 64) * 8)):
        opened = [setup.open(bars=50) for _ in range(2)]
        for _, replies in opened:
            assert (await replies.next()).opened.memory_bytes == (50 + 12 + 64) * 8
        assert setup.sessions.nbytes == 2 * (50 + 12 + 64) * 8
        _, refused = setup.open(bars=50)
        assert await refused.end() == OverloadedError.reason
        setup.sessions.close(opened[0][0])
        _, replies = setup.open(bars=50)
        assert (await replies.next()).HasField("opened")
        assert setup.sessions.count == 2
        for session in (opened[1][0], *tuple(setup.sessions._sessions)):
            setup.sessions.close(session)
        assert (setup.sessions.count, setup.sessions.nbytes) == (0, 0)
        setup.close()


@pytest.mark.parametrize(
    ("names", "bars", "expected"),
    [
        # By steps of the recurrence, over the lookback, and over all bars held.
        (["RSI", "EMA", "OBV"], 10_000, 3),
        (["SMA"] * 3, 10_000, 3),
        (["KAMA"] * 3, 200, 3 + 3 * 200 // 100),
        (["KAMA"] * 3, 10_000, 3 + 3 * 10_000 // 100),
        (["MAMA"] * 3, 10_000, 3 + 7 * 3 * 10_000 // 100),
        ([], 50, 1),
    ],
)
async def test_the_answer_to_the_opening_says_what_a_bar_costs(setup, names, bars, expected):
    history = pb.Panel(close=CLOSES, volume=CLOSES)
    _, replies = setup.open(history=history, bars=bars, indicators=[pb.IndicatorSpec(name=name) for name in names])
    assert (await replies.next()).opened.units_per_bar == expected


async def test_a_session_holds_what_it_said_it_would(setup):
    session, replies = setup.open(bars=60)
    said = (await replies.next()).opened.memory_bytes
    for sequence in range(1, 500):
        setup.bar(session, sequence)
    for _ in range(1, 500):
        await replies.next()
    assert session.state._live.bars._values.nbytes == said
    assert session.state.held == 60


async def checkpoints(setup, replies, session, last: int) -> dict[int, pb.WatchCheckpoint]:
    """Those of the opening and of the bars up to `last`; no update with one may be dropped for a newer update."""
    for sequence in range(1, last + 1):
        setup.bar(session, sequence)
    found = {}
    for _ in range(last + 1):
        reply = await asyncio.wait_for(replies.queue.get(), 60)
        response = pb.WatchResponse.FromString(reply.watch.response)
        if response.HasField("checkpoint"):
            found[response.sequence] = response.checkpoint
        assert reply.watch.replaceable == (response.HasField("update") and not response.HasField("checkpoint"))
    return found


async def test_a_session_is_continued_from_any_of_its_checkpoints(setup):
    asked = {"indicators": [pb.IndicatorSpec(name=name) for name in ("CUMSUM", "EMA", "MAXINDEX", "SMA")], "bars": 40}
    session, replies = setup.open(**asked)
    found = await checkpoints(setup, replies, session, 150)
    assert {at: (one.sequence, one.bars) for at, one in found.items()} == {0: (0, 39), 64: (64, 103), 128: (128, 167)}
    setup.bar(session, 151)
    want = (await replies.next()).update
    closes = np.r_[CLOSES, np.arange(1.0, 151.0)]
    for at, size in ((64, 88), (64, 190), (128, 40), (128, 190)):
        other, further = setup.open(
            **asked | {"history": pb.Panel(close=closes[-size:])}, sequence=150, checkpoint=found[at]
        )
        opened = await further.next()
        assert (opened.checkpoint.sequence, opened.checkpoint.bars) == (150, 189)
        setup.bar(other, 151)
        assert (await further.next()).update == want


async def test_a_checkpoint_that_does_not_fit_is_refused(setup):
    """Without the refusals a session would go on with other values."""
    asked = {"indicators": [pb.IndicatorSpec(name="EMA")], "bars": 40}
    session, replies = setup.open(**asked)
    newest = (await checkpoints(setup, replies, session, 70))[64]
    closes = np.r_[CLOSES, np.arange(1.0, 71.0)]

    async def refusal(size: int, sequence: int = 70, indicator: str = "EMA", **changes: Any) -> str:
        checkpoint = pb.WatchCheckpoint(**{"sequence": 64, "bars": newest.bars, "state": newest.state} | changes)
        history, indicators = pb.Panel(close=closes[-size:]), [pb.IndicatorSpec(name=indicator)]
        _, refused = setup.open(
            history=history, indicators=indicators, bars=40, sequence=sequence, checkpoint=checkpoint
        )
        reply = await asyncio.wait_for(refused.queue.get(), 60)
        return reply.error.message

    assert "history: must have the newest 40 bars of the session (got 39)" in await refusal(39)
    assert "checkpoint.sequence: must be that of a bar in the history" in await refusal(40, sequence=63)
    assert "checkpoint.sequence: must be that of a bar in the history" in await refusal(40, sequence=104)
    assert "history: must have the newest 41 bars" in await refusal(40, sequence=103)
    assert "checkpoint.state: is not that before the first bar" in await refusal(40, sequence=103, bars=0)
    assert "checkpoint.bars: must count" in await refusal(40, bars=32)
    assert "checkpoint.state: is of other indicators" in await refusal(40, indicator="RSI")
    assert "checkpoint.state: is cut" in await refusal(40, state=newest.state[:-1])


async def test_only_updates_without_an_error_may_be_dropped_for_newer_ones(setup):
    setup.model.gate.set()
    session, replies = setup.open(
        history=pb.Panel(close=CLOSES[:27]), bars=40, forecast=pb.WatchForecast(horizon=1, every=2)
    )
    for sequence in range(1, 5):
        setup.bar(session, sequence)
    found = [(await asyncio.wait_for(replies.queue.get(), 60)).watch for _ in range(5)]
    assert [(one.replaceable, one.forecast) for one in found] == [
        (False, False), (True, False), (False, False), (True, False), (True, True)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
@pytest.mark.parametrize("step", ["load", "start", "update"])
async def test_a_bug_in_one_session_ends_it_alone(setup, monkeypatch, step, kind):
    sound = getattr(SessionState, step)

    def broken(self, *args):
        if self.sequence == 666:
            raise kind("a bug")
        return sound(self, *args)

    monkeypatch.setattr(SessionState, step, broken)
    (bad, lost), (good, kept) = setup.open(sequence=666), setup.open()
    if step == "update":
        await lost.next()
    setup.bar(good, 1)
    setup.bar(bad, 667)
    setup.bar(good, 2)
    assert await lost.end() == InternalError.reason
    assert [(await kept.next()).sequence for _ in range(3)] == [0, 1, 2]
    assert setup.sessions.count == 1


async def test_draining_sends_every_session_elsewhere(setup):
    opened = [setup.open() for _ in range(3)]
    for _, replies in opened:
        await replies.next()
    setup.sessions.drain()
    assert {await replies.end() for _, replies in opened} == {DrainingError.reason}
    assert setup.sessions.count == 0


async def test_every_session_that_was_opened_ends_once_with_its_reason():
    setup = Setup(most=2)
    opened = [setup.open() for _ in range(2)]
    for _, replies in opened:
        await replies.next()
    _, refused = setup.open()
    assert await refused.end() == OverloadedError.reason
    for session, replies in opened:
        setup.bar(session, 1)
        setup.bar(session, 1)
        setup.bar(session, 7)
        assert [(await replies.next()).WhichOneof("result") for _ in range(3)] == ["update", "update", "error"]
    setup.sessions.close(opened[0][0])
    setup.sessions.close(opened[0][0])
    setup.sessions.drain()
    assert (setup.recorder.openings, setup.recorder.endings) == (
        3,
        [OverloadedError.reason, "CLOSED", DrainingError.reason],
    )
    assert sorted(setup.recorder.bars) == ["refused"] * 2 + ["taken"] * 4
    setup.close()


async def test_a_bar_shows_once_whether_the_interval_that_was_forecast_for_it_held(setup):
    session, replies = setup.open(forecast=pb.WatchForecast(horizon=1))
    await replies.next()
    # The interval reaches 0.4 to either side of the bar before. Correcting the second bar is no second check, and the
    # third bar meets the forecast that the correction brought.
    for sequence, close in ((1, 10.0), (2, 10.4), (2, 99.0), (3, 99.5), (4, 99.1)):
        setup.bar(session, sequence, close)
        assert (await replies.next()).update.HasField("forecast")
    assert setup.recorder.checks == [True, False, True]


async def test_a_session_whose_model_was_replaced_ends_at_its_next_forecast_for_the_client_to_open_it_again(setup):
    session, replies = setup.open(forecast=pb.WatchForecast(horizon=1))
    assert (await replies.next()).HasField("opened")
    setup.bar(session, 1)
    assert (await replies.next()).HasField("update")
    newer = Forecaster()
    newer.version = "2"
    setup.sessions._catalog.slot("forecast", "slow").model = newer
    setup.bar(session, 2)
    assert await replies.end() == SessionLostError.reason
    again, fresh = setup.open(forecast=pb.WatchForecast(horizon=1), sequence=1)
    assert (await fresh.next()).opened.model_version == "2"
    setup.sessions._catalog.slot("forecast", "slow").model = None  # unloaded when idle: the session keeps its model
    setup.bar(again, 2)
    assert (await fresh.next()).HasField("update")


async def test_without_both_tails_among_the_quantiles_nothing_is_checked(setup):
    session, replies = setup.open(forecast=pb.WatchForecast(horizon=1, quantiles=[0.1, 0.5]))
    await replies.next()
    for sequence in (1, 2):
        setup.bar(session, sequence)
        assert (await replies.next()).update.HasField("forecast")
    assert setup.recorder.checks == []


def heavy(bars: int = 10_000, indicators: int = 100) -> dict[str, Any]:
    """The fields of an opening that takes the sessions' thread a second and more."""
    dice = np.random.default_rng(1)
    return {
        "history": pb.Panel(close=100 + dice.normal(0, 1, bars).cumsum()),
        "indicators": [pb.IndicatorSpec(name="T3", params={"timeperiod": 5 + i}) for i in range(indicators)],
    }


async def test_a_long_history_with_many_recursive_indicators_delays_no_other_session(setup):
    quick, replies = setup.open()
    await replies.next()
    slow = [setup.open(**heavy(), client="attacker") for _ in range(3)]
    for sequence in range(1, 21):
        setup.bar(quick, sequence)
        assert (await replies.next()).sequence == sequence
        await asyncio.sleep(0)
    assert [one.queue.qsize() and one.queue.get_nowait() for _, one in slow] == [0, 0, 0]
    for session, _ in slow:
        setup.sessions.close(session)


async def test_a_bar_does_not_wait_for_a_slice_of_a_history(setup, monkeypatch):
    session, replies = setup.open()
    await replies.next()
    sound, begun, go_on = SessionState.load, Event(), Event()

    def load(self, until):
        begun.set()
        assert go_on.wait(60)
        return sound(self, until)

    monkeypatch.setattr(SessionState, "load", load)
    _, opening = setup.open(client="other")
    await eventually_async(begun.is_set)
    setup.bar(session, 1)
    assert (await replies.next()).sequence == 1
    assert opening.queue.empty()
    go_on.set()
    assert (await opening.next()).HasField("opened")


async def test_a_history_that_is_loaded_in_slices_gives_the_values_of_the_whole(setup):
    fields = heavy(bars=2000, indicators=20)
    session, replies = setup.open(**fields)
    assert (await replies.next()).HasField("opened")
    setup.bar(session, 1, close=101.0)
    update = (await replies.next()).update
    close = np.append(np.asarray(fields["history"].close), 101.0)
    specs = [indicators.Spec("T3", {"timeperiod": 5 + i}) for i in range(20)]
    task = indicators.Task(indicators.Panel(close=close), indicators.compile(specs))
    (rows,) = indicators.load().run([task])
    np.testing.assert_allclose(update.indicators, [row[-1] for row in rows], rtol=1e-9)


async def test_a_session_that_closes_while_its_history_loads_leaves_no_work(setup):
    session, _ = setup.open(**heavy())
    await eventually_async(lambda: session.state is not None)
    setup.sessions.close(session)
    state, session = weakref.ref(session.state), None
    await eventually_async(lambda: state() is None)
    other, replies = setup.open()
    assert (await replies.next()).HasField("opened")
    assert not setup.sessions.loading._turns
    assert not setup.sessions.lane._turns
    assert setup.sessions.nbytes == other.size_bytes


async def test_a_bar_that_waits_does_not_keep_the_frame_that_it_came_in(setup):
    frame = exchange_pb2.ExchangeRequest()
    bar = frame.envelopes.add(watch_bar=pb.WatchBar(sequence=1, bar=pb.Bar(time=1, close=1.0))).watch_bar
    session, replies = setup.open()
    references = sys.getrefcount(bar)
    setup.sessions.bar(session, bar)
    assert sys.getrefcount(bar) == references
    assert (await replies.next()).HasField("opened")
    assert (await replies.next()).sequence == 1


async def test_forecasts_of_one_client_wait_with_as_many_bytes_as_its_sessions_may_hold():
    setup = Setup(most_bytes=1 << 16, share=0.25)
    setup.model.gate.clear()
    session, replies = setup.open(bars=500, forecast=pb.WatchForecast(horizon=1), client="greedy")
    assert (await replies.next()).HasField("opened")
    for sequence in range(1, 61):
        setup.bar(session, sequence)
    # The 40 closes of the history, and one more at each bar: 328, 336, ... bytes, up to 16 KiB.
    await eventually_async(lambda: setup.recorder.bars == ["taken"] * 60)
    assert setup.sessions._inputs.held_bytes <= 1 << 14
    setup.model.gate.set()
    found = [(await replies.next()).update for _ in range(60)]
    assert [one.HasField("forecast") for one in found] == [True] * 35 + [False] * 25
    assert {reason_of(one.forecast_error) for one in found[35:]} == {"OVERLOADED"}
    assert setup.sessions._inputs.held_bytes == 0
    setup.close()


async def test_one_client_cannot_take_the_memory_of_the_others():
    setup = Setup(most_bytes=1 << 20, share=0.25)
    greedy = []
    for _ in range(50):
        session, replies = setup.open(bars=5000, client="greedy")
        reply = await asyncio.wait_for(replies.queue.get(), 60)
        if reply.HasField("error"):
            assert "this client's share" in reply.error.message
            break
        greedy.append(session)
    assert 0 < len(greedy) < 50
    assert setup.sessions.nbytes <= 1 << 18
    _, replies = setup.open(bars=5000, client="modest")
    assert (await replies.next()).HasField("opened")
    setup.close()


@pytest.mark.parametrize(
    ("spec", "lookback"),
    [
        (pb.IndicatorSpec(name="T3", params={"timeperiod": 100_000}), 599_994),
        (pb.IndicatorSpec(name="SMA", params={"timeperiod": 10_001}), 10_000),
    ],
)
async def test_a_lookback_beyond_the_contracts_limit_is_refused(setup, spec, lookback):
    """B8: sessions with T3 periods up to 100,000 took the memory of all."""
    _, replies = setup.open(indicators=[pb.IndicatorSpec(name="SMA"), spec])
    reply = await asyncio.wait_for(replies.queue.get(), 60)
    assert reply.error.message.startswith("indicators[1].params: ")
    assert f"needs {lookback} bars" in reply.error.message
    assert "(max 9999)" in reply.error.message
    assert setup.sessions.nbytes == 0


async def test_a_lookback_at_the_contracts_limit_is_held():
    """An opening has 10,000 bars: another replica needs all bars of the lookback and the newest one."""
    setup = Setup(most_bytes=1 << 22)
    _, replies = setup.open(indicators=[pb.IndicatorSpec(name="SMA", params={"timeperiod": 10_000})])
    assert (await replies.next()).opened.bars == 10_000
    setup.close()


async def test_sessions_end_when_their_thread_hangs_and_open_again_after_it(monkeypatch):
    setup = Setup(stuck_seconds=60.0)
    sound, hang = SessionState.update, Event()

    def update(self, message):
        assert hang.wait(60)
        return sound(self, message)

    session, replies = setup.open()
    await replies.next()
    monkeypatch.setattr(SessionState, "update", update)
    # For the hang alone: on a busy machine, an opening takes some time, too.
    setup.sessions.lane.stuck_seconds = 0.05
    setup.bar(session, 1)
    assert await replies.end() == SessionLostError.reason
    setup.sessions.lane.stuck_seconds = 60.0
    assert setup.sessions.stuck
    _, refused = setup.open()
    assert await refused.end() == OverloadedError.reason
    hang.set()
    await eventually_async(lambda: not setup.sessions.stuck)
    _, replies = setup.open()
    assert (await replies.next()).HasField("opened")
    setup.close()


@pytest.mark.parametrize("spec", [("STOCHRSI", {"fastk_period": 4000}), ("HT_SINE", {})])
async def test_a_session_with_a_costly_bar_is_refused(setup, spec):
    name, params = spec
    _, replies = setup.open(bars=10_000, indicators=[pb.IndicatorSpec(name=name, params=params)] * 100)
    reply = await asyncio.wait_for(replies.queue.get(), 60)
    assert reason_of(reply.error) == "INVALID_REQUEST"
    assert "hold fewer bars than 10000" in str(reply.error.details)


async def test_a_long_window_costs_its_newest_value_alone_beside_an_indicator_that_looks_back_further():
    setup = Setup(most_bytes=1 << 26)
    try:
        windows = [pb.IndicatorSpec(name="AVGDEV", params={"timeperiod": 5000})] * 50
        longest = pb.IndicatorSpec(name="SUM", params={"timeperiod": 9999})
        _, replies = setup.open(history=pb.Panel(close=np.linspace(1, 2, 10_000)), indicators=[*windows, longest])
        assert (await replies.next()).HasField("opened")
    finally:
        setup.close()


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (1_710_532_500 * 10**9, "is before the newest bar's (2024-03-15T20:00:00Z, got 2024-03-15T19:55:00Z)"),
        (1_710_532_799_250_000_000, "2024-03-15T19:59:59.25Z"),
        (1_710_532_800 * 10**9, "is the newest bar's (2024-03-15T20:00:00Z)"),
    ],
)
async def test_a_bar_out_of_order_is_told_by_times(setup, time, text):
    session, replies = setup.open()
    assert (await replies.next()).HasField("opened")
    setup.sessions.bar(session, pb.WatchBar(sequence=1, bar=pb.Bar(time=1_710_532_800 * 10**9, close=1.0)))
    assert (await replies.next()).HasField("update")
    setup.sessions.bar(session, pb.WatchBar(sequence=2, bar=pb.Bar(time=time, close=1.0)))
    assert text in (await replies.next()).error.message


async def test_a_bar_without_a_time_is_refused_and_one_before_1970_is_not(setup):
    session, replies = setup.open()
    assert (await replies.next()).HasField("opened")
    setup.sessions.bar(session, pb.WatchBar(sequence=1, bar=pb.Bar(close=1.0)))
    assert "bar.time" in str((await replies.next()).error)
    setup.sessions.bar(session, pb.WatchBar(sequence=1, bar=pb.Bar(time=-5, close=1.0)))
    assert (await replies.next()).HasField("update")


HOUR = 3600 * 10**9
FIRST = 1_767_225_600 * 10**9


def hours(count: int) -> list[int]:
    return [FIRST + HOUR * at for at in range(count)]


async def test_a_forecast_by_time_gets_the_times_of_its_closes(setup):
    forecast = pb.WatchForecast(horizon=1, by_time=True)
    session, replies = setup.open(forecast=forecast, times=hours(40), bars=35)
    plain, _ = setup.open(forecast=pb.WatchForecast(horizon=1), times=hours(40))
    expected = hours(40)
    for sequence in range(1, 61):
        expected.append(expected[-1] + HOUR * (1 + sequence % 3))  # gaps
        bar = pb.WatchBar(sequence=sequence, bar=pb.Bar(time=expected[-1], close=float(sequence)))
        setup.sessions.bar(session, bar)
        if sequence == 60:
            setup.sessions.bar(session, bar)  # a correction adds no time
    for _ in range(62):
        answer = await replies.next()
    assert answer.update.HasField("forecast")
    newest = setup.model.items[-1]
    assert len(newest.values) == len(newest.times) == 35
    assert newest.times.tolist() == expected[-35:]
    assert len(session.state._times) <= 35 + 35 // 4 + 1
    assert session.size_bytes == plain.size_bytes + (35 + 35 // 4 + 64) * 8 - (40 + 40 // 4 - 35 - 35 // 4) * 8


@pytest.mark.parametrize(
    ("times", "words"),
    [((), "times: are needed by forecast.by_time"), (range(1, 41), "times: must be nanoseconds since the epoch")],
)
async def test_a_forecast_by_time_needs_times(setup, times, words):
    _, replies = setup.open(forecast=pb.WatchForecast(horizon=1, by_time=True), times=times)
    reply = await asyncio.wait_for(replies.queue.get(), 60)
    assert reply.error.message.startswith(words)


async def test_a_model_without_times_refuses_a_forecast_by_time(setup):
    setup.model.takes = ()
    _, replies = setup.open(forecast=pb.WatchForecast(horizon=1, by_time=True), times=hours(40))
    assert await replies.end() == "NOT_TAKEN_BY_MODEL"
