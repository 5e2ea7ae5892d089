"""Memory over many mixed requests, including failing requests, through the inference service in this process.

Owns the mix and the measurement. Prints resident memory and tensor memory; both must level off once caches are full.
`make soak` sends 10,000 requests; tests/inference/test_memory.py runs a short form.
"""

import asyncio
import ctypes
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import psutil

from inference.build import Components, build
from inference.calls.call import ReplicaCall
from inference.config import Config
from inference.device import cuda
from market_inference.contract import deadline
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import inference_pb2

REQUESTS, STEP = 10_000, 1_000
IN_FLIGHT = 24
PROGRAMS = (("RSI", "MACD"), ("SMA", "EMA", "RSI", "MACD", "BBANDS", "ATR"), ("KAMA", "CDLDOJI"), ("HT_TRENDLINE",))
WORDS = ("profit", "loss", "rose", "fell", "guidance", "the", "company", "a", "quarter", "shares", "warning", "Monday")


@dataclass(frozen=True, slots=True)
class Reading:
    """Live Python objects, resident bytes, and bytes in tensors on host and device, after a number of requests."""

    requests: int
    objects: int
    resident: int
    host: int
    device: int


class Mix:
    """Seeded requests of every kind and size; about one in ten fails or is cancelled by the caller."""

    def __init__(self, parts: Components, seed: int = 0) -> None:
        self._parts = parts
        self._random = random.Random(seed)
        self._numbers = np.random.default_rng(seed)
        self.outcomes: Counter[str] = Counter()

    async def one(self) -> None:
        """Send one request and count the outcome."""
        kind = self._random.choice((self._forecast, self._forecast, self._sentiment, self._indicators, self._failing))
        try:
            await kind()
            self.outcomes["answered"] += 1
        except ServiceError as error:
            self.outcomes[type(error).__name__] += 1
        except TimeoutError:
            self.outcomes["given up"] += 1

    async def _forecast(self) -> None:
        request = inference_pb2.PredictRequest(horizon=self._random.choice((1, 5, 24, 60)))
        request.model = self._random.choice(("auto", "auto", "vol_rw", "ridge_ar"))
        points = self._random.choice((40, 100, 256, 1000))
        for index in range(self._random.randint(1, 8)):
            request.series.add(symbol=str(index), values=(100 + self._numbers.normal(size=points)).tolist())
        await self._parts.servicer.predict(request.SerializeToString(), ReplicaCall())

    async def _sentiment(self) -> None:
        texts = [" ".join(self._random.choices(WORDS, k=self._random.choice((6, 20, 200)))) for _ in range(3)]
        asked = inference_pb2.AnalyzeSentimentRequest(texts=texts)
        await self._parts.servicer.sentiment(asked.SerializeToString(), ReplicaCall())

    async def _indicators(self) -> None:
        await self._parts.servicer.indicators(self._panels(self._random.choice(PROGRAMS)), ReplicaCall())

    def _panels(self, names: tuple[str, ...]) -> bytes:
        request = inference_pb2.ComputeIndicatorsRequest()
        request.indicators.extend(inference_pb2.IndicatorSpec(name=name, last=5) for name in names)
        close = 100 + self._numbers.normal(size=self._random.choice((60, 256, 2000)))
        bars = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.ones_like(close)}
        request.panels.add(symbol="x", **{name: column.tolist() for name, column in bars.items()})
        return request.SerializeToString()

    async def _failing(self) -> None:
        """An unknown model, an unknown function, a passed deadline, or a caller that cancels."""
        way = self._random.randrange(4)
        late = ReplicaCall(deadline=deadline.now() - 1)
        if way == 0:
            unknown = inference_pb2.PredictRequest(model=str(self._random.random()))
            await self._parts.servicer.predict(unknown.SerializeToString(), ReplicaCall())
        elif way == 1:
            await self._parts.servicer.indicators(self._panels((f"X{self._random.random()}",)), ReplicaCall())
        elif way == 2:
            await self._parts.servicer.indicators(self._panels(("SMA",)), late)
        else:
            async with asyncio.timeout(0):
                await self._forecast()


async def soak(requests: int, step: int) -> AsyncIterator[tuple[Reading, Counter[str]]]:
    """Run the mix; yields a reading before the first request and after every `step` requests."""
    parts = build(Config(device="auto", _env_file=None))
    try:
        await parts.catalog.load_defaults()
        mix = Mix(parts)
        for done in range(0, requests + 1, step):
            yield reading(done), mix.outcomes
            if done < requests:
                await _at_once(mix.one, step)
    finally:
        parts.close()


async def _at_once(one: Callable[[], Awaitable[None]], count: int) -> None:
    """Call `one` `count` times, with at most IN_FLIGHT calls at a time."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await one()

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def reading(requests: int) -> Reading:
    """Measure memory after a garbage collection and after returning free pages of the C heap."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    objects = gc.get_objects()
    # Without a model that runs on torch there are no tensors.
    torch = cuda.loaded_torch()
    if torch is None:
        return Reading(requests, len(objects), psutil.Process().memory_info().rss, 0, 0)
    # type() instead of isinstance(), because isinstance() would load lazy modules among the objects.
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in objects
        if type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"
    }
    device = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return Reading(requests, len(objects), psutil.Process().memory_info().rss, sum(storages.values()), device)


async def run() -> None:
    """Print a line every STEP requests."""
    print(f"{'requests':>10}{'objects':>12}{'resident MB':>14}{'host tensors MB':>18}{'device MB':>12}")
    outcomes: Counter[str] = Counter()
    async for now, outcomes in soak(REQUESTS, STEP):  # noqa: B007 -- the last value is printed below
        sizes = (now.resident, now.host, now.device)
        print(
            f"{now.requests:10,}{now.objects:12,}"
            + "".join(f"{size / 2**20:{width}.1f}" for size, width in zip(sizes, (14, 18, 12), strict=True)),
            flush=True,
        )
    print(", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common()))


def main() -> None:
    asyncio.run(run())


if __name__ == "__main__":
    main()
