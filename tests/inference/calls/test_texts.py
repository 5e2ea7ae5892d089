"""Tokenising is admitted, fair between clients, and cancelled with its caller."""

import asyncio
import json
from threading import Event
from typing import Any

import pytest
from grpc_health.v1 import health_pb2
from tokenizers import Tokenizer

from inference.build import build
from inference.calls.call import ReplicaCall
from inference.config import Config
from inference.server import Server
from market_inference.contract.errors import InternalError, OverloadedError, ServiceUnavailableError
from market_inference.contract.generated import inference_pb2 as pb
from models import sentiment
from models.sentiment import minilm
from models.sentiment.text import Windows
from tests.eventually import eventually_async


class Gated:
    """The embedded model, with a gate before the tokeniser."""

    def __init__(self) -> None:
        self._model = sentiment.load("minilm")
        self.gate = Event()
        self.gate.set()
        self.prepared: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def prepare(self, texts):
        assert self.gate.wait(60)
        self.prepared.append(len(texts))
        return self._model.prepare(texts)


@pytest.fixture
async def parts():
    parts = build(Config(device="cpu", sentiment_models="gated", max_queued_seconds=5.0, _env_file=None))
    slot = parts.catalog.default("sentiment")
    slot.load = Gated
    await parts.catalog.load(slot)
    slot.model.prepared.clear()
    yield parts
    slot.model.gate.set()
    parts.close()


