"""The dashboards and an alert against a real Prometheus that scrapes the real services under load."""

import json
import shutil

import pytest

from observability import observe
from observability.generate import HERE
from observability.lab import Lab, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: apt install prometheus)"
    ),
]
# Nothing is refused at admission under this load, and a label that never occurred has no series. A CPU has no memory of
# its own, and no driver that tells how busy it is.
NOTHING_TO_SHOW = {"limits: Refused at admission", "batching: Device memory", "batching: Device in use"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with Lab(tmp_path_factory.mktemp("lab")) as lab:
        observe.wait_serving(lab)
        observe.load(lab, rounds=16)
        yield lab


def panels():
    for file in sorted((HERE / "dashboards").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]


def test_no_panel_is_empty_under_load(lab):
    """All of them after one load, so that the services start once."""
    empty = set()
    for name, expr in panels():
        asked = expr.replace("$__rate_interval", "5m").replace("$namespace", ".*")
        try:
            until(lambda asked=asked: lab.prometheus.query(asked), 10.0, name)
        except TimeoutError:
            empty.add(name)
    assert empty <= NOTHING_TO_SHOW


def test_the_alert_for_a_killed_replica_fires_and_resolves(lab):
    lab.kill(0)
    until(lambda: lab.prometheus.firing("MarketReplicaDown"), 60.0, "the alert to fire")
    lab.revive(0)
    until(lambda: not lab.prometheus.firing("MarketReplicaDown"), 60.0, "the alert to resolve")
