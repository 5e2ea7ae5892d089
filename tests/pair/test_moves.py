"""Live sessions on their way to another replica: the updates equal those of unmoved sessions, and TA-Lib's."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from typing import Any

import numpy as np
import talib
import websockets
from talib import abstract

import market_inference
from market_inference.client.session import ForecastEvery, Update
from market_inference.client.watch import Watch
from models.indicators import FUNCTIONS, Spec
from models.indicators import compile as compile_indicators
from models.indicators.functions import PERIODS
from models.indicators.incremental_forms import form
from models.indicators.memory import bounded
from tests.eventually import eventually_async

BARS = 700
SESSIONS = 24
OTHERS = 6
LIGHT = {"forecast_models": "auto", "sentiment_models": ""}
COMMON = ("RSI", "EMA", "MACD", "ADX", "T3", "OBV", "SAR", "KAMA", "SMA", "BBANDS", "MAXINDEX", "ATR")
NAMES = [name for name, function in FUNCTIONS.items() if PERIODS not in function.columns]


def opens(at: int) -> int:
    """Every minute, in nanoseconds since the epoch."""
    return 1_700_000_000 * 10**9 + at * 60 * 10**9


def bar(market: Any, at: int) -> dict[str, float]:
    return {name: float(values[at]) for name, values in market.items()}


@dataclass
class Case:
    """A session with random parameters."""

    indicators: list[Any]
    history: int
    keep: int
    forecast: ForecastEvery | None

    @classmethod
    def drawn(cls, dice: np.random.Generator) -> "Case":
        names = {*dice.choice(COMMON, 3), *dice.choice(NAMES, 4)}
        indicators: list[Any] = []
        for name in sorted(names):
            periods = [one.name for one in FUNCTIONS[name].parameters if one.name == "timeperiod"]
            chosen = {one: int(dice.choice([2, 5, 14, 50, 180])) for one in periods if dice.random() < 0.7}
            indicators.append((name, chosen))
        forecast = None
        if dice.random() < 0.4:
            forecast = ForecastEvery(
                horizon=int(dice.integers(1, 6)),
                quantiles=sorted({float(level) for level in dice.choice([0.1, 0.25, 0.5, 0.9], 2)}),
                every=int(dice.integers(1, 30)),
                period=int(dice.choice([0, 7])),
                by_time=bool(dice.random() < 0.5),
            )
        history, keep = int(dice.choice([1, 2, 30, 100, 250])), int(dice.choice([1, 20, 64, 200, 500]))
        return cls(indicators, history, keep, forecast)


async def updates(
    client: market_inference.AsyncClient, case: Case, market: Any, gates: list[asyncio.Barrier]
) -> tuple[list[Update], int]:
    """Every update of the case's session, and the moves. All sessions wait at the gates with bars in flight."""
    found: list[Update] = []
    sent = 0
    history = {name: values[: case.history] for name, values in market.items()}
    stops = np.linspace(case.history, BARS, len(gates) + 2).astype(int)[1:-1].tolist()
    asked = {"indicators": case.indicators, "forecast": case.forecast, "keep": case.keep}
    async with client.watch("X", history, times=[*map(opens, range(case.history))], **asked) as session:

        async def read() -> None:
            async for update in session:
                found.append(update)

        reading = asyncio.create_task(read())
        for at in range(case.history, BARS):
            if at in stops:
                await gates[stops.index(at)].wait()
            if at % 50 == 7:  # a refused bar leaves a gap in the numbers of the bars in flight behind it
                await eventually_async(lambda: len(found), lambda count, sent=sent: count == sent)
                for _ in range(2):
                    await session.append(bar(market, at), time=opens(0))
                await eventually_async(lambda: len(found), lambda count, sent=sent: count == sent + 2)
                sent += 2
            await session.append(bar(market, at), time=opens(at))
            sent += 1
            if at % 40 < 2:
                await session.correct({name: value * 1.01 for name, value in bar(market, at).items()})
                await session.correct(bar(market, at))
                sent += 2
        await session.finish()
        await reading
    assert len(found) == sent
    return found, session.reconnects


def said(update: Update) -> object:
    """The content of an update, values to the last digit."""
    forecast, error = update.forecast, update.error
    about = None if forecast is None else (forecast.coverage, forecast.context, forecast.model_version)
    refused = None if error is None else (error.reason, error.violations)
    return repr((update.sequence, dict(update), about, refused, update.time))


def quantiles(found: list[Update]) -> list[float]:
    """Those of all forecasts; a model's batches differ in the last digit."""
    return [value for one in found if one.forecast for value in one.forecast.quantiles.ravel().tolist()]


def assert_talib(case: Case, market: Any, found: list[Update]) -> None:
    """Recursive and bounded functions equal TA-Lib over all bars."""
    last = {update.sequence: update for update in found if len(update)}
    inputs = {name: values[:BARS] for name, values in market.items()}
    for name, params in case.indicators:
        (call,) = compile_indicators([Spec(name, params)]).calls
        if form(call) is None and not bounded(call):
            continue
        function = abstract.Function(name)
        columns = function(inputs, **params)
        for output, column in zip(
            function.output_names, columns if isinstance(columns, list) else [columns], strict=True
        ):
            label = name if len(function.output_names) == 1 else f"{name}.{output}"
            got = np.array([last[at][label] for at in range(1, BARS - case.history + 1)])
            want = column[case.history :].astype(float)
            usual = np.nanmedian(np.abs(want)) if np.isfinite(want).any() else 0.0
            np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9 * usual, err_msg=label)