def texts(count: int, characters: int) -> bytes:
    text = ("profit rose sharply after the quarter " * (characters // 38 + 1))[:characters]
    return pb.AnalyzeSentimentRequest(texts=[f"{i} {text}" for i in range(count)]).SerializeToString()


async def test_warnings_about_texts_are_answered_and_counted(parts):
    asked = ["Profit rose sharply", "Der Gewinn ist im dritten Quartal gefallen", "12.5 13.4"]
    raw = pb.AnalyzeSentimentRequest(texts=asked).SerializeToString()
    call = ReplicaCall()
    answer = pb.AnalyzeSentimentResponse.FromString(await parts.servicer.sentiment(raw, call))
    codes = [[pb.WarningCode.Name(one.code) for one in item.sentiment.warnings] for item in answer.sentiments]
    assert codes == [[], ["WARNING_CODE_TEXT_NOT_ENGLISH"], ["WARNING_CODE_TEXT_MOSTLY_NUMBERS"]]
    parts.metrics.answered("sentiment", "OK", call, 0.1)
    for code in ("TEXT_NOT_ENGLISH", "TEXT_MOSTLY_NUMBERS"):
        labels = {"method": "sentiment", "code": code}
        assert parts.metrics.registry.get_sample_value("market_inference_answer_warnings_total", labels) == 1


async def test_cancelled_calls_of_many_long_texts_leave_nothing_running(parts):
    model = parts.catalog.default("sentiment").model
    model.gate.clear()
    raw = texts(100, 10_000)
    calls = [asyncio.create_task(parts.servicer.sentiment(raw, ReplicaCall(client="attacker"))) for _ in range(20)]
    await eventually_async(lambda: parts.tracks["texts"].queued_items)
    victim = asyncio.create_task(parts.servicer.sentiment(texts(1, 40), ReplicaCall(client="victim")))
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    model.gate.set()
    async with asyncio.timeout(60):
        answer = pb.AnalyzeSentimentResponse.FromString(await victim)
    assert answer.sentiments[0].HasField("sentiment")
    for batcher in (tracks.quick for tracks in parts.tracks.values()):
        await eventually_async(lambda batcher=batcher: batcher._running is None)
        assert (batcher.queued_items, batcher.shares.total) == (0, 0.0)
    assert sum(model.prepared) < 400, "the texts of cancelled calls are not prepared"


async def test_a_clients_long_texts_are_refused_before_they_delay_anothers(parts):
    raw = texts(100, 10_000)
    attack = [asyncio.create_task(parts.servicer.sentiment(raw, ReplicaCall(client="attacker"))) for _ in range(20)]
    victims = []
    for _ in range(10):
        async with asyncio.timeout(60):
            victims.append(await parts.servicer.sentiment(texts(1, 40), ReplicaCall(client="victim")))
    for call in attack:
        call.cancel()
    outcomes = await asyncio.gather(*attack, return_exceptions=True)
    assert len(victims) == 10
    assert any(isinstance(outcome, OverloadedError) for outcome in outcomes)


def slow_pattern() -> Tokenizer:
    """The embedded model's tokeniser behind a pattern; the library panics at texts such as aaaab."""
    described = json.loads(minilm.tokenizer().to_str())
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    described["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, described["pre_tokenizer"]]}
    return Tokenizer.from_str(json.dumps(described))


async def test_a_text_at_which_the_tokenisers_library_panics_fails_alone(parts):
    good, bad = "Profit rose sharply.", "a" * 28 + "b"
    parts.catalog.default("sentiment").model._model._windows = Windows(slow_pattern(), 256)

    def ask(*asked: str) -> Any:
        raw = pb.AnalyzeSentimentRequest(texts=asked).SerializeToString()
        return parts.servicer.sentiment(raw, ReplicaCall(client=asked[0]))

    async with asyncio.timeout(60):
        alone = pb.AnalyzeSentimentResponse.FromString(await ask(good)).sentiments[0].sentiment
        mate, failed = await asyncio.gather(ask(good), ask(bad), return_exceptions=True)
        mixed = pb.AnalyzeSentimentResponse.FromString(await ask(good, bad)).sentiments
        after = pb.AnalyzeSentimentResponse.FromString(await ask(good)).sentiments[0].sentiment
        status = await parts.servicer._status.probe()
    assert isinstance(failed, InternalError)
    mate = pb.AnalyzeSentimentResponse.FromString(mate).sentiments[0].sentiment
    assert mixed[1].error.code == InternalError().status("").code
    for answer in (mate, mixed[0].sentiment, after):
        assert answer.score == pytest.approx(alone.score, abs=1e-5)
    assert {engine.name: engine.health for engine in status.engines}["sentiment"] == pb.HEALTH_HEALTHY


async def test_texts_that_hang_in_the_tokeniser_stop_sentiment_and_the_replica_says_so():
    server = Server(
        Config(
            device="cpu", sentiment_models="gated", drain_seconds=1,
            listen="127.0.0.1:0", metrics_listen="127.0.0.1:0", _env_file=None,
        )
    )  # fmt: skip
    parts, health, name = server.parts, server._health._server_status, "market.inference.engine.sentiment"
    names, ready = (name, "market.inference.engine.forecast"), health_pb2.HealthCheckResponse.SERVING
    slot = parts.catalog.default("sentiment")
    slot.load = Gated
    await server.start()
    try:
        await eventually_async(lambda: [*map(health.get, names)] == [ready] * len(names))
        track = parts.tracks["texts"].quick
        track._stuck_seconds = 0.05  # for the hang alone
        slot.model.gate.clear()
        with pytest.raises(ServiceUnavailableError, match="the texts engine is stuck"):
            await asyncio.wait_for(parts.servicer.sentiment(texts(1, 40), ReplicaCall()), 60)
        await eventually_async(lambda: health[name] == health_pb2.HealthCheckResponse.NOT_SERVING)
        status = {engine.name: engine for engine in (await parts.servicer._status.probe()).engines}
        assert status["sentiment"].health == pb.HEALTH_UNHEALTHY
        assert "the texts engine is stuck" in status["sentiment"].message
        assert status["forecast"].health == pb.HEALTH_HEALTHY
        track._stuck_seconds = 60.0
        slot.model.gate.set()
        await eventually_async(lambda: health[name] == ready)
        await parts.servicer.sentiment(texts(1, 40), ReplicaCall())
    finally:
        slot.model.gate.set()
        await server.stop()
