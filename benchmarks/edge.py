"""The cost of the HTTP edge: the same forecast over gRPC and over HTTP, alternating in one run.

    python -m benchmarks.edge            p50 of one caller, then calls a second with 32 callers
    python -m benchmarks.edge --quick

One caller waits for each answer before the next call. The callers of the second part share the machine with the
services, as in benchmarks/run.py.
"""

import argparse
import asyncio
import http.client
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import numpy as np

import market_inference

CALLERS = 32
CLOSES = (100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, 250)))).round(2).tolist()
BODY = json.dumps({"time_series": CLOSES, "horizon": 10}).encode()


def alone(pair: market_inference.Pair, rounds: int) -> tuple[float, float]:
    """Median seconds of a call of one caller: gRPC, HTTP."""
    host = pair.http.removeprefix("http://")
    headers = {"authorization": f"Bearer {pair.key}", "content-type": "application/json"}
    times: dict[str, list[float]] = {"grpc": [], "http": []}
    with pair.client() as client, closing(http.client.HTTPConnection(host, timeout=30)) as connection:

        def over_http() -> None:
            connection.request("POST", "/v1/predict", BODY, headers)
            answer = connection.getresponse()
            json.loads(answer.read())
            assert answer.status == 200

        for _ in range(rounds):
            for name, call in (("grpc", lambda: client.predict(CLOSES, horizon=10)), ("http", over_http)):
                for _ in range(20):
                    began = time.perf_counter()
                    call()
                    times[name].append(time.perf_counter() - began)
    return statistics.median(times["grpc"]), statistics.median(times["http"])


async def _load(call: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Calls a second of one caller's loop, summed over CALLERS."""
    done, until = 0, time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await call()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return done / (time.perf_counter() - began)


async def together(pair: market_inference.Pair, seconds: float) -> tuple[float, float]:
    """Calls a second with CALLERS callers: gRPC, HTTP."""
    host, port = pair.http.removeprefix("http://").split(":")
    head = (
        f"POST /v1/predict HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {pair.key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
    ).encode()
    free: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    for _ in range(CALLERS):
        free.put_nowait(await asyncio.open_connection(host, int(port)))

    async def over_http() -> None:
        reader, writer = await free.get()
        writer.write(head + BODY)
        found = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(found.partition(b"content-length: ")[2].partition(b"\r")[0]))
        free.put_nowait((reader, writer))

    async with pair.async_client() as client:
        grpc_rate = await _load(lambda: client.predict(CLOSES, horizon=10), seconds)
    http_rate = await _load(over_http, seconds)
    while not free.empty():
        free.get_nowait()[1].close()
    return grpc_rate, http_rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    rounds, seconds = (15, 2.0) if parser.parse_args().quick else (100, 10.0)
    with (
        tempfile.TemporaryDirectory() as folder,
        market_inference.Pair(state=Path(folder), http_listen="127.0.0.1:0") as pair,
    ):
        pair.wait_loaded()
        alone(pair, 3)
        grpc_p50, http_p50 = alone(pair, rounds)
        print(f"p50 of one caller: gRPC {grpc_p50 * 1e3:.2f} ms, HTTP {http_p50 * 1e3:.2f} ms, ", end="")
        print(f"difference {(http_p50 - grpc_p50) * 1e3:+.2f} ms")
        grpc_rate, http_rate = asyncio.run(together(pair, seconds))
        print(f"{CALLERS} callers: gRPC {grpc_rate:,.0f} calls/s, HTTP {http_rate:,.0f} calls/s (one edge process)")


if __name__ == "__main__":
    main()
