"""JSON calls through edge, gateway and inference service, beside the same calls of the Python client."""

import json
import math

import numpy as np
import pytest

from market_inference.errors import InvalidRequestError
from tests.eventually import eventually

CLOSES = [100 + 3 * math.sin(at / 3) + at % 5 for at in range(120)]


def test_a_forecast_equals_the_clients(edge, pair):
    answer = edge.post("/v1/predict", {"symbol": "AAPL", "time_series": CLOSES, "horizon": 7, "quantiles": [0.1, 0.9]})
    assert answer.status == 200, answer.raw
    assert answer.headers["content-type"] == "application/json"
    found = answer.json
    with pair.client() as client:
        same = client.predict(CLOSES, horizon=7, quantiles=[0.1, 0.9])
    np.testing.assert_allclose(found["forecasts"][0]["forecast"]["point"], same.point, rtol=1e-12)
    np.testing.assert_allclose(found["forecasts"][0]["forecast"]["quantiles"], np.ravel(same.quantiles), rtol=1e-12)
    assert found["forecasts"][0]["symbol"] == "AAPL"
    assert found["quantile_levels"] == [0.1, 0.9]


def test_sentiment_and_indicators_answer_in_the_short_forms(edge):
    mood = edge.post("/v1/sentiment", {"text": "Profit rose sharply"}).json
    assert mood["sentiments"][0]["sentiment"]["label"] == "positive"
    found = edge.post("/v1/indicators", {"ohlcv": {"close": CLOSES}, "indicators": ["RSI"], "symbol": "X"}).json
    values = found["panels"][0]["indicators"]["indicators"][0]["outputs"][0]["values"]
    assert values[0] is None  # warm-up
    assert 0 < values[-1] < 100


@pytest.mark.parametrize("plain", [{"values": CLOSES}, {"series": CLOSES}, {"series": [CLOSES]}])
def test_a_series_may_be_written_plainly(edge, plain):
    expected = edge.post("/v1/predict", {"time_series": CLOSES, "horizon": 3}).json["forecasts"]
    answer = edge.post("/v1/predict", plain | {"horizon": 3})
    assert answer.status == 200, answer.raw
    assert answer.json["forecasts"] == expected


def test_columns_may_stand_beside_the_indicators(edge):
    expected = edge.post("/v1/indicators", {"ohlcv": {"close": CLOSES}, "indicators": ["RSI"]}).json["panels"]
    assert edge.post("/v1/indicators", {"close": CLOSES, "indicators": ["RSI"]}).json["panels"] == expected


def test_a_part_of_analyze_fails_alone(edge):
    found = edge.post(
        "/v1/analyze",
        {"sentiment": {"text": "Profit rose"}, "predict": {"time_series": CLOSES, "horizon": 3, "model": "none"}},
    ).json
    assert found["sentiment"]["sentiments"][0]["sentiment"]["label"]
    assert found["predict_error_type"] == "validation"


@pytest.mark.parametrize(
    ("path", "body", "status", "reason", "field", "limit"),
    [
        ("/v1/predict", {"time_series": [1, 2], "horizon": 5}, 400, "INVALID_REQUEST", "time_series", 30),
        ("/v1/predict", {"series": [1, 2], "horizon": 5}, 400, "INVALID_REQUEST", "series", 30),
        ("/v1/indicators", {"close": [], "indicators": ["RSI"]}, 400, "INVALID_REQUEST", "close", 1),
        ("/v1/predict", {"time_series": CLOSES, "horizon": 366}, 400, "INVALID_REQUEST", "horizon", 365),
        ("/v1/predict", {"time_series": CLOSES, "horizon": 3, "model": "none"}, 404, "UNKNOWN_MODEL", None, None),
        ("/v1/sentiment", {"text": ""}, 400, "INVALID_REQUEST", "text", None),
        ("/v1/sentiment", {"texts": ["x"] * 101}, 400, "INVALID_REQUEST", "texts", 100),
        ("/v1/indicators", {"ohlcv": {"close": [1]}, "indicators": []}, 400, "INVALID_REQUEST", "indicators", 1),
        ("/v1/sentiment", {"txt": "x"}, 400, "INVALID_REQUEST", "txt", None),
        ("/v1/sentiment", {"text": "x", "timeout": 0}, 400, "INVALID_REQUEST", "timeout", None),
        ("/v1/sentiment", {"text": "x", "priority": "high"}, 400, "INVALID_REQUEST", "priority", None),
        ("/v1/sentiment", b"[1", 400, "INVALID_REQUEST", "", None),
        ("/v1/nothing", {}, 404, "NO_ROUTE", None, None),
    ],
)
def test_a_failure_is_a_problem_document_with_reason_field_and_limit(edge, path, body, status, reason, field, limit):
    answer = edge.post(path, body)
    assert answer.status == status, answer.raw
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json
    assert found["status"] == status
    assert found["reason"] == reason
    assert found["request_id"] == answer.headers["x-request-id"]
    assert found["type"] == f"urn:market-inference:{reason.lower().replace('_', '-')}"
    if field is not None:
        [first, *_] = found["errors"]
        assert first["field"] == field
        assert first.get("limit") == limit


