"""`python -m observability.observe`: the pair under load, observed by Prometheus, and an alert that fires and resolves.

Owns the demonstration: targets up, the table of objectives, one replica killed and restarted. Takes one to two minutes.
"""

import http.client
import json
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from market_inference import Client, ForecastEvery
from market_inference.errors import MarketInferenceError
from observability.lab import Lab, PrometheusMissingError, until

OBJECTIVES = (
    ("availability", 0.999, "namespace:market_gateway_error_ratio:rate5m"),
    ("answered within 1 s", 0.99, "namespace:market_gateway_slow_ratio:rate5m"),
)
PATIENCE = 60.0


def load(lab: Lab, rounds: int = 40, callers: int = 8) -> None:
    """Call every method from several callers, with valid and invalid requests and live sessions, and wait for all."""
    closes = 100 + np.cumsum(np.sin(np.arange(300.0)))
    bars = {"open": closes, "high": closes + 1, "low": closes - 1, "close": closes, "volume": closes}
    texts = [f"Profit rose sharply in quarter {number}" for number in range(8)]

    def one_round(number: int) -> None:
        with lab.client() as client:
            client.predict(closes, horizon=5)
            client.sentiment(texts)
            client.indicators(bars, ["SMA", "RSI"], last=1)
            client.status()
            live(client, bars)
            over_http(lab, closes.tolist())
            with suppress(MarketInferenceError):
                client.sentiment("hello", model="none-of-this-name")
        with suppress(MarketInferenceError), lab.client(api_key="mi_0_wrong") as stranger:
            stranger.models()

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(one_round, range(rounds)))


def live(client: Client, bars: Mapping[str, NDArray[np.float64]], count: int = 5) -> None:
    """One session over the last `count` bars; each bar is compared with the previous forecast."""
    history = {name: column[:-count] for name, column in bars.items()}
    with client.watch("X", history, indicators=["RSI"], forecast=ForecastEvery(horizon=3)) as session:
        for at in range(-count, 0):
            session.append({name: float(column[at]) for name, column in bars.items()})
            next(session)


def over_http(lab: Lab, closes: list[float]) -> None:
    """A forecast, a live session with two bars and a mistake, through the HTTP edge."""
    for path, body in (
        ("/v1/predict", {"time_series": closes, "horizon": 5}),
        ("/v1/watch", {"symbol": "X", "ohlcv": {"close": closes}, "indicators": ["RSI"], "bars": closes[-2:]}),
        ("/v1/predict", {"time_series": closes, "horizon": 0}),
    ):
        with closing(http.client.HTTPConnection(lab.http, timeout=60)) as connection:
            connection.request("POST", path, json.dumps(body), {"authorization": f"Bearer {lab.key}"})
            connection.getresponse().read()


def wait_serving(lab: Lab) -> None:
    """Wait until Prometheus has scraped every replica as ready and every default model as loaded."""
    until(lambda: lab.prometheus.value("min(market_gateway_ready_replicas)") == 2, 120.0, "two ready replicas")
    loaded = "count(market_inference_model_ready == 1)"
    until(lambda: lab.prometheus.value(loaded) == 6, 180.0, "three models on each replica")


def objectives(lab: Lab) -> Table:
    table = Table("objective", "target", "last 5 minutes", "burn rate", title="Service level objectives")
    for name, target, bad in OBJECTIVES:
        ratio = lab.prometheus.value(bad)
        table.add_row(name, f"{target:.1%}", f"{1 - ratio:.3%}", f"{ratio / (1 - target):.2f}")
    return table


def main() -> int:
    """Run the demonstration; returns 0 on success."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="market-observe-") as folder, Lab(Path(folder)) as lab:
            console.print("started a gateway, two inference replicas, an HTTP edge and Prometheus")
            wait_serving(lab)
            for sample in lab.prometheus.query("up"):
                console.print(
                    f"target {sample['metric']['job']} {sample['metric']['instance']} up {sample['value'][1]}"
                )
            load(lab)
            until(lambda: lab.prometheus.query(OBJECTIVES[1][2]), PATIENCE, "figures of the objectives")
            console.print(objectives(lab))
            lab.kill(0)
            until(lambda: lab.prometheus.firing("MarketReplicaDown"), PATIENCE, "MarketReplicaDown to fire")
            console.print("killed a replica: MarketReplicaDown fires")
            lab.revive(0)
            until(lambda: not lab.prometheus.firing("MarketReplicaDown"), PATIENCE, "MarketReplicaDown to resolve")
            console.print("started it again: MarketReplicaDown is resolved")
    except (PrometheusMissingError, TimeoutError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
