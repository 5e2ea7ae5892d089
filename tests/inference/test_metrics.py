"""The inference service's metrics count the events of real requests."""

from types import SimpleNamespace

import pytest
from prometheus_client.openmetrics.exposition import generate_latest

from inference.batching.job import Job
from inference.build import build
from inference.calls.call import ReplicaCall
from inference.config import Config
from inference.loading.catalog import Slot
from inference.metrics import LoadedModels, Metrics, SessionMetrics

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(name, labels)


def test_the_metric_of_a_loaded_model_has_its_present_version(metrics):
    first = Slot("forecast", "auto", lambda: None, model=SimpleNamespace(version="1"))
    second = Slot("sentiment", "minilm", lambda: None)
    metrics.registry.register(LoadedModels([first, second]))

    def told():
        [family] = [f for f in metrics.registry.collect() if f.name == "market_inference_model_info"]
        return [tuple(sample.labels.values()) for sample in family.samples]

    assert told() == [("forecast", "auto", "1")]
    first.model, second.model = SimpleNamespace(version="2"), SimpleNamespace(version="7")
    assert told() == [("forecast", "auto", "2"), ("sentiment", "minilm", "7")]


def test_the_phases_of_a_request_are_observed_with_its_sampled_trace(metrics):
    traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
    call = ReplicaCall(traceparent=traceparent, batch_items=2, queue_seconds=0.1, form_seconds=0.2)
    call.run_seconds, call.encode_seconds = 0.3, 0.4
    metrics.answered("predict", "OK", call, 1.5)
    name = "market_inference_request_phase_seconds_sum"
    expected = {"queue": 0.1, "form": 0.2, "device": 0.3, "encode": 0.4, "total": 1.5}
    assert {phase: value(metrics, name, method="predict", phase=phase) for phase in expected} == expected
    assert generate_latest(metrics.registry).decode().count(f'# {{trace_id="{TRACE}"}} 1.5') == 1


def test_of_parallel_jobs_a_call_counts_the_longest_phases_and_the_sum_of_device_seconds():
    call = ReplicaCall()
    for job in (
        Job(None, [], None, enqueued=1.0, started=3.0, device_began=3.5, device_ended=4.0, device_seconds=0.1),
        Job(None, [], None, enqueued=1.0, started=2.0, device_began=2.1, device_ended=9.0, device_seconds=0.2),
    ):
        call.add_timing(job)
    phases = (call.queue_seconds, call.form_seconds, call.run_seconds, call.device_seconds)
    assert phases == pytest.approx((2.0, 0.5, 6.9, 0.3))


def test_a_job_that_never_ran_adds_nothing():
    call = ReplicaCall()
    call.add_timing(Job(None, [], None, enqueued=5.0))
    assert (call.queue_seconds, call.form_seconds, call.run_seconds) == (0.0, 0.0, 0.0)


def test_a_model_without_hits_has_the_series_of_hits(metrics):
    for client in ("desk", "desk", "other"):
        SessionMetrics(metrics).checked("auto", "1.1", client, hit=False)
    for count, clients in ((2, "6"), (1, "0")):
        labels = {"model": "auto", "version": "1.1", "clients": clients}
        assert value(metrics, "market_inference_watch_interval_checks_total", **labels) == count
        assert value(metrics, "market_inference_watch_interval_hits_total", **labels) == 0


async def test_the_service_tells_its_limits_and_its_version_and_of_no_gpu_on_a_cpu():
    parts = build(Config(device="cpu", max_queued_seconds=7.0))
    try:
        for engine in ("forecast", "sentiment", "indicators"):
            assert value(parts.metrics, "market_inference_queue_limit_seconds", engine=engine) == 7.0
        names = {family.name for family in parts.metrics.registry.collect()}
        assert {"market_inference_build_info", "process_cpu_seconds"} <= names
        assert not [name for name in names if "device" in name]
    finally:
        parts.close()
