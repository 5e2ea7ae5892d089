"""The pair as a target of the peer benchmark: through the gateway, with authentication and validation.

Link this file into the peer benchmark as targets/ours.py (see README.md in this folder). Settings come from the
environment: TRANSPORT (native or grpcio), MODEL (the forecaster).
"""

import os
import sys
from pathlib import Path

import kit

import models

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PORT = 9110
TRANSPORT = os.environ.get("TRANSPORT", "native")
# Like the peers' predict, vol_rw is a random walk with exponentially weighted volatility; vol_rw adds a coverage.
MODEL = os.environ.get("MODEL", "vol_rw")
STATE = kit.H / "work" / "ours"
CONFIG = f"gateway ({TRANSPORT}) and one inference process; key, validation, log line and metrics of every call"
SERVICE = "/market.inference.v1.MarketInferenceService/"
METHODS = {"predict": "Predict", "sentiment": "AnalyzeSentiment", "indicators": "ComputeIndicators"}
INDICATORS = (("RSI", 14), ("MACD", 0), ("BBANDS", 20), ("ATR", 14), ("SMA", 20), ("EMA", 20))

proc = kit.Proc(
    "ours",
    [ROOT / ".venv/bin/market-inference", "serve", "--port", PORT, "--metrics-port", 0, "--inference-metrics-port", 0],
    PORT,
    {"MARKET_INFERENCE_STATE_DIR": str(STATE), "MARKET_GATEWAY_TRANSPORT": TRANSPORT, "PYTHONPATH": ""},
)
stop, alive = proc.stop, proc.alive


def start(workload):
    """Start the pair. Only indicators are compared with the benchmark's answers, because the other models differ."""
    if workload == "indicators":
        globals()["decode"] = _indicators
    call.path = SERVICE + METHODS[workload]
    proc.start(workload)


class Call(kit.Grpc):
    """A unary call with the development key that the gateway creates at the first start."""

    def __init__(self):
        super().__init__(PORT, "")
        self.path = ""

    async def __call__(self, payload):
        if self.f is None:
            import grpc.aio

            metadata = (("authorization", f"Bearer {self.key()}"),)
            method = grpc.aio.insecure_channel(self.addr).unary_unary(self.path)
            self.f = lambda sent: method(sent, timeout=60, metadata=metadata)
        return await self.f(payload)

    def key(self):
        return (STATE / "development-key").read_text().strip()

    def h2_args(self, streams):
        form = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        key = ["-H", f"authorization: Bearer {self.key()}"]
        return ["-c1", f"-m{streams}", *form, *key, f"http://{self.addr}{self.path}"]


call = Call()


def encode(workload, sample):
    from market_inference.contract.generated import inference_pb2 as pb

    if workload == "sentiment":
        request = pb.AnalyzeSentimentRequest(texts=[sample])
    elif workload == "predict":
        series = [pb.Series(symbol="S", values=sample)]
        request = pb.PredictRequest(series=series, horizon=models.HORIZON, quantiles=models.Q, model=MODEL)
    else:
        columns = dict(zip(("open", "high", "low", "close", "volume"), sample, strict=True))
        specs = [pb.IndicatorSpec(name=n, params={"timeperiod": p} if p else {}) for n, p in INDICATORS]
        request = pb.ComputeIndicatorsRequest(panels=[pb.Panel(symbol="S", **columns)], indicators=specs)
    return request.SerializeToString()


def _indicators(_, raw):
    from market_inference.contract.generated import inference_pb2 as pb

    (panel,) = pb.ComputeIndicatorsResponse.FromString(raw).panels
    rows = [output.values for indicator in panel.indicators.indicators for output in indicator.outputs]
    return models.np.array(rows)
