"""The dashboards and an alert, with a real Prometheus and the real services under load."""

import json
import shutil

import grpc
import pytest

from market_inference.contract.generated import inference_pb2
from market_inference.contract.generated.inference_pb2_grpc import MarketInferenceServiceStub
from observability import observe
from observability.generate import HERE
from observability.lab import Lab, until
from tests.eventually import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: apt install prometheus)"
    ),
]
# Panels without data here: admission refuses nothing under this load, no watcher fails, no model has a shadow, and a
# label without events has no series. A CPU has no device memory, and no driver that reports utilisation.
NOTHING_TO_SHOW = {
    "limits: Refused at admission",
    "overview: Watchers that fail",
    "overview: Answers in the shadow",
    "batching: Device memory",
    "batching: Device in use",
}
# The lab runs the pair and an edge, without the training plane.
OF_THE_TRAINING_PLANE = "training"

ROUNDS = 16
TRACE = "6bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        observe.wait_serving(lab)
        observe.load(lab, rounds=ROUNDS)
        yield lab


def panels():
    for file in sorted((HERE / "dashboards").glob("*.json")):
        if file.stem == OF_THE_TRAINING_PLANE:
            continue
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


def test_no_panel_is_empty_under_load(lab):
    """All panels in one test: they get their data from the same few scrapes."""

    def empty():
        shown = ((name, expr.replace("$__rate_interval", "5m").replace("$namespace", ".*")) for name, expr in panels())
        return {name for name, expr in shown if not lab.prometheus.query(expr)}

    eventually(empty, lambda names: names <= NOTHING_TO_SHOW)


def test_sessions_and_the_coverage_of_forecasts_are_counted(lab):
    def told(name):
        return lab.prometheus.value(f"sum(market_inference_{name})")

    # The first bar of a session has no earlier forecast.
    until(lambda: told("watch_interval_checks_total") == ROUNDS * 4, 60.0, "every interval to be checked")
    until(lambda: told("session_bars_total") == ROUNDS * (5 + 2), 60.0, "every bar to be counted")
    assert 0 <= told("watch_interval_hits_total") <= ROUNDS * 4
    # A round has a session over gRPC, and a shorter one without a forecast over HTTP.
    until(lambda: told('sessions_ended_total{reason="CLOSED"}') == ROUNDS * 2, 60.0, "every session to be closed")
    assert told("sessions_opened_total") == ROUNDS * 2


def test_exemplars_of_both_services_link_a_sampled_request_to_the_trace(lab):
    parent = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
    credential = ("x-api-key", lab.key)
    with grpc.insecure_channel(lab.target) as channel:
        stub = MarketInferenceServiceStub(channel)
        stub.ListModels(inference_pb2.ListModelsRequest(), metadata=(parent, credential), timeout=60)
    for service in ("gateway", "inference"):
        series = f"market_{service}_request_phase_seconds_bucket"
        until(lambda series=series: TRACE in lab.prometheus.traces(series), 60.0, f"the trace at the {service}")


def test_the_alert_for_a_killed_replica_fires_and_resolves(lab):
    lab.kill(0)
    until(lambda: lab.prometheus.firing("MarketReplicaDown"), 60.0, "the alert to fire")
    lab.revive(0)
    until(lambda: not lab.prometheus.firing("MarketReplicaDown"), 60.0, "the alert to resolve")
