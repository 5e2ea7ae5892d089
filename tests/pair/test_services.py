"""A pair with default settings: imports, status, request ids, metrics, and the client of the pair."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from market_inference.contract.generated import inference_pb2 as pb


def test_the_process_of_the_gateway_loads_no_torch(running):
    process = next(process for process in running.pair.processes if process.module == "gateway")
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert "grpc" in maps
    assert "torch" not in maps


def test_the_client_imports_neither_services_nor_model_libraries(running):
    heavy = "torch transformers talib gateway inference models pandas polars matplotlib pydantic"
    code = f"import sys, market_inference; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=250).stdout
        == "[]\n"
    )


def test_status_runs_every_engine(running):
    answer = running.stub.GetStatus(pb.GetStatusRequest(), metadata=running.metadata, timeout=60)
    assert answer.health == pb.HEALTH_HEALTHY
    (replica,) = answer.replicas
    assert {engine.name for engine in replica.engines} == {"forecast", "sentiment", "indicators"}
    assert all(engine.health == pb.HEALTH_HEALTHY and engine.probe_seconds > 0 for engine in replica.engines)
    assert replica.device.kind in {"cpu", "cuda"}


def test_the_request_id_of_the_caller_is_returned_and_a_missing_one_is_made(running):
    request = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=1)
    given = (*running.metadata, ("x-request-id", "my-id"))
    answer, call = running.stub.Predict.with_call(request, metadata=given, timeout=60)
    assert answer.request_id == "my-id"
    assert dict(call.trailing_metadata())["x-request-id"] == "my-id"
    made, call = running.stub.Predict.with_call(request, metadata=running.metadata, timeout=60)
    assert len(made.request_id) == 36
    assert f'"request_id":"{made.request_id}"' in running.log("gateway")


def test_both_services_count_requests_errors_phases_and_batches(running):
    request = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=1)
    before = running.metric("gateway", "market_gateway_requests_total", method="Predict", code="OK")
    running.stub.Predict(request, metadata=running.metadata, timeout=60)
    assert running.metric("gateway", "market_gateway_requests_total", method="Predict", code="OK") == before + 1
    for phase in ("total", "queue", "device"):
        assert running.metric("gateway", "market_gateway_request_phase_seconds_count", method="Predict", phase=phase)
        assert running.metric(
            "inference", "market_inference_request_phase_seconds_count", method="predict", phase=phase
        )
    assert running.metric("inference", "market_inference_batch_items_count", engine="forecast")


def test_the_client_of_the_pair_gets_answers(running):
    models = running.pair.wait_loaded()
    assert {(model.engine, model.state) for model in models} == {
        (engine, "ready") for engine in ("forecast", "sentiment", "indicators")
    }
    closes = np.linspace(100, 130, 60)
    with running.pair.client() as client:
        assert client.status().health == "healthy"
        forecast = client.predict(closes, horizon=5)
        values = client.indicators({"close": closes}, ["SMA:timeperiod=2"], last=1)
        sentiment = client.sentiment("Profit rose sharply")
    assert forecast.quantiles.shape == (5, 9)
    assert (np.diff(forecast.quantiles, axis=1) >= 0).all()
    assert values["SMA"] == pytest.approx([closes[-2:].mean()])
    assert sentiment.negative + sentiment.neutral + sentiment.positive == pytest.approx(1, abs=1e-5)


def test_only_its_owner_reads_the_development_key(running):
    assert running.pair.key_file.stat().st_mode & 0o077 == 0


def test_profiles_are_off_by_default(running):
    assert "profiles may be taken" not in running.log("gateway") + running.log("inference")
