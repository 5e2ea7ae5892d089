"""Steady load from many callers, with every answer checked.

Owns the callers and the tally of what came back. Retries are off: what a caller sees is what the gateway said.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from market.inference.v1 import inference_pb2 as pb
from market.inference.v1 import inference_pb2_grpc

OPTIONS = (("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1))
REFUSALS = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
KINDS = 16


@dataclass
class Tally:
    """What became of the requests. `seconds` holds (end, duration) of every answer."""

    sent: int = 0
    answered: int = 0
    wrong: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    seconds: list[tuple[float, float]] = field(default_factory=list)

    def percentile(self, q: float, since: float = -math.inf, until: float = math.inf) -> float:
        """The q-th percentile of the durations of answers that came between two instants; NaN when none did."""
        found = [duration for end, duration in self.seconds if since <= end < until]
        return float(np.percentile(found, q)) if found else math.nan


def predictions() -> list[pb.PredictRequest]:
    """Different requests, so that an answer to another one would be noticed."""
    steps = np.random.default_rng(7).normal(0, 0.01, (KINDS, 200))
    return [
        pb.PredictRequest(series=[pb.Series(values=(100 * np.exp(np.cumsum(row))).tolist())], horizon=1 + at)
        for at, row in enumerate(steps)
    ]


def numbers(answer: pb.PredictResponse) -> bytes:
    return b"".join(one.forecast.SerializeToString() for one in answer.forecasts)


class Pressure:
    """Callers of one gateway, each with the next request as soon as it has its answer."""

    def __init__(self, stub: Any, credentials: Sequence[tuple[str, str]], *, timeout: float = 20.0) -> None:
        self._stub = stub
        self._credentials = tuple(credentials)
        self._timeout = timeout
        self._requests = predictions()
        self._right: list[bytes] = []
        self._stop = False
        self.tally = Tally()
        self._progress = asyncio.Event()

    async def prepare(self) -> None:
        """Ask every request alone: these are the right answers."""
        for request in self._requests:
            answer = await self._stub.Predict(
                request, metadata=self._credentials, timeout=self._timeout, wait_for_ready=True
            )
            self._right.append(numbers(answer))

    @asynccontextmanager
    async def callers(self, count: int) -> AsyncIterator[Tally]:
        """Load while the block runs; at its end every request has its answer."""
        self._stop = False
        tasks = [asyncio.create_task(self._caller(place)) for place in range(count)]
        try:
            yield self.tally
        finally:
            self._stop = True
            await asyncio.gather(*tasks)

    async def more(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        wanted = self.tally.answered + count
        while self.tally.answered < wanted:
            self._progress.clear()
            await self._progress.wait()

    async def _caller(self, place: int) -> None:
        while not self._stop:
            place = (place + 1) % KINDS
            refused = await self.one(place)
            if refused:
                await asyncio.sleep(0.02)  # as a client with backoff would

    async def one(self, place: int) -> bool:
        """One request; true when it was refused."""
        self.tally.sent += 1
        began = time.monotonic()
        try:
            answer = await self._stub.Predict(self._requests[place], metadata=self._credentials, timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            refused = error.code() in REFUSALS
            (self.tally.refused if refused else self.tally.lost)[f"{error.code().name}: {error.details()}"] += 1
            return refused
        finally:
            self._progress.set()
        ended = time.monotonic()
        self.tally.answered += 1
        self.tally.wrong += numbers(answer) != self._right[place]
        self.tally.seconds.append((ended, ended - began))
        return False


@asynccontextmanager
async def pressure(target: str, credentials: Sequence[tuple[str, str]], **options: Any) -> AsyncIterator[Pressure]:
    """A prepared Pressure on a gateway."""
    async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
        made = Pressure(inference_pb2_grpc.MarketInferenceServiceStub(channel), credentials, **options)
        await made.prepare()
        yield made
