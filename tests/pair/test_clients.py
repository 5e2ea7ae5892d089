"""Clients of other languages and tools get the same answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from market_inference.contract.generated import inference_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]
NODE = ROOT / "tests" / "clients" / "node"
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
CLOSES = (100 + np.sin(np.arange(60.0))).tolist()


@pytest.fixture(scope="session", autouse=True)
def _node_packages():
    if not (NODE / "node_modules").is_dir():
        pytest.fail("the Node packages are missing: run `make test`, which installs them")


def expected(running) -> list[float]:
    request = pb.PredictRequest(series=[pb.Series(values=CLOSES)], horizon=2, quantiles=[0.1, 0.9])
    return list(running.stub.Predict(request, metadata=running.metadata, timeout=250).forecasts[0].forecast.quantiles)


def test_a_node_client_made_from_the_contract_gets_the_same_numbers(running, tmp_path):
    contract = tmp_path / "contract.binpb"
    subprocess.run([sys.executable, ROOT / "proto" / "generate.py", "--descriptors", contract], check=True, timeout=250)
    done = subprocess.run(
        ["node", NODE / "client.mjs", running.target, contract],
        input=json.dumps({"key": running.key, "closes": CLOSES}),
        capture_output=True, text=True, env=ENVIRONMENT, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["quantiles"] == expected(running)
    assert answer["error"] == {"code": 3, "field": "horizon"}


def test_buf_curl_finds_the_service_by_reflection(running):
    request = {"series": [{"values": CLOSES}], "horizon": 2, "quantiles": [0.1, 0.9]}
    done = subprocess.run(
        [
            NODE / "node_modules" / ".bin" / "buf", "curl", "--http2-prior-knowledge", "--protocol", "grpc",
            "-H", f"authorization: Bearer {running.key}", "-d", json.dumps(request),
            f"http://{running.target}/market.inference.v1.MarketInferenceService/Predict",
        ],
        capture_output=True, text=True, env=ENVIRONMENT, timeout=250, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["forecasts"][0]["forecast"]["quantiles"] == expected(running)
