"""Target, key, TLS and proxy of a client."""

from pathlib import Path

import pytest

from inference.config import Config
from market_inference import TLS, AsyncClient, Client, Retries, errors
from market_inference.client.connection import (
    Connection,
    channel_options,
    check_target,
    find_key,
    is_loopback,
    proxy_of,
)
from market_inference.errors import ArgumentError


@pytest.fixture(autouse=True)
def no_proxy_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("target", ["127.0.0.1:8470", "localhost:1", "[::1]:8470", "dns:///127.0.0.9:1", "unix:/run/x"])
def test_loopback(target: str) -> None:
    assert is_loopback(target)


@pytest.mark.parametrize("target", ["10.0.0.1:8470", "gateway:8470", "localhost.evil.example:1", "dns:///a.b:1", "1:1"])
def test_not_loopback(target: str) -> None:
    assert not is_loopback(target)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:8470", " gateway:8470\n", "[::1]:8470", "dns:///a.b:1", "unix:/run/x", "ipv4:10.0.0.1:1"]
)
def test_targets_of_grpc_are_taken(target: str) -> None:
    assert check_target(target) == target.strip()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gateway", "got 'gateway' without a port: write 'gateway:8470'"),
        ("10.0.0.1", "without a port: write '10.0.0.1:8470'"),
        ("::1", r"without a port: write '\[::1\]:8470'"),
        ("http://gateway", "a URL, 'http://gateway': write 'gateway:8470'"),
        ("http://gateway:9000/", "write 'gateway:9000'"),
        ("https://gateway:443", "write 'gateway:443', with tls=True"),
        ("gateway:", "with a port from 1 to 65535, got 'gateway:'"),
        ("gateway:99999", "with a port from 1 to 65535, got 'gateway:99999'"),
        ("gateway:abc", "with a port from 1 to 65535"),
        ("a b:1", "with a port"),
        (":8470", "with a port"),
        ("", "got ''"),
        (None, "got None"),
        (8470, "got 8470"),
    ],
)
def test_other_targets_are_refused_with_what_to_write(target: object, message: str) -> None:
    for client in (Client, AsyncClient):
        with pytest.raises(ArgumentError, match=rf"^target: expected host:port, such as 127.0.0.1:8470.*{message}"):
            client(target)  # type: ignore[arg-type]


def test_the_local_key_never_leaves_this_machine(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "development-key").write_text("local")
    assert find_key("127.0.0.1:1", None) == "local"
    assert find_key("gateway.example:1", None) == ""


def test_white_space_around_a_key_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "key\n")
    assert find_key("gateway:1", None) == find_key("gateway:1", " key\t") == "key"


@pytest.mark.parametrize("key", ["schlüssel", "a b", "a\nb", "a\x00b", 5])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: object) -> None:
    with pytest.raises(ArgumentError, match=r"^api_key: ") as caught:
        Client("gateway:1", api_key=key)  # type: ignore[arg-type]
    assert str(key) not in str(caught.value)


def test_the_error_of_a_refused_key_says_where_the_key_is_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(key: str | None) -> str:
        connection = Connection("127.0.0.1:1", key, None)
        error = connection.explain(errors.UnauthenticatedError("the API key is not valid"))
        assert connection.explain(error).message.count("; ") == 1
        assert "secret" not in error.message
        return error.message.partition("; ")[2]

    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    assert refused(None) == "set MARKET_INFERENCE_API_KEY, or give api_key= (--api-key-file on the command line)"
    (tmp_path / "development-key").write_text("secret")
    assert refused(None) == f"the key is from {tmp_path / 'development-key'}"
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "secret")
    assert refused(None) == "the key is from the environment variable MARKET_INFERENCE_API_KEY"
    assert refused("secret") == "the key is from api_key= (--api-key-file on the command line)"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MARKET_INFERENCE_APIKEY", "API_KEY"),
        ("MARKET_INFERENCE_KEY", "API_KEY"),
        ("market_inference_api_key", "API_KEY"),
        ("MARKET_INFERENCE_TARGT", "TARGET"),
        ("MARKET_INFERENCE_STATEDIR", "STATE_DIR"),
    ],
)
def test_a_variable_that_is_nearly_one_of_the_client_is_named_at_the_caller_s_line(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "secret")
    message = rf"^the environment variable {name} is not read: did you mean MARKET_INFERENCE_{meant}\?$"
    with pytest.warns(UserWarning, match=message) as caught:
        Client("gateway:1").close()
    assert caught[0].filename == __file__


def test_the_settings_of_the_services_are_no_misspelt_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Config.model_fields:
        monkeypatch.setenv(Config.variable(field), "x")
    monkeypatch.setenv("MARKET_INFERENCE_PORT", "tcp://10.0.0.1:8471")
    monkeypatch.setenv("MARKET_INFERENCE_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MARKET_INFERENCE_APIKEY", "")
    Client("gateway:1").close()  # a warning is an error of the test


def test_a_file_that_tls_needs_and_that_is_not_there_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"^tls.roots: No such file or directory: missing.pem"):
        Client("gateway:1", tls=TLS(roots="missing.pem"))
    with pytest.raises(ArgumentError, match="tls: expected True, False or a TLS"):
        Client("gateway:1", tls="yes")  # type: ignore[arg-type]


def test_a_proxy_is_used_as_grpc_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_of("gateway.example:1") is None
    monkeypatch.setenv("http_proxy", "http://me:secret@proxy:3128")
    assert proxy_of("gateway.example:1") == ("http_proxy", "http://proxy:3128")
    assert proxy_of("127.0.0.1:1") is proxy_of("unix:/run/x") is None
    monkeypatch.setenv("no_proxy", "localhost,.example")
    assert proxy_of("gateway.example:1") is None
    assert ("grpc.enable_http_proxy", 0) in channel_options("127.0.0.1:1")
    assert ("grpc.enable_http_proxy", 0) not in channel_options("gateway.example:1")


def test_a_service_on_this_machine_is_reached_whatever_the_proxy(
    service: "object", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with Client(service.target, retries=Retries(attempts=0)) as client:  # type: ignore[attr-defined]
        assert client.status().version == "0.1.0"


def test_a_proxy_that_does_not_answer_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with (
        Client("gateway.example:8470", retries=Retries(attempts=0)) as client,
        pytest.raises(errors.UnavailableError) as caught,
    ):
        client.status(timeout=60)
    assert "go through the proxy http://127.0.0.1:9 of $http_proxy: set no_proxy=gateway.example" in str(caught.value)
    assert "secret" not in str(caught.value)