def test_the_same_mistake_has_the_same_reason_and_text_over_grpc(edge, pair):
    found = edge.post("/v1/predict", {"time_series": CLOSES, "horizon": 400}).json
    with pair.client() as client, pytest.raises(InvalidRequestError) as caught:
        client.predict(CLOSES, horizon=400)
    [(field, description)] = caught.value.violations
    assert (found["reason"], found["code"]) == (caught.value.reason, caught.value.code)
    assert (found["errors"][0]["field"], found["errors"][0]["description"]) == (field, description)


def test_a_method_that_the_route_lacks_is_refused(edge):
    answer = edge.get("/v1/sentiment")
    assert (answer.status, answer.json["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert (answer.headers["allow"], answer.json["detail"]) == ("POST", "/v1/sentiment has no method GET: use POST")


def test_the_status_and_the_models_are_read_by_get(edge):
    assert edge.get("/v1/status").json["health"] == "healthy"
    assert {"auto"} <= {model["name"] for model in edge.get("/v1/models").json["models"]}


def test_health_needs_no_key(edge):
    assert edge.get("/health/live").status == edge.get("/health/ready").status == 200


def test_one_request_id_and_trace_are_in_the_logs_of_all_three_services(edge, pair):
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = f"00-{trace}-b7ad6b7169203331-01"
    answer = edge.post("/v1/sentiment", {"text": "Profit rose"}, x_request_id="followed-1", traceparent=parent)
    assert answer.headers["x-request-id"] == "followed-1"
    assert answer.json["request_id"] == "followed-1"
    lines = {}
    for service in ("edge", "gateway", "inference"):
        log = pair.state / f"{service}.log"
        eventually(lambda log=log: '"request_id":"followed-1"' in log.read_text(encoding="utf-8"))
        [line] = [one for one in log.read_text(encoding="utf-8").splitlines() if '"followed-1"' in one]
        assert "Profit" not in line
        lines[service] = json.loads(line)
        assert lines[service]["trace_id"] == trace
    phases = {"queue_seconds", "form_seconds", "device_seconds", "encode_seconds"}
    assert phases | {"gateway_seconds"} <= lines["gateway"].keys()
    assert phases <= lines["inference"].keys()
    asked = {name: lines["gateway"][name] for name in ("method", "model", "items", "units")}
    assert asked == {"method": "AnalyzeSentiment", "model": "", "items": 1, "units": len("Profit rose") // 4 + 1}
    assert (lines["inference"]["model"], lines["inference"]["items"]) == ("minilm", 1)
    assert lines["inference"]["device_seconds"] > 0


def test_metrics_count_routes_and_reasons(edge, pair):
    edge.post("/v1/predict", {"time_series": [1], "horizon": 5})

    def counted(text: str) -> bool:
        refusals = 'market_edge_refusals_total{reason="INVALID_REQUEST",route="/v1/predict"}'
        return refusals in text and "market_edge_in_flight_bytes 0.0" in text

    assert "market_edge_request_seconds_bucket" in eventually(lambda: edge_metrics(pair), counted)


def edge_metrics(pair) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://{pair.metrics['edge']}/metrics", timeout=60) as answer:
        return answer.read().decode()