async def test_every_update_after_moves_is_that_of_a_session_that_stayed(services, market):
    killed, drained, staying = (services.start_replica(**LIGHT) for _ in range(3))
    calm = services.start_gateway([staying])
    moving = services.start_gateway([killed, drained, staying])
    services.wait_loaded("indicators", "forecast")
    dice = np.random.default_rng(5)
    cases = [Case.drawn(dice) for _ in range(SESSIONS)]
    gates = [asyncio.Barrier(SESSIONS + 1) for _ in range(2)]
    async with (
        market_inference.AsyncClient(calm.target, api_key=calm.key) as still,
        market_inference.AsyncClient(moving.target, api_key=moving.key) as client,
        asyncio.TaskGroup() as group,
    ):
        stayed = [group.create_task(updates(still, case, market, [])) for case in cases]
        moved = [group.create_task(updates(client, case, market, gates)) for case in cases]
        await gates[0].wait()
        os.kill(killed.service.pid, signal.SIGKILL)
        await gates[1].wait()
        os.kill(drained.service.pid, signal.SIGTERM)
    moves = [task.result()[1] for task in moved]
    assert sum(count > 0 for count in moves) > SESSIONS // 4
    for case, here, there in zip(cases, moved, stayed, strict=True):
        (with_moves, _), (without, _) = here.result(), there.result()
        assert [said(update) for update in with_moves] == [said(update) for update in without], case
        np.testing.assert_allclose(quantiles(with_moves), quantiles(without), rtol=1e-12)
        assert_talib(case, market, with_moves)


async def test_a_session_that_moves_waits_for_room(services, market):
    """After the loss of half of the replicas the others may be full for a while."""
    first = services.start_local_replica()
    gateway = services.start_gateway([first])
    services.wait_loaded("indicators")
    closes = market["close"]
    async with market_inference.AsyncClient(gateway.target, api_key=gateway.key) as client:
        sessions = [client.watch("X", closes[:100], indicators=["RSI"]) for _ in range(2)]
        for session in sessions:
            await session.__aenter__()
        first.service.kill()
        services.start_replica(first.address, **LIGHT, max_sessions=1)
        waiting = {asyncio.create_task(anext(session)): session for session in sessions}
        for session in sessions:
            await session.append(closes[100])
        (one,), others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (other,) = others
        reconnects = waiting[other].reconnects
        await eventually_async(lambda: waiting[other].reconnects, lambda count: count > reconnects + 1)
        assert not other.done()
        await waiting[one].close()
        assert (await other)["RSI"] == one.result()["RSI"]
        await waiting[other].close()


async def test_sessions_of_threads_and_of_the_edge_move_too(services, market):
    killed, staying = (services.start_replica(**LIGHT) for _ in range(2))
    gateway = services.start_gateway([killed, staying])
    services.wait_loaded("indicators")
    edge = services.start_edge(gateway)
    closes, history, last = market["close"], 40, 400
    gate = asyncio.Barrier(2 * OTHERS + 1)
    indicators = ["RSI", ("SMA", {"timeperiod": 300}), ("EMA", {"timeperiod": 100})]

    async def of_thread() -> list[dict[str, float]]:
        def first(session: Watch) -> None:
            session.__enter__()
            for at in range(history, 350):
                session.append(closes[at])

        def rest(session: Watch) -> list[dict[str, float]]:
            for at in range(350, last):
                session.append(closes[at])
            return [dict(update) for update in session]

        with market_inference.Client(gateway.target, api_key=gateway.key) as client:
            session = client.watch("X", closes[:history], indicators=indicators, keep=1)
            await asyncio.to_thread(first, session)
            await gate.wait()
            try:
                return await asyncio.to_thread(rest, session)
            finally:
                session.close()

    async def of_edge() -> list[dict[str, float]]:
        asked = {"ohlcv": {"close": closes[:history].tolist()}, "keep": 1}
        asked["indicators"] = ["RSI", "SMA:timeperiod=300", "EMA:timeperiod=100"]
        async with websockets.connect(f"ws://{edge.listen}/v1/watch", proxy=None) as socket:
            await socket.send(json.dumps({"open": asked, "api_key": gateway.key}))
            assert "opened" in json.loads(await socket.recv())
            for at in range(history, last):
                if at == 350:
                    await gate.wait()
                await socket.send(json.dumps({"close": closes[at]}))
            answers = [json.loads(await socket.recv()) for _ in range(history, last)]
        assert [one["sequence"] for one in answers] == list(range(1, last - history + 1))
        return [{name: np.nan if value is None else value for name, value in one["values"].items()} for one in answers]

    async with asyncio.TaskGroup() as group:
        sessions = [group.create_task(made()) for _ in range(OTHERS) for made in (of_thread, of_edge)]
        await gate.wait()
        os.kill(killed.service.pid, signal.SIGKILL)
    want = talib.RSI(closes[:last]), talib.SMA(closes[:last], 300), talib.EMA(closes[:last], 100)
    for session in sessions:
        for name, column in zip(("RSI", "SMA", "EMA"), want, strict=True):
            got = [update[name] for update in session.result()]
            np.testing.assert_allclose(got, column[history:], rtol=1e-9)
