"""The SDK's own worker loop in child processes, against a local job queue."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.slow

# Seconds that an empty poll is held. The platform holds polls too, for longer.
HOLD = 0.5
# The longest wait for one event.
MOST_SECONDS = 100.0
MARKER = "okapi"  # a word in every text that may reach neither a log nor an error


class Platform:
    """The platform's side of the worker's webhooks: hands out jobs, collects results, signals stops."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []
        self.taken: dict[str, str] = {}
        self.results: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.streamed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.final_is_stream: dict[str, str] = {}
        self.stopping: set[str] = set()
        self.closed: set[str] = set()
        self.held: set[str] = set()
        """Jobs whose results are not taken yet."""
        self.largest_take = 0
        self._changed = asyncio.Condition()

    async def put(self, *jobs: dict[str, Any]) -> None:
        self.waiting.extend(jobs)
        await self._notify()

    async def release(self) -> None:
        """Take the results of the held jobs."""
        self.held.clear()
        await self._notify()

    async def until(self, predicate: Callable[[], bool]) -> None:
        async with asyncio.timeout(MOST_SECONDS), self._changed:
            await self._changed.wait_for(predicate)

    def outstanding(self, worker: str) -> list[str]:
        answered = self.results.keys() | self.stopping
        return [job for job, taker in self.taken.items() if taker == worker and job not in answered]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _held(self, predicate: Callable[[], bool]) -> bool:
        try:
            await asyncio.wait_for(self.until(predicate), HOLD)
        except TimeoutError:
            return False
        return True

    async def take(self, request: web.Request) -> web.Response:
        worker = request.match_info["worker"]
        may_take = lambda: bool(self.waiting) and worker not in self.closed  # noqa: E731
        # The worker may be closed between the end of the wait and this turn of the loop: it then took jobs meant for
        # the other one, and the test waited for the other one forever.
        if not await self._held(may_take) or not may_take():
            return web.Response(status=204)
        count = int(request.query.get("batch_size", 1))
        batch, self.waiting = self.waiting[:count], self.waiting[count:]
        self.taken.update({job["id"]: worker for job in batch})
        self.largest_take = max(self.largest_take, len(batch))
        await self._notify()
        return web.json_response(batch if "batch_size" in request.query else batch[0])

    async def done(self, request: web.Request) -> web.Response:
        job = request.match_info["job"]
        await self.until(lambda: job not in self.held)
        self.results[job].append(json.loads(await request.text()))
        self.final_is_stream[job] = request.query["isStream"]
        await self._notify()
        return web.Response(text="ok")

    async def stream(self, request: web.Request) -> web.Response:
        self.streamed[request.match_info["job"]].append(json.loads(await request.text()))
        return web.Response(text="ok")

    async def stop(self, request: web.Request) -> web.Response:
        mine = lambda: [job for job in self.stopping if self.taken.get(job) == request.match_info["worker"]]  # noqa: E731
        if await self._held(lambda: bool(mine())):
            return web.json_response({"jobsToStop": mine()})
        return web.Response(status=204)

    async def ping(self, request: web.Request) -> web.Response:
        return web.Response(text="ok")

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v2/ep/job-take/{worker}", self.take),
            web.get("/v2/ep/job-take-batch/{worker}", self.take),
            web.get("/v2/ep/job-stop/{worker}", self.stop),
            web.post("/v2/ep/job-done/{worker}/{job}", self.done),
            web.post("/v2/ep/job-stream/{worker}/{job}", self.stream),
            web.get("/v2/ep/ping/{worker}", self.ping),
        ]


