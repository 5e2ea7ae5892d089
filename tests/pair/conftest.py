"""The real pair on real sockets: an inference service and a gateway as separate processes.

Owns the two shared pairs of this folder. `running` has the default settings; `observed` exports traces and allows
profiles. A test with other settings or with a kill starts processes of its own through `services`.
"""

import re
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

import market_inference
from benchmarks.services import Replica, Services
from market_inference.contract.generated import inference_pb2, inference_pb2_grpc
from tests.collector import Collector
from tests.eventually import eventually
from tests.patience import patient


@dataclass
class Running:
    """A running pair with a channel to the gateway."""

    pair: market_inference.Pair
    channel: grpc.Channel

    @property
    def target(self) -> str:
        return self.pair.target

    @property
    def replica(self) -> Replica:
        """The inference service, for a test that starts another gateway before it."""
        return Replica(self.pair.processes[0], self.pair._inference.listen, self.pair.metrics["inference"])

    @property
    def stub(self) -> Any:
        return inference_pb2_grpc.MarketInferenceServiceStub(self.channel)

    @property
    def key(self) -> str:
        return self.pair.key

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.key}"),)

    def metric(self, service: str, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, from the service's /metrics, after all earlier answers."""
        self.wait_recorded()
        with urllib.request.urlopen(f"http://{self.pair.metrics[service]}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        total = 0.0
        for line in text.splitlines():
            found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
            if found and found[1] == name and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items()):
                total += float(found[3])
        return total

    def log(self, service: str) -> str:
        """The log of the service, after the lines of all earlier answers."""
        self.wait_recorded()
        return self._log(service)

    def wait_recorded(self) -> None:
        """Return when the gateway has counted and logged all earlier answered calls.

        The gateway records a call after the answer, in the order of the answers. The log line of one more call
        therefore comes last. The inference service records a call before the answer.
        """
        request_id = f"recorded-{uuid.uuid4()}"
        metadata = (*self.metadata, ("x-request-id", request_id))
        self.stub.ListModels(inference_pb2.ListModelsRequest(), metadata=metadata, timeout=60)
        eventually(lambda: request_id in self._log("gateway"))

    def _log(self, service: str) -> str:
        return (self.pair.state / f"{service}.log").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def running(tmp_path_factory) -> Iterator[Running]:
    pair = market_inference.Pair(state=tmp_path_factory.mktemp("pair"))
    with patient():
        pair.start()
    with closing(pair):
        models = pair.wait_loaded()
        assert all(model.state == "ready" for model in models), models
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(pair.target, options=options) as channel:
            yield Running(pair, channel)


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with closing(Collector()) as collector:
        yield collector


@pytest.fixture(scope="session")
def observed(tmp_path_factory, collector) -> Iterator[market_inference.Pair]:
    """A pair with profiles and with traces of sampled callers only."""
    pair = market_inference.Pair(state=tmp_path_factory.mktemp("observed"))
    with patient(), pytest.MonkeyPatch.context() as environment:
        for part in ("GATEWAY", "INFERENCE"):
            environment.setenv(f"MARKET_{part}_OTLP_ENDPOINT", f"http://{collector.address}")
            environment.setenv(f"MARKET_{part}_TRACE_RATIO", "0")
            environment.setenv(f"MARKET_{part}_PROFILE_LISTEN", "127.0.0.1:0")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        pair.start()
    with closing(pair):
        pair.wait_loaded()
        yield pair


@pytest.fixture
def services(tmp_path) -> Iterator[Services]:
    """Processes for one test, with settings of the test's choice."""
    with Services(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def market() -> dict[str, np.ndarray]:
    """Bars of one instrument: columns [1200]."""
    dice = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(dice.normal(0, 0.01, 1200)))
    opened = np.r_[close[0], close[:-1]]
    high = np.maximum(opened, close) * (1 + dice.uniform(0, 0.005, 1200))
    low = np.minimum(opened, close) * (1 - dice.uniform(0, 0.005, 1200))
    volume = dice.integers(1, 10_000, 1200).astype(float)
    return {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
