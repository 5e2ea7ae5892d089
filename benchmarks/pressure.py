"""Steady load from many callers, with a check of every answer.

Owns the callers and the count of results. Retries are off, so that callers see the gateway's status.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated import inference_pb2_grpc

OPTIONS = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
REFUSALS = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
# A client's backoff after a refusal.
PAUSE_SECONDS = 0.02
KINDS = 16


@dataclass
class Tally:
    """Counts of requests by result. `seconds` and `refusals` hold (end, duration) of answers and refusals."""

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[float, float]] = field(default_factory=list)
    refusals: list[tuple[float, float]] = field(default_factory=list)

    def percentile(self, q: float, since: float = -math.inf, until: float = math.inf) -> float:
        """The q-th percentile of the durations of answers between two instants; NaN without answers."""
        return percentile(self.seconds, q, since, until)


def percentile(
    timed: Sequence[tuple[float, float]], q: float, since: float = -math.inf, until: float = math.inf
) -> float:
    found = [duration for end, duration in timed if since <= end < until]
    return float(np.percentile(found, q)) if found else math.nan


@dataclass(frozen=True)
class Workload:
    """Distinct requests of one method, so that swapped answers are detected."""

    method: str
    requests: Sequence[Any]
    same: Callable[[Any, Any], bool]


def predictions() -> list[pb.PredictRequest]:
    steps = np.random.default_rng(7).normal(0, 0.01, (KINDS, 200))
    return [
        pb.PredictRequest(series=[pb.Series(values=(100 * np.exp(np.cumsum(row))).tolist())], horizon=1 + at)
        for at, row in enumerate(steps)
    ]


def forecasts() -> Workload:
    """Short series for a light model: many requests per second."""

    def numbers(answer: pb.PredictResponse) -> list[float]:
        found = []
        for one in answer.forecasts:
            told = one.forecast
            found += [
                *told.point,
                *told.quantiles,
                told.gate,
                told.context,
                told.coverage.measured,
                told.coverage.origins,
            ]
        return found

    def same(got: pb.PredictResponse, right: pb.PredictResponse) -> bool:
        """Equal to 1e-13, not bit for bit: the last bit depends on the shape of a matrix product."""
        return len(numbers(got)) == len(numbers(right)) and np.allclose(numbers(got), numbers(right), 1e-13, 0, True)

    return Workload("Predict", predictions(), same)


def sentiments() -> Workload:
    """Long texts that keep an engine busy: few requests per second."""
    sentence = "Company {} {} its forecast as demand in segment {} {} and margins {} against the prior year. "
    words = ("beats", "misses", "rises", "falls", "widen", "shrink")
    requests = [
        pb.AnalyzeSentimentRequest(
            texts=[
                sentence.format(kind, words[kind % 2], item, words[2 + item % 2], words[4 + kind % 2]) * 2
                for item in range(4)
            ]
        )
        for kind in range(KINDS)
    ]

    def scores(answer: pb.AnalyzeSentimentResponse) -> list[float]:
        return [one.sentiment.score for one in answer.sentiments]

    # In float32, a sentence's probabilities differ by rounding with the shape of the batch.
    return Workload("AnalyzeSentiment", requests, lambda got, right: np.allclose(scores(got), scores(right), atol=1e-4))


def indicators() -> Workload:
    """Five indicators over 256 bars."""
    names = ("RSI", "MACD", "BBANDS", "EMA", "CCI")
    requests = []
    for kind in range(KINDS):
        close = 100 * np.exp(0.01 * np.random.default_rng(kind).standard_normal(256).cumsum())
        request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(close=close, high=close + 1, low=close - 1)])
        request.indicators.extend(pb.IndicatorSpec(name=name) for name in names)
        requests.append(request)

    def same(got: pb.ComputeIndicatorsResponse, right: pb.ComputeIndicatorsResponse) -> bool:
        return list(got.panels) == list(right.panels) or str(got.panels) == str(right.panels)  # NaN differs from NaN

    return Workload("ComputeIndicators", requests, same)


class Pressure:
    """Callers of one gateway. `timeout`: deadline of a request in seconds. `pause`: seconds from an answer to the
    caller's next request; without a pause the callers take all of the CPU.
    """

    def __init__(
        self,
        stub: Any,
        credentials: Sequence[tuple[str, str]],
        workload: Workload,
        *,
        timeout: float = 20.0,
        pause: float = 0.0,
    ) -> None:
        self._ask = getattr(stub, workload.method)
        self._credentials = tuple(credentials)
        self.workload = workload
        self._right: list[Any] = []
        self._stop = False
        self._progress = asyncio.Event()
        self.timeout = timeout
        self._pause = pause
        self.tally = Tally()

    async def prepare(self) -> None:
        """Send every request alone, to get the expected answers."""
        for request in self.workload.requests:
            self._right.append(await self._ask(request, metadata=self._credentials, timeout=60.0, wait_for_ready=True))

    @asynccontextmanager
    async def callers(self, count: int) -> AsyncIterator[Tally]:
        """Run `count` callers in a closed loop during the block; leaving the block waits for all answers."""
        self._stop = False
        tasks = [asyncio.create_task(self._caller(place)) for place in range(count)]
        try:
            yield self.tally
        finally:
            self._stop = True
            await asyncio.gather(*tasks)

    async def offer(self, per_second: float, seconds: float) -> Tally:
        """Send requests at a fixed rate for `seconds`, independent of answers, then wait for all answers."""
        began, tasks = time.monotonic(), []
        for place in range(int(per_second * seconds)):
            await asyncio.sleep(max(0.0, began + place / per_second - time.monotonic()))
            tasks.append(asyncio.create_task(self.one(place % KINDS)))
        await asyncio.gather(*tasks)
        return self.tally

    async def more(self, count: int) -> None:
        """Wait until `count` more requests have been answered."""
        wanted = self.tally.answered + count
        while self.tally.answered < wanted:
            self._progress.clear()
            await self._progress.wait()

    async def _caller(self, place: int) -> None:
        while not self._stop:
            place = (place + 1) % KINDS
            refused = await self.one(place)
            if pause := PAUSE_SECONDS if refused else self._pause:
                await asyncio.sleep(pause)

    async def one(self, place: int) -> bool:
        """Send one request; returns whether the request was refused."""
        self.tally.sent += 1
        began = time.monotonic()
        try:
            answer = await self._ask(self.workload.requests[place], metadata=self._credentials, timeout=self.timeout)
        except grpc.aio.AioRpcError as error:
            refused = error.code() in REFUSALS
            (self.tally.refused if refused else self.tally.lost)[f"{error.code().name}: {error.details()}"] += 1
            if refused:
                self.tally.refusals.append((time.monotonic(), time.monotonic() - began))
            return refused
        finally:
            self._progress.set()
        ended = time.monotonic()
        self.tally.answered += 1
        self.tally.wrong += not self.workload.same(answer, self._right[place])
        self.tally.seconds.append((ended, ended - began))
        return False


@asynccontextmanager
async def pressure(
    target: str, credentials: Sequence[tuple[str, str]], workload: Workload | None = None, **options: Any
) -> AsyncIterator[Pressure]:
    """A prepared Pressure on a gateway; the default workload is forecasts."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        stub = inference_pb2_grpc.MarketInferenceServiceStub(channel)
        made = Pressure(stub, credentials, workload or forecasts(), **options)
        await made.prepare()
        yield made