@asynccontextmanager
async def platform() -> AsyncIterator[tuple[Platform, str]]:
    platform = Platform()
    app = web.Application(client_max_size=32_000_000)
    app.add_routes(platform.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield platform, f"http://{host}:{port}/v2/ep"
    finally:
        await runner.cleanup()


class WorkerProcess:
    """`python -m serverless` as the platform starts the worker, with the log lines read as they are written."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.raw = b""
        self._changed = asyncio.Condition()
        self._readers = [asyncio.create_task(self._read(stream)) for stream in (process.stdout, process.stderr)]

    async def _read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for line in stream:
            async with self._changed:
                self.raw += line
                if line.startswith(b"{"):
                    self.lines.append(json.loads(line))
                self._changed.notify_all()

    async def until(self, predicate: Callable[[], Any]) -> None:
        """Wait for lines with which `predicate` is true. A failure tells the newest lines."""
        try:
            async with asyncio.timeout(MOST_SECONDS), self._changed:
                await self._changed.wait_for(predicate)
        except TimeoutError:
            raise AssertionError(f"{self.name} wrote at last: {self.raw[-2000:].decode()}") from None

    async def logged(self, **fields: Any) -> dict[str, Any]:
        """The first log line with these fields."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines if fields.items() <= line.items()]

        await self.until(found)
        return found()[0]

    async def ended(self) -> int:
        try:
            async with asyncio.timeout(MOST_SECONDS):
                await asyncio.gather(*self._readers)
                return await self.process.wait()
        except TimeoutError:
            raise AssertionError(f"{self.name} does not end, and wrote at last: {self.raw[-2000:].decode()}") from None


@asynccontextmanager
async def worker(name: str, url: str, **settings: str) -> AsyncIterator[WorkerProcess]:
    environment = {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{url}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "1000",
        "RUNPOD_POD_ID": name,
        "RUNPOD_AI_API_KEY": "not-a-real-key",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
        "MARKET_SERVERLESS_METRICS_LISTEN": "127.0.0.1:0",
        "MARKET_INFERENCE_MAX_QUEUED_SECONDS": "60",
        "MARKET_INFERENCE_DEVICE": "cpu",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "serverless",
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,  # the SDK's heartbeat is a separate process, and holds the pipes open
    )
    running = WorkerProcess(name, process)
    try:
        yield running
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await running.ended()


def walk(seed: int, count: int) -> list[float]:
    return (100 + np.random.default_rng(seed).normal(0, 1, count).cumsum()).round(2).tolist()


def good_job(number: int) -> dict[str, Any]:
    given: dict[str, Any]
    match number % 5:
        case 0:
            given = {"action": "predict", "time_series": walk(number, 60 + number), "horizon": 1 + number % 20}
        case 1:
            given = {"action": "sentiment", "texts": [f"{MARKER} shares rose {number} percent on strong earnings."] * 2}
        case 2:
            given = {"action": "indicators", "ohlcv": {"close": walk(number, 80)}, "indicators": ["RSI", "SMA"]}
        case 3:
            sentiment = {"text": f"{MARKER} cut its outlook for the year {number}."}
            given = {"action": "analyze", "sentiment": sentiment, "predict": {"time_series": walk(1, 50), "horizon": 2}}
        case _:
            given = {"action": "models"}
    return {"id": f"good-{number}", "input": given}


BAD = [
    (
        {"action": "predict", "time_series": [1.0, 2.0], "horizon": 5},
        "time_series too short (min 30, got 2)",
        "validation",
    ),
    (
        {"action": "sentiment", "texts": [MARKER, " " + 10_001 * "x"], "model": "nope"},
        "no sentiment model",
        "validation",
    ),
    ({"action": "indicators", "ohlcv": {"close": [1.0] * 9}, "indicators": ["XYZZY"]}, "XYZZY", "validation"),
    ({"action": "transfer", "to": MARKER}, "unknown action 'transfer'", "invalid_action"),
    (["no object", MARKER], "input must be an object", "validation"),
]


def bad_job(number: int) -> dict[str, Any]:
    return {"id": f"bad-{number}", "input": BAD[number % len(BAD)][0]}


def long_job(name: str, bars: int) -> dict[str, Any]:
    """A replay of many bars, answered one after another."""
    watch = {"action": "watch", "ohlcv": {"close": walk(9, 500)}, "bars": [{"close": 100.0}] * bars}
    return {"id": name, "input": {**watch, "indicators": ["RSI"], "forecast": {"horizon": 5}}}


def mixed(start: int, count: int) -> list[dict[str, Any]]:
    return [bad_job(number) if number % 6 == 0 else good_job(number) for number in range(start, start + count)]


async def joint_batches(address: str) -> dict[str, float]:
    """The number of batches of more than one item, by engine."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        families = text_string_to_metric_families(await response.text())
    counts: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == "market_inference_batch_items_bucket" and sample.labels["le"] in {"1.0", "+Inf"}:
            counts[sample.labels["engine"]] += sample.value if sample.labels["le"] == "+Inf" else -sample.value
    return counts


def test_every_job_gets_one_result_despite_bad_jobs_cancels_and_a_stopping_worker():
    asyncio.run(two_workers())


async def two_workers() -> None:
    cancelled = [long_job(f"cancelled-{number}", 5000) for number in range(3)]
    slow = [long_job(f"slow-{number}", 150) for number in range(4)]
    first, second = mixed(0, 150), mixed(150, 150)
    async with platform() as (queue, url), worker("w1", url) as one, worker("w2", url) as two:
        await asyncio.gather(*(w.logged(event="model ready", engine="sentiment") for w in (one, two)))
        await queue.put(*cancelled, *first)
        await queue.until(lambda: all(job["id"] in queue.taken for job in cancelled))
        queue.stopping |= {job["id"] for job in cancelled}
        by_worker = {"w1": one, "w2": two}
        for job in cancelled:
            await by_worker[queue.taken[job["id"]]].logged(event="job", job_id=job["id"], outcome="CANCELLED")

        queue.closed, queue.held = {"w2"}, {slow[0]["id"]}
        await queue.put(*slow, *second[:50])
        await one.until(lambda: all(f"{job['id']} | Started." in one.raw.decode() for job in slow))
        queue.closed = {"w1"}
        await queue.put(*second[50:])
        assert queue.outstanding("w1")
        one.process.send_signal(signal.SIGTERM)
        await queue.release()
        assert await one.ended() == 0
        assert not queue.outstanding("w1"), "a worker told to stop finishes what it has taken"

        everything = [*first, *second, *slow]
        await queue.until(lambda: all(job["id"] in queue.results for job in everything))
        batches = await joint_batches((await two.logged(event="worker ready"))["metrics"])
        two.process.send_signal(signal.SIGTERM)
        assert await two.ended() == 0

    assert set(queue.taken.values()) == {"w1", "w2"}
    assert {job: len(results) for job, results in queue.results.items() if len(results) != 1} == {}
    assert set(queue.results) == {job["id"] for job in everything}, "a cancelled job posts nothing"
    for job, (result,) in queue.results.items():
        check_result(job, result)
    assert queue.largest_take > 10, "the worker takes many jobs at once"
    assert min(batches[engine] for engine in ("forecast", "sentiment", "indicators")) >= 1, batches
    for output in (one.raw, two.raw):
        assert MARKER.encode() not in output
        assert b"Traceback" not in output


def check_result(job: str, result: dict[str, Any]) -> None:
    text = json.dumps(result)
    for leak in ("Traceback", "site-packages", 'File "', "runpod_version", "hostname", MARKER):
        assert leak not in text
    kind, _, number = job.rpartition("-")
    output = result["output"]
    assert output["request_id"] == job
    if kind == "bad":
        _, error, error_type = BAD[int(number) % len(BAD)]
        assert error in result["error"]
        assert (output["status"], output["error_type"]) == ("error", error_type)
        return
    assert "error" not in result, result
    assert output["status"] == "success"
    if kind == "good" and int(number) % 5 == 2:
        closes = np.array(walk(int(number), 80))
        sma = output["output"]["panels"][0]["indicators"]["indicators"][1]["outputs"][0]["values"]
        assert sma[-1] == pytest.approx(closes[-30:].mean(), rel=1e-12)


def test_a_generator_worker_streams_through_the_sdk_and_aggregates():
    asyncio.run(streaming_worker())


async def streaming_worker() -> None:
    series = [{"symbol": str(number), "values": walk(number, 60)} for number in range(5)]
    jobs = [
        {"id": "streamed", "input": {"action": "predict_stream", "series": series, "horizon": 3}},
        {"id": "plain", "input": {"action": "predict", "series": series, "horizon": 3}},
        {"id": "bad", "input": {"action": "predict", "time_series": [1.0], "horizon": 3}},
    ]
    async with (
        platform() as (queue, url),
        worker("w3", url, MARKET_SERVERLESS_STREAMING="aggregated", MARKET_SERVERLESS_WARM_UP="false") as one,
    ):
        await queue.put(*jobs)
        await queue.until(lambda: len(queue.results) == len(jobs))
        one.process.send_signal(signal.SIGTERM)
        assert await one.ended() == 0

    chunks = [chunk["output"] for chunk in queue.streamed["streamed"]]
    assert sorted(chunk["output"]["symbol"] for chunk in chunks) == ["0", "1", "2", "3", "4"]
    assert queue.results["streamed"] == [{"output": chunks}]
    assert queue.final_is_stream["streamed"] == "true"
    ((plain,),) = [result["output"] for result in queue.results["plain"]]
    assert len(plain["output"]["forecasts"]) == 5
    (bad,) = queue.results["bad"]
    assert json.loads(bad["error"])["error"] == "time_series too short (min 30, got 1)"
