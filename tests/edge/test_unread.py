"""Answers that clients do not read: memory and place stay counted, other clients' requests go on, and the end is typed.

The gateway here is a real gRPC server with large answers, so that the sizes are certain.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
import pytest

from edge.server import Server
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceServicer
from market_inference.contract.json_form import encode
from tests.edge.servers import Start, edges, gateway
from tests.edge.test_admission import gauge
from tests.eventually import eventually_async

SECONDS = 60.0
BUDGET = 32 << 20
CSV, ARROW = "text/csv", "application/vnd.apache.arrow.stream"
SMALL = pb.AnalyzeSentimentResponse(sentiments=[pb.TextSentiment(sentiment=pb.Sentiment(score=0.5))])


def outputs(count: int, length: int = 10_000) -> pb.ComputeIndicatorsResponse:
    values = [0.1 + at for at in range(length)]
    found = [pb.Indicator(name=f"I{at}", outputs=[pb.IndicatorOutput(values=values)]) for at in range(count)]
    return pb.ComputeIndicatorsResponse(
        panels=[pb.PanelIndicators(symbol="A", indicators=pb.IndicatorSet(indicators=found))]
    )


def forecasts(count: int, horizon: int) -> pb.PredictResponse:
    levels = [0.1, 0.25, 0.5, 0.75, 0.9]
    one = pb.SeriesForecast(forecast=pb.Forecast(point=[1 / 3] * horizon, quantiles=[1 / 3] * horizon * len(levels)))
    return pb.PredictResponse(forecasts=[one] * count, quantile_levels=levels)


LARGE = outputs(150)
"""12 MB, 27 MB as JSON: more than the sockets of a connection hold."""


class Gateway(MarketInferenceServiceServicer):
    """Accepts every key."""

    large = LARGE

    async def ListModels(self, request, context):  # noqa: N802 -- the name in the contract
        return pb.ListModelsResponse()

    async def ComputeIndicators(self, request, context):  # noqa: N802
        return self.large

    async def Predict(self, request, context):  # noqa: N802
        return forecasts(256, 365)

    async def AnalyzeSentiment(self, request, context):  # noqa: N802
        return SMALL


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    async with (
        gateway(Gateway()) as address,
        edges(gateway=address, max_bytes_in_flight=BUDGET, drain_seconds=0) as start,
    ):
        yield start


class Client:
    """A connection that reads when the test does."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def ask(self, path: str, key: str = "k", accept: str = "*/*", version: str = "1.1") -> int:
        """Send a request; the status of the answer, whose body is not read."""
        host, _, port = self.server.address.rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port), limit=1 << 10)
        body = BODIES[path]
        self.writer.write(
            f"POST {path} HTTP/{version}\r\nhost: edge\r\nauthorization: Bearer {key}\r\naccept: {accept}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        async with asyncio.timeout(SECONDS):
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        return int(self.head.split()[1])

    async def read(self) -> bytes:
        """The body."""
        async with asyncio.timeout(SECONDS):
            if b"transfer-encoding: chunked" not in self.head:
                [line] = [line for line in self.head.split(b"\r\n") if line.startswith(b"content-length:")]
                return await self.reader.readexactly(int(line[15:]))
            body = bytearray()
            while size := int(await self.reader.readline(), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return bytes(body)

    async def aclose(self) -> None:
        self.writer.close()


BODIES = {
    "/v1/indicators": b'{"ohlcv": {"close": [1, 2, 3]}, "indicators": ["SMA"]}',
    "/v1/predict": b'{"time_series": [1, 2, 3], "horizon": 1}',
    "/v1/sentiment": b'{"text": "shares rise"}',
    "/v1/timeseries/forecast": json.dumps(
        {
            "model": "",
            "inputs": [
                {"type": "univariate_time_series", "name": "a", "series": [1, 2, 3], "frequency": "D"},
            ]
            * 256,
            "options": {"horizon": 1},
        }
    ).encode(),
}


async def given_back(server: Server) -> bool:
    await eventually_async(lambda: gauge(server, "in_flight_requests") == 0)
    return gauge(server, "in_flight_answer_bytes") == 0 and not server._admission.answers.shares


async def test_an_unread_answer_keeps_its_place_and_its_memory_until_it_is_read(start):
    server = await start()
    async with aclosing(Client(server)) as client:
        assert await client.ask("/v1/indicators") == 200
        assert gauge(server, "in_flight_requests") == 1
        assert LARGE.ByteSize() < gauge(server, "in_flight_answer_bytes") < LARGE.ByteSize() + (2 << 20)
        assert gauge(server, "in_flight_bytes") == 0, "the body is in memory no longer"
        assert await client.read() == orjson.dumps(encode.to_json(LARGE, {}))
        assert await given_back(server)


async def test_unread_answers_of_a_client_leave_another_its_answers(start):
    """The budget is 32 MiB, and half of it is one client's: one answer."""
    server = await start()
    async with aclosing(Client(server)) as first, aclosing(Client(server)) as second, aclosing(Client(server)) as other:
        assert await first.ask("/v1/indicators") == 200
        assert await second.ask("/v1/indicators") == 429
        refused = json.loads(await second.read())
        assert refused["reason"] == "OVERLOADED"
        assert refused["detail"] == f"this client has too many bytes of answers in work (max {BUDGET // 2})"
        assert refused["retry_after"] == 1
        assert await other.ask("/v1/indicators", "other") == 200
        async with aclosing(Client(server)) as third, aclosing(Client(server)) as small:
            assert await third.ask("/v1/indicators", "third") == 429
            assert b"this edge has too many bytes of answers in work" in await third.read()
            assert await small.ask("/v1/sentiment", "third") == 200
            assert json.loads(await small.read()) == orjson.loads(orjson.dumps(encode.to_json(SMALL, {})))
        assert json.loads(await other.read())["panels"][0]["symbol"] == "A"
        await eventually_async(lambda: gauge(server, "in_flight_requests") == 1)
        async with aclosing(Client(server)) as third:
            assert await third.ask("/v1/indicators", "third") == 200, "the other client has read its answer"


async def test_an_answer_above_the_limit_passes_while_no_other_large_one_is_in_memory(start):
    """A refusal would be repeated for ever."""
    server = await start(max_bytes_in_flight=1 << 20)
    async with aclosing(Client(server)) as client:
        assert await client.ask("/v1/indicators") == 200
        assert len(json.loads(await client.read())["panels"][0]["indicators"]["indicators"]) == 150
    assert await given_back(server)


@pytest.mark.parametrize("accept", ["application/json", CSV, ARROW])
async def test_a_departed_client_gives_place_and_memory_back(start, accept):
    server = await start(max_bytes_in_flight=256 << 20)
    async with aclosing(Client(server)) as client:
        assert await client.ask("/v1/indicators", accept=accept) == 200
        assert gauge(server, "in_flight_requests") == 1
        assert gauge(server, "in_flight_answer_bytes") > LARGE.ByteSize() / 2
        client.writer.transport.abort()
        assert await given_back(server)


@pytest.mark.parametrize("path", ["/v1/indicators", "/v1/timeseries/forecast"])
async def test_a_client_that_takes_nothing_loses_the_connection(start, path):
    server = await start(reader_seconds=0.5)
    async with aclosing(Client(server)) as client:
        assert await client.ask(path) == 200
        assert await given_back(server)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.read()
    counted = {"route": path, "reason": "READER_STALLED"}
    registry = server._metrics.registry
    await eventually_async(lambda: registry.get_sample_value("market_edge_refusals_total", counted) == 1)


async def test_large_tables_are_whole(start):
    server = await start(max_bytes_in_flight=256 << 20)
    async with aclosing(Client(server)) as client:
        assert await client.ask("/v1/indicators", accept=CSV) == 200
        lines = (await client.read()).decode().split("\r\n")
        assert lines[0].split(",")[:3] == ["symbol", "I0", "I1"]
        assert lines[1:] == [",".join(["A"] + [str(0.1 + at)] * 150) for at in range(10_000)] + [""]


async def test_http_1_0_gets_an_answer_of_known_length(start):
    server = await start(max_bytes_in_flight=256 << 20)
    async with aclosing(Client(server)) as client:
        assert await client.ask("/v1/indicators", version="1.0") == 200
        assert b"chunked" not in client.head
        assert gauge(server, "in_flight_answer_bytes") == 16 * LARGE.ByteSize()
        assert await client.read() == orjson.dumps(encode.to_json(LARGE, {}))
        assert await given_back(server)
