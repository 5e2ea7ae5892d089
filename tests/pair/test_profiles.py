"""Profiles of the real pair under load."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import grpc
import numpy as np
import pytest
from click.testing import CliRunner

import market_inference
from market_inference.cli.main import main
from market_inference.contract.generated import profile_pb2, profile_pb2_grpc
from tests.extras import FRACAST

# The load runs on a model of torch, too, for the profile of a device.
pytestmark = FRACAST

TEXT = "Profit rose sharply at a company that nobody shall read of"


@pytest.fixture(scope="module")
def profiled(observed) -> Iterator[market_inference.Pair]:
    """The pair that allows profiles, under load."""
    done = threading.Event()

    def work(call: Callable[[market_inference.Client], object]) -> None:
        with observed.client() as client:
            while not done.is_set():
                with suppress(market_inference.errors.MarketInferenceError):  # a profile may hold a call up
                    call(client)

    def quick(client: market_inference.Client) -> None:
        client.predict(np.linspace(100, 130, 60), horizon=5)
        client.sentiment(TEXT)

    def slow(client: market_inference.Client) -> None:
        client.predict(np.linspace(100, 130, 60), horizon=5, model="fracast")

    with observed.client() as client:
        # The one model of the default set that runs on torch, for the profile of a device; it loads at its first call.
        client.predict(np.linspace(100, 130, 60), horizon=5, model="fracast", timeout=250)
    workers = [threading.Thread(target=work, args=(call,)) for call in (quick, slow)]
    for worker in workers:
        worker.start()
    yield observed
    done.set()
    for worker in workers:
        worker.join(60)


def address(pair: market_inference.Pair, service: str) -> str:
    """The address of a service's profile port, from the log."""
    for line in (pair.state / f"{service}.log").read_text(encoding="utf-8").splitlines():
        said = json.loads(line)
        if said["event"] == "profiles may be taken":
            return said["listen"]
    raise AssertionError(f"{service} takes no profiles")


def take(pair, service, *options):
    return CliRunner().invoke(main, ["profile", "--target", address(pair, service), "--seconds", "1", *options])


def shown(words: str, pair, service, file, *options) -> str:
    """The first profile with the words: in a second of a busy machine, a sampler has few looks."""
    text = ""
    while words not in text:
        done = take(pair, service, "--output", str(file), *options)
        assert done.exit_code == 0, done.output
        text = file.read_text()
        assert "nobody" not in text
        assert pair.key not in text
    return text


@pytest.mark.parametrize(("service", "words"), [("gateway", "gateway/"), ("inference", "engine-sentiment")])
def test_a_folded_profile_names_the_functions_and_threads_of_a_service(profiled, service, words, tmp_path):
    assert shown(words, profiled, service, tmp_path / "profile.txt", "--kind", "folded")


@pytest.mark.parametrize(("kind", "begins"), [("flamegraph", "<?xml"), ("speedscope", '{"$schema"')])
def test_other_formats_of_the_profile(profiled, kind, begins, tmp_path):
    file = tmp_path / "profile"
    done = take(profiled, "inference", "--kind", kind, "--output", str(file))
    assert done.exit_code == 0, done.output
    assert file.read_text().startswith(begins)


def test_a_device_profile_has_the_operators_of_one_engine(profiled, tmp_path):
    # On a CPU fracast's batches take long, so they run on the engine's thread for long items.
    options = "--kind", "device", "--engine", "forecast-long"
    trace = json.loads(shown("aten::", profiled, "inference", tmp_path / "trace.json", *options))
    assert any(str(event.get("name")).startswith("aten::") for event in trace["traceEvents"])


def test_a_profile_that_a_process_cannot_take_is_refused_in_one_line(profiled):
    for service, words in (("gateway", "not one that this process can take"), ("inference", "there are: forecast")):
        done = take(profiled, service, "--kind", "device", "--engine", "gpu")
        assert done.exit_code == 1
        assert words in done.output
        assert "Traceback" not in done.output


def test_the_ports_of_callers_and_of_gateways_serve_no_profiles(profiled):
    for target in (profiled.target, profiled._inference.listen):
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as caught:
            stub = profile_pb2_grpc.ProfileServiceStub(channel)
            stub.TakeProfile(profile_pb2.TakeProfileRequest(seconds=1), timeout=60)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
