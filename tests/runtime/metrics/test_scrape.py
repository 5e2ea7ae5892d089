"""Prometheus gets the format that it asks for."""

from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.metrics.deferred import DeferredRegistry
from runtime.metrics.histogram import Histogram
from runtime.metrics.scrape import MetricsServer

# As Prometheus 3 asks.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def served():
    registry = CollectorRegistry()
    Histogram("time_seconds", "Time.", (), bounds=(1.0,), registry=registry).labels().observe(0.5, {"trace_id": "abc"})
    server = MetricsServer("127.0.0.1:0", registry)
    yield server.address
    server.close()


def scraped(address, path="/metrics", **headers):
    connection = HTTPConnection(address, timeout=60)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    page = answer.read().decode()
    connection.close()
    return answer.headers["Content-Type"], page


def test_openmetrics_with_exemplars_when_prometheus_asks_for_it(served):
    kind, page = scraped(served, Accept=PROMETHEUS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert '# {trace_id="abc"} 0.5' in page
    assert page.endswith("# EOF\n")


def test_plain_text_without_exemplars_otherwise(served):
    kind, page = scraped(served)
    assert kind.startswith("text/plain; version=0.0.4")
    assert "abc" not in page


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=looks_total"])
def test_what_is_counted_late_is_counted_before_the_page_is_made(path):
    registry = DeferredRegistry(lambda: looks.inc())
    looks = Counter("looks", "Looks.", registry=registry)
    server = MetricsServer("127.0.0.1:0", registry)
    pages = [scraped(server.address, path)[1] for _ in range(2)]
    server.close()
    assert ["looks_total 1.0\n" in pages[0], "looks_total 2.0\n" in pages[1]] == [True, True]
