"""The board of `top` for metrics pages written by the test."""

import io

import pytest
from rich.console import Console

from market_inference.cli.top.board import Coverage, Device, Traffic, board
from market_inference.cli.top.interval import Interval
from market_inference.cli.top.look import parse
from market_inference.cli.top.services import Seen
from market_inference.cli.top.view import View


def seen(kind, address, before, after):
    first, second = parse(before, 0.0), parse(after, 2.0)
    return Seen(kind, address, second, Interval(first, second))


def drawn(shown):
    out = Console(width=200, file=io.StringIO())
    out.print(View(shown))
    return out.file.getvalue()


def gateway(ready, away):
    return (
        f'market_gateway_ready_replicas {ready}\nmarket_gateway_replicas{{state="away"}} {away}\n'
        f'market_gateway_replicas{{state="ready"}} {ready}\nmarket_gateway_open_streams{{method="Stream"}} 2\n'
    )


def test_of_the_replicas_the_gateway_is_told_that_sees_worst():
    found = board([seen("gateway", "a", "", gateway(3, 0)), seen("gateway", "b", "", gateway(2, 1))])
    assert found.now == {"open Stream calls": 4.0, "replicas ready": 2.0, "replicas away": 1.0}


def test_a_gpu_is_shown_with_what_it_tells():
    page = "market_inference_device_memory_total_bytes 4194304\nmarket_inference_device_memory_reserved_bytes 1048576\n"
    found = board([seen("inference", "a", "", page), seen("inference", "b", "", "")])
    assert found.devices == [Device("a", 1048576.0, None, 4194304.0, None)]
    assert "4.0 MiB" in drawn(found)


def test_coverage_is_the_intervals_own():
    checks = "market_inference_watch_interval_checks_total"
    hits = "market_inference_watch_interval_hits_total"
    heads = f"# TYPE {checks.removesuffix('_total')} counter\n# TYPE {hits.removesuffix('_total')} counter\n"
    before = f'{heads}{checks}{{model="m"}} 100\n{hits}{{model="m"}} 100\n'
    after = f'{heads}{checks}{{model="m"}} 120\n{hits}{{model="m"}} 115\n'
    found = board([seen("inference", "a", before, after)])
    assert found.coverage == [Coverage("m", 10.0, pytest.approx(0.75))]
    assert "75.0 %" in drawn(found)


def test_padding_is_no_work():
    units, padding = "market_inference_batch_units_total", "market_inference_batch_padding_units_total"
    page = (
        'market_inference_queued_items{{engine="e"}} 7\n'
        + units
        + '{{engine="e"}} {}\n'
        + padding
        + '{{engine="e"}} {}\n'
    )
    one = seen("inference", "a", page.format(1000, 0), page.format(2000, 250))
    [engine] = board([one, one]).engines
    assert (engine.units, engine.padding, engine.queued_items) == (750.0, 0.25, 14.0)
    assert engine.busy is None


def test_a_replica_whose_model_is_not_loaded_is_counted():
    page = 'market_inference_model_ready{{engine="e",model="m"}} {}\n'
    found = board([seen("inference", "a", "", page.format(1)), seen("inference", "b", "", page.format(0))])
    assert [(one.engine, one.model, one.ready, one.of) for one in found.models] == [("e", "m", 1.0, 2)]
    assert "1 of 2" in drawn(found)


def test_routes_of_the_edge_are_shown_with_failures_and_times():
    page = (
        "# TYPE market_edge_requests counter\n"
        'market_edge_requests_total{{route="/v1/predict",status="200"}} {0}\n'
        'market_edge_requests_total{{route="/v1/predict",status="503"}} {1}\n'
        'market_edge_request_seconds_bucket{{route="/v1/predict",le="0.01"}} {0}\n'
        'market_edge_request_seconds_bucket{{route="/v1/predict",le="+Inf"}} {0}\n'
        "market_edge_open_watches 3\n"
    )
    found = board([seen("edge", "a", page.format(0, 0), page.format(6, 2))])
    assert found.http == [Traffic("/v1/predict", 4.0, {"503": 1.0})]
    [latency] = found.latencies
    assert (latency.kind, latency.method, latency.quantiles[0].value) == ("edge", "/v1/predict", pytest.approx(0.005))
    assert found.now == {"sessions (edge)": 3.0}
    assert "503 1.0" in drawn(found)
