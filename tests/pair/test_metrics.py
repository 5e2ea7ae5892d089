"""The phases of a request in the metrics of both services, with the trace id as exemplar."""

from http.client import HTTPConnection

import numpy as np

from market_inference.contract.generated import inference_pb2 as pb

TRACE = "5bf92f3577b34da6a3ce929d0e0e4736"
SERIES = "_request_phase_seconds"
PHASES = {
    "gateway": ("Predict", ("gateway", "queue", "form", "device", "encode", "transport")),
    "inference": ("predict", ("queue", "form", "device", "encode")),
}


def openmetrics(running, service):
    running.wait_recorded()
    connection = HTTPConnection(running.pair.metrics[service], timeout=60)
    connection.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    page = connection.getresponse().read().decode()
    connection.close()
    return page


def test_both_services_measure_the_phases_of_a_request_and_name_the_sampled_trace(running):
    def told(service, kind):
        method, phases = PHASES[service]
        name = f"market_{service}{SERIES}_{kind}"
        return {phase: running.metric(service, name, method=method, phase=phase) for phase in (*phases, "total")}

    before = {(service, kind): told(service, kind) for service in PHASES for kind in ("count", "sum")}
    series = [pb.Series(values=100 + np.cumsum(np.sin(np.arange(300.0))))]
    traceparent = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
    metadata = (*running.metadata, traceparent)
    running.stub.Predict(pb.PredictRequest(series=series, horizon=5), metadata=metadata, timeout=60)
    for service in PHASES:
        counted = told(service, "count")
        assert {phase: count - before[service, "count"][phase] for phase, count in counted.items()} == dict.fromkeys(
            counted, 1
        )
        spent = {phase: total - before[service, "sum"][phase] for phase, total in told(service, "sum").items()}
        assert all(seconds >= 0 for seconds in spent.values())
        assert spent["device"] > 0
        whole = spent.pop("total")
        assert sum(spent.values()) <= whole * 1.001
        assert f'# {{trace_id="{TRACE}"}}' in openmetrics(running, service)
