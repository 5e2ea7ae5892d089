"""What each process holds, and what both tell about themselves."""

import subprocess
import sys
from pathlib import Path

from market_inference.contract.generated import inference_pb2 as pb


def test_the_gateways_process_has_neither_torch_nor_transformers_in_it(running):
    process = next(process for process in running.pair.processes if process.module == "gateway")
    maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
    assert "grpc" in maps
    assert "torch" not in maps


def test_the_client_imports_none_of_the_services(running):
    heavy = "torch transformers talib gateway inference models pandas polars matplotlib pydantic"
    code = f"import sys, market_inference; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_status_runs_every_engine(running):
    answer = running.stub.GetStatus(pb.GetStatusRequest(), metadata=running.metadata, timeout=20)
    assert answer.health == pb.HEALTH_HEALTHY
    (replica,) = answer.replicas
    assert {engine.name for engine in replica.engines} == {"forecast", "sentiment", "indicators"}
    assert all(engine.health == pb.HEALTH_HEALTHY and engine.probe_seconds > 0 for engine in replica.engines)
    assert replica.device.kind in {"cpu", "cuda"}


def test_the_request_id_of_the_caller_comes_back_and_one_is_made_where_there_is_none(running):
    request = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=1)
    given = (*running.metadata, ("x-request-id", "my-id"))
    answer, call = running.stub.Predict.with_call(request, metadata=given, timeout=20)
    assert answer.request_id == "my-id"
    assert dict(call.trailing_metadata())["x-request-id"] == "my-id"
    made, call = running.stub.Predict.with_call(request, metadata=running.metadata, timeout=20)
    assert len(made.request_id) == 36
    assert f'"request_id":"{made.request_id}"' in running.log("gateway")


def test_both_services_count_requests_errors_phases_and_batches(running):
    request = pb.PredictRequest(series=[pb.Series(values=[1.0, 2.0] * 20)], horizon=1)
    before = running.metric("gateway", "market_gateway_requests_total", method="Predict", code="OK")
    running.stub.Predict(request, metadata=running.metadata, timeout=20)
    assert running.metric("gateway", "market_gateway_requests_total", method="Predict", code="OK") == before + 1
    for phase in ("total", "queue", "device"):
        assert running.metric("gateway", "market_gateway_request_phase_seconds_count", method="Predict", phase=phase)
        assert running.metric(
            "inference", "market_inference_request_phase_seconds_count", method="predict", phase=phase
        )
    assert running.metric("inference", "market_inference_batch_items_count", engine="forecast")
