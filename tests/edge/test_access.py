"""Access to the edge: keys pass through to the gateway, other sites are refused, bodies are bounded before parsing."""

import http.client
from contextlib import closing

import pytest
from pydantic import ValidationError

from edge.config import Config
from edge.server import ConfigurationError, Server
from market_inference.cli.process import ServiceProcess, ServiceProcessError
from market_inference.errors import ArgumentError
from tests.edge.conftest import Edge

PORTS = {"MARKET_EDGE_LISTEN": "127.0.0.1:0", "MARKET_EDGE_METRICS_LISTEN": "127.0.0.1:0"}


@pytest.fixture(scope="module")
def strict(pair, tmp_path_factory):
    """A second edge before the same gateway: no key of its own, small limits, one allowed origin."""
    process = ServiceProcess(
        "edge",
        {
            **PORTS,
            "MARKET_EDGE_GATEWAY": pair.target,
            "MARKET_EDGE_MAX_BODY_BYTES": "4096",
            "MARKET_EDGE_CORS_ORIGINS": "https://desk.example",
        },
        tmp_path_factory.mktemp("strict") / "edge.log",
        lambda _: None,
    )
    try:
        yield Edge(f"http://{process.wait_ready(180).listen}", pair.key)
    finally:
        process.stop(60)


def test_without_a_key_nothing_is_computed(strict):
    answer = Edge(strict.url).post("/v1/sentiment", {"text": "x"})
    assert (answer.status, answer.json["reason"]) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_wrong_key_is_refused_before_the_body_is_parsed(strict):
    answer = Edge(strict.url, "mi_wrong").post("/v1/sentiment", b"no json at all")
    assert (answer.status, answer.json["reason"]) == (401, "UNAUTHENTICATED")


def test_the_keys_of_the_gateway_pass_through_in_both_headers(strict):
    assert strict.post("/v1/sentiment", {"text": "Profit rose"}).status == 200
    assert Edge(strict.url).post("/v1/sentiment", {"text": "Profit rose"}, x_api_key=strict.key).status == 200


def test_different_credentials_in_one_request_are_refused(edge, strict):
    for one in (strict, edge):  # `edge` has a key of its own
        answer = one.post("/v1/sentiment", {"text": "Profit rose"}, x_api_key="mi_other_key")
        assert (answer.status, answer.json["reason"]) == (401, "UNAUTHENTICATED")
        assert "different credentials" in answer.json["detail"]
    assert strict.post("/v1/sentiment", {"text": "Profit rose"}, x_api_key=strict.key).status == 200


def test_a_large_body_is_refused_by_its_length_and_by_its_bytes(strict):
    answer = strict.post("/v1/sentiment", {"text": "x" * 5000})
    assert (answer.status, answer.json["reason"]) == (413, "REQUEST_TOO_LARGE")
    assert answer.json["errors"][0]["limit"] == 4096
    connection = http.client.HTTPConnection(strict.url.removeprefix("http://"), timeout=60)
    with closing(connection):
        headers = {"authorization": f"Bearer {strict.key}"}
        connection.request("POST", "/v1/sentiment", iter([b"x" * 1000] * 6), headers, encode_chunked=True)
        assert connection.getresponse().status == 413


def test_pages_of_other_sites_are_refused_unless_configured(edge, strict):
    foreign = edge.post("/v1/sentiment", {"text": "x"}, origin="https://other.example")
    assert (foreign.status, foreign.json["reason"]) == (403, "FOREIGN_ORIGIN")
    assert "access-control-allow-origin" not in foreign.headers
    assert edge.post("/v1/sentiment", {"text": "x"}, origin=edge.url).status == 200
    allowed = strict.post("/v1/sentiment", {"text": "x"}, origin="https://desk.example")
    assert allowed.headers["access-control-allow-origin"] == "https://desk.example"
    assert strict.post("/v1/sentiment", {"text": "x"}, origin="https://other.example").status == 403


def test_the_own_key_serves_this_machines_names_only(edge):
    keyless = Edge(edge.url)
    assert keyless.post("/v1/sentiment", {"text": "Profit rose"}).status == 200
    assert keyless.post("/v1/sentiment", {"text": "Profit rose"}, authorization="Bearer ").status == 200
    rebound = keyless.post("/v1/sentiment", {"text": "Profit rose"}, host="rebound.example:8472")
    assert (rebound.status, rebound.json["reason"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"MARKET_EDGE_LISTEN": "0.0.0.0:0"}, "MARKET_EDGE_ALLOW_PLAINTEXT"),
        (
            {"MARKET_EDGE_LISTEN": "0.0.0.0:0", "MARKET_EDGE_ALLOW_PLAINTEXT": "true", "MARKET_EDGE_KEY_FILE": "k"},
            "listen on loopback",
        ),
        ({"MARKET_EDGE_TLS_CERTIFICATE": "c.pem"}, "MARKET_EDGE_TLS_KEY"),
        ({"MARKET_EDGE_LISTEN": "nowhere"}, "host:port"),
    ],
)
async def test_a_configuration_that_leaves_a_door_open_is_refused(settings, words, monkeypatch):
    for name, value in {**PORTS, **settings}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ValidationError, ConfigurationError, ArgumentError), match=words):
        Server(Config())


def test_a_refused_configuration_ends_the_process(tmp_path):
    process = ServiceProcess(
        "edge", {**PORTS, "MARKET_EDGE_GATEWAY": "http://gateway"}, tmp_path / "edge.log", lambda _: None
    )
    with pytest.raises(ServiceProcessError, match="got a URL"):
        process.wait_ready(180)
    process.kill()
